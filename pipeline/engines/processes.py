"""A submission as a child process of the command, and the processes that it starts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from lvae.pipeline.progress.reports import Throttle

CANCEL_SECONDS = 10.0  # for a submission to take its job off an engine elsewhere
SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # files in the working directory are no modules, in workers neither
LOOKS, AT_LEAST_EVERY = 0.005, 2.0  # of a core's time, for looking at a machine's processes; seconds


@contextmanager
def start_child(
    spec: Path, output: IO[bytes], environment: dict[str, str], cancelling: bool
) -> Iterator["subprocess.Popen[bytes]"]:
    """A submission in a process group of its own, which does not outlive this block. `cancelling`: asked first.

    What it and its workers leave in the folder for temporary files lies beside SPEC.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lvae.pipeline.beam.submission", str(spec)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment, **SAFE_PATH, "TMPDIR": str(spec.parent)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if cancelling and process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(CANCEL_SECONDS)
        with suppress(ProcessLookupError):  # all of it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class ProcessGroup:
    """The processes of a submission on this machine."""

    def __init__(self, group: int):
        self._group = group
        self._workers: set[int] = set()
        self._spent: dict[int, float] = {}
        self._throttle = Throttle(LOOKS, AT_LEAST_EVERY)
        self.lost_a_worker = False  # whether a worker process that was there is gone

    def look(self) -> None:
        if not self._throttle.due:
            return
        with self._throttle:
            found = self._processes()
        self._spent |= {pid: seconds for pid, (seconds, _) in found.items()}
        there = {pid for pid, (_, worker) in found.items() if worker}
        self._workers |= there
        self.lost_a_worker = bool(self._workers - there)

    @property
    def cpu_seconds(self) -> float:
        """Of all processes that were ever seen."""
        return sum(self._spent.values())

    def _processes(self) -> dict[int, tuple[float, bool]]:
        """Process -> CPU seconds, and whether it is one of Beam's workers."""
        found = {}
        for pid in psutil.pids():
            with suppress(ProcessLookupError, PermissionError, psutil.Error):  # just ended, or somebody else's
                if os.getpgid(pid) != self._group:
                    continue
                process = psutil.Process(pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                command, times = process.cmdline(), process.cpu_times()
                worker = command[:1] != ["/bin/sh"] and any("sdk_worker_main" in word for word in command)
                found[pid] = (times.user + times.system, worker)
        return found


def read_last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "(none)"
