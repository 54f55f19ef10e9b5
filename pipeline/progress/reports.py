"""How workers tell the submitting command what they are at: one small file each, under the dataset's .tmp/.

It is advice, never truth: a part is finished when its receipt says so. Where workers share no disk with the command,
the files are simply not seen, and progress moves by whole parts.
"""

import bisect
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.phases import Phase
from lvae.manifests.storage.folder import TEMPORARY, Folder

PROGRESS = f"{TEMPORARY}/progress"
INTERVAL = 0.5  # seconds between two reports of a worker
REMOTE_INTERVAL = 10.0  # the same, where each is a request to an object store
BEAT_SECONDS = 5.0  # between two reports of a worker that has nothing new to tell
Failure = Literal["user", "storage", "files", "bug"]
Kind = Literal["working", "done"] | Failure


@dataclass(frozen=True)
class Report:
    """What a worker is at.

    kind: working, done, or why it gave up: for what a user can mend, as the storage does not answer, for another answer
        of it, or for a bug; where, problem, advice: of that.
    attempt: the submission that the task is part of; workers elsewhere outlive theirs.
    phase: what the task waits for. cpu_seconds: that its thread has computed so far.
    """

    kind: Literal["working", "done", "user", "storage", "files", "bug"]
    task: str
    done: int
    attempt: str = ""
    phase: Phase = "computing"
    cpu_seconds: float = 0.0
    where: str = ""
    problem: str = ""
    advice: str = ""

    def error(self) -> LvaeError:
        """Return what made the worker give up."""
        return LvaeError(self.where, self.problem, self.advice)


_computed = threading.Event()  # by this process: devices may compile the first batch, which counts as loading


class Reporter:
    """The worker's side, for one task: what it is told, and while it is entered, a sign of life now and then."""

    def __init__(self, folder: Folder, task: str, attempt: str):
        worker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"
        self._folder, self._name = folder, f"{PROGRESS}/{worker}.json"
        self._interval = REMOTE_INTERVAL if folder.remote else INTERVAL
        if not folder.remote:
            self._path = folder.local(self._name)
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
        self._task, self._attempt = task, attempt
        self._cpu_seconds = _find_thread_clock()
        self._phase: Phase = "loading"
        self._done, self._last, self._ended = 0, 0.0, False
        self._lock, self._end = threading.Lock(), threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def begin(self, part: int) -> None:
        with self._lock:  # so that no beat tells of one part what is true of another
            self._task, self._done, self._last = name_of_part(part), 0, 0.0

    def working(self, done: int) -> None:
        self._done, now = done, time.monotonic()
        if now - self._last >= self._interval:
            self._last = now
            self._write("working")

    def enter(self, phase: Phase) -> None:
        """Say what the task waits for from now on; with the next report, so that this may be called often."""
        if self._phase == "computing" != phase:
            _computed.set()
        self._phase = phase

    def finished(self) -> None:
        self._write("done")

    def failed(self, kind: Failure, error: LvaeError) -> None:
        self._write(kind, error)

    def _beat(self) -> None:
        while not self._end.wait(max(BEAT_SECONDS, self._interval)):
            self._write("working")

    def _write(self, kind: Kind, error: LvaeError | None = None) -> None:
        """A report that cannot be written (a full disk) must not stop the work, nor hide why the work stopped."""
        phase = "loading" if self._phase == "computing" and not _computed.is_set() else self._phase
        texts = [] if error is None else [error.where, error.problem, error.advice]
        done = self._done if kind == "working" else 0
        with self._lock, suppress(OSError, LvaeError):
            if self._ended:
                return  # a beat that comes late
            cpu_seconds = self._cpu_seconds()
            report = Report(kind, self._task, done, self._attempt, phase, cpu_seconds, *map(_escape_surrogates, texts))
            data = records.line(report)
            self._ended = kind != "working"
            if self._folder.remote:
                self._folder.write(self._name, data)
                return
            temporary = self._path.with_suffix(".part")  # not flushed to the disk, as files of a dataset are
            temporary.write_bytes(data)
            temporary.replace(self._path)


def _escape_surrogates(text: str) -> str:
    """Names of files may hold what UTF-8 cannot say."""
    return text.encode(errors="backslashreplace").decode()


def _find_thread_clock() -> Callable[[], float]:
    """The CPU time of the calling thread, for other threads to ask; where the system has no such clock, the process's.

    Threads that wait for an engine's messages use a little of it all the time, which is no work.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


def name_of_part(part: int) -> str:
    """How a task that makes a part is called."""
    return f"part {part}"


def read_reports(folder: Folder, attempt: str | None = None) -> list[Report]:
    """What all workers said last, of one submission or of any. Those that cannot be read are passed over."""
    found = []
    for name in folder.names(PROGRESS):
        with suppress(LvaeError):
            data = folder.read_if_there(name) if name.endswith(".json") else None
            if data is not None:
                found.append(records.parse(Report, data, name))
    return [report for report in found if attempt in (None, report.attempt)]


def forget(folder: Folder) -> None:
    """Before a submission: what earlier workers said no longer counts."""
    folder.remove(PROGRESS)


class Throttle:
    """Whether something is due again that may take no more than a share of a core's time: the workers need every core.

    Entered, it measures what that something takes. longest: seconds after which it is due in any case.
    """

    def __init__(self, share: float, longest: float = math.inf):
        self._share, self._longest = share, longest
        self._next, self._start = 0.0, 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def __enter__(self) -> None:
        self._start = time.process_time()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        taken = time.process_time() - self._start
        self._next = time.monotonic() + min((1 / self._share - 1) * taken, self._longest)


class PartsDone:
    """How many items of a job's parts are done, told from the parts that wait and from what workers say.

    sizes: of all parts, in items. waiting: the numbers of those without a receipt, ascending. A worker's task is
    "part N".
    """

    def __init__(self, sizes: Sequence[int], waiting: Sequence[int]):
        self._sizes, self._all = sizes, sum(sizes)
        self._waiting, self._left = waiting, self._items_of(waiting)

    def now(self, found: list[Report], waiting: Sequence[int]) -> int:
        if waiting is not self._waiting:  # most of the time nothing has changed, and there may be a million
            self._waiting, self._left = waiting, self._items_of(waiting)
        working = {report.task: report.done for report in found if report.kind == "working"}
        return self._all - self._left + sum(done for task, done in working.items() if self._is_waiting(task))

    def _items_of(self, waiting: Sequence[int]) -> int:
        return sum(self._sizes[part] for part in waiting)

    def _is_waiting(self, task: str) -> bool:
        number = task.removeprefix("part ")
        if not number.isdecimal():
            return False
        part = int(number)
        place = bisect.bisect_left(self._waiting, part)
        return place < len(self._waiting) and self._waiting[place] == part
