"""The processes of a job: seen, kept from foreign modules, and gone with all that they left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvae.pipeline.engines.processes import AT_LEAST_EVERY, ProcessGroup
from tests.pipeline.faults import receipts, start, wait_for, worker_processes

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


JOB = ("--autoencoder", "pixels-f2", "--size", "32", "--part-size", "6", "--workers", "2")


def test_files_in_the_working_directory_are_no_modules(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("proto", "json", "numpy", "random", "pickle", "apache_beam"):
        (here / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close(); raise SystemExit(9)")
    monkeypatch.chdir(here)
    job = start("encode", scenes, tmp_path / "out", *JOB)
    _, told = job.communicate()
    assert job.returncode == 0, told
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_nothing_stays_among_temporary_files_not_even_after_a_kill(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    job = start("encode", scenes, tmp_path / "out", *JOB)
    wait_for("a receipt", lambda: receipts(tmp_path / "out"))
    workers = worker_processes(job.pid)
    job.kill()
    job.communicate()
    wait_for("the workers to end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert list(temporary.iterdir())
    again = start("encode", scenes, tmp_path / "out", *JOB)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert not list(temporary.iterdir())
