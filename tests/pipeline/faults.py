"""Running the command, hurting it, and comparing what is left with an undisturbed run."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lvae.manifests.storage import TEMPORARY

NOT_OF_THE_DATASET = (TEMPORARY, "timings", ".lock")  # INTERFACES: none of them is part of the dataset


def contents(dataset: Path) -> dict[str, str]:
    """Name -> sha256 of every file of a dataset."""
    return {
        path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and not path.relative_to(dataset).as_posix().startswith(NOT_OF_THE_DATASET)
    }


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    """`lvae ...` in the background."""
    command = [sys.executable, "-m", "lvae", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def worker_processes(command: int) -> list[int]:
    """The processes that encode for a command: Beam's workers, or the submission where it does the work itself."""
    workers, submissions = [], []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            line = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if b"lvae.pipeline.submission" in line and int(fields[1]) == command:
            submissions.append(int(path.name))
            workers += _in_group(int(path.name))
    return workers or submissions


def _in_group(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            line = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[2]) == group and b"sdk_worker_main" in line and not line.startswith(b"/bin/sh"):
            found.append(int(path.name))
    return found


def wait_for(what: str, condition: "callable[[], object]", seconds: float = 60.0) -> object:  # type: ignore[valid-type]
    """The first true answer of a condition; fails after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():  # type: ignore[misc]
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def receipts(dataset: Path) -> dict[str, int]:
    """Receipt -> time of its last change, in nanoseconds."""
    found = {}
    for path in (dataset / "raw").glob("part-*.json"):
        found[path.name] = path.stat().st_mtime_ns
    return found


def kill(pids: Sequence[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)
