"""How workers tell the submitting command what they are at: one small file each, under the dataset's .tmp/.

It is advice, never truth: a part is finished when its receipt says so. Where workers share no disk with the command,
the files are simply not seen, and progress moves by whole parts.
"""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lvae.manifests.storage import TEMPORARY, Folder

PROGRESS = f"{TEMPORARY}/progress"
INTERVAL = 0.5  # seconds between two reports of a worker


@dataclass(frozen=True)
class Report:
    """What a worker is at. `kind`: working, done, or why it gave up: what a user can mend and bugs end the job."""

    kind: Literal["working", "done", "user", "storage", "bug"]
    task: str
    done: int
    message: str = ""


class Reporter:
    """The worker's side, for one task."""

    def __init__(self, folder: Folder, task: str):
        self._path = folder.local(f"{PROGRESS}/{socket.gethostname()}-{os.getpid()}.json")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._task, self._last = task, 0.0

    def working(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= INTERVAL:
            self._last = now
            self._write(Report("working", self._task, done))

    def finished(self) -> None:
        self._write(Report("done", self._task, 0))

    def failed(self, kind: Literal["user", "storage", "bug"], message: str) -> None:
        self._write(Report(kind, self._task, 0, message))

    def _write(self, report: Report) -> None:
        """A report that cannot be written (a full disk) must not stop the work, nor hide why the work stopped."""
        temporary = self._path.with_suffix(".part")
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(report)))
            temporary.replace(self._path)


def reports(folder: Folder) -> list[Report]:
    """What all workers said last."""
    found = []
    for path in sorted(folder.local(PROGRESS).glob("*.json")):
        text = _read(path)
        if text:
            found.append(Report(**json.loads(text)))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # swept meanwhile
        return ""


def forget(folder: Folder) -> None:
    """Before a submission: what earlier workers said no longer counts."""
    folder.remove(PROGRESS)
