"""Running the command, hurting it, and comparing what is left with an undisturbed run."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from lvae.manifests.storage.folder import TEMPORARY
from lvae.pipeline.progress.reports import PROGRESS

T = TypeVar("T")

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


def kill_command(job: "subprocess.Popen[str]") -> None:
    """kill -9, and wait until the processes that the command started are gone as well: they end by themselves."""
    started = psutil.Process(job.pid).children(recursive=True)
    job.kill()
    job.communicate()
    wait_for("the command's processes to end", lambda: not any(process.is_running() for process in started))


def worker_processes(command: int) -> list[int]:
    """The processes that encode for a command: Beam's workers, or the submission where it does the work itself."""
    submissions = [pid for pid, process in _processes().items() if process.parent == command]
    workers = [
        pid
        for pid, process in _processes().items()
        if process.group in submissions and process.python and "sdk_worker_main" in process.line
    ]
    return workers or submissions


def opening_processes(workers: Sequence[int]) -> list[int]:
    """The processes that open images for workers, and those that start them."""
    found = list[int]()
    for worker in workers:
        with suppress(psutil.Error):
            below = psutil.Process(worker).children(recursive=True)
            found += [process.pid for process in below if "forkserver" in " ".join(process.cmdline())]
    return found


def children(parent: int) -> list[int]:
    return [pid for pid, process in _processes().items() if process.parent == parent]


@dataclass(frozen=True)
class _Process:
    parent: int
    group: int
    line: str

    @property
    def python(self) -> bool:
        return not self.line.startswith("/bin/sh")


def _processes() -> dict[int, _Process]:
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            line = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        found[int(path.name)] = _Process(int(fields[1]), int(fields[2]), line)
    return found


def wait_for(what: str, condition: Callable[[], T], seconds: float = 240.0) -> T:
    """The first true answer of a condition; fails after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def busy() -> float:
    """How many times as long everything takes as on an idle machine."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def receipts(dataset: Path) -> dict[str, int]:
    """Receipt -> time of its last change, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in (dataset / "raw").glob("*/part-*.json")}


def processes_at(dataset: Path, task: str) -> list[int]:
    """The worker processes that say they are at a task."""
    found = []
    for path in (dataset / PROGRESS).glob("*.json"):
        try:
            report = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        pid = int(path.stem.split("-")[-2])  # host, process, thread
        if (report["kind"], report["task"]) == ("working", task) and Path(f"/proc/{pid}").exists():
            found.append(pid)
    return found


def kill(pids: Sequence[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)
