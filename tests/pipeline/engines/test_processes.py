import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lvae.pipeline.engines.processes import AT_LEAST_EVERY, ProcessGroup

SLEEPER = "import time; time.sleep(600)"
PARENT = f"""
import subprocess, sys
workers = [subprocess.Popen([sys.executable, "-c", {SLEEPER!r}, "sdk_worker_main"]) for _ in range(2)]
print(*(worker.pid for worker in workers), flush=True)
for worker in workers:
    worker.wait()
import time; time.sleep(600)
"""


@pytest.fixture
def submission() -> Iterator[tuple[int, list[int]]]:
    """A process group with two that look like Beam's workers: its number, theirs."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        try:
            yield parent.pid, [int(word) for word in parent.stdout.readline().split()]
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def looked(group: ProcessGroup, seconds: float) -> ProcessGroup:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        group.look()
        time.sleep(0.05)
    return group


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_worker_that_dies_is_missed_soon(submission: tuple[int, list[int]]) -> None:
    number, workers = submission
    group, others = ProcessGroup(number), ProcessGroup(os.getpgid(0))
    assert not looked(group, 0.5).lost_a_worker
    os.kill(workers[0], signal.SIGKILL)
    looked(others, 0.2)
    assert looked(group, AT_LEAST_EVERY + 1).lost_a_worker
    assert not others.lost_a_worker, "of another group"
