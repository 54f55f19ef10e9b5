"""Watching one submission until it ends, has to be ended, or has nothing left to do."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lvae.manifests.parts.phases import Phase
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.retry import is_outage
from lvae.pipeline.engines import clusters
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.processes import ProcessGroup
from lvae.pipeline.engines.tasks import Pending, share_one
from lvae.pipeline.progress import reports as progress
from lvae.pipeline.progress.reports import Report

POLL_SECONDS = 0.25
REMOTE_POLL_SECONDS = 3.0  # where a look is some requests to an object store
LOST_WORKER_SECONDS = 6.0  # a worker process is gone, and the submission has not ended by itself
FINISHING_SECONDS = 2.0  # for workers to put down what they know of their last parts: timings, for one
# How long a task may wait for the same thing: a file server that fails over and the first compilation on an accelerator
# take minutes. A request to a storage gives up earlier.
PHASE_SECONDS: dict[Phase, float] = {"loading": 900.0, "reading": 600.0, "computing": 60.0, "writing": 600.0}
NO_PHASE: Phase = "computing"  # between two tasks
SILENT_SECONDS = 60.0  # without a sign of life of any worker
REMOTE_SILENT_SECONDS = 300.0  # the same, where each sign is a request to an object store
TASK_CPU_SECONDS = 0.5  # of a task's own thread, that count as getting somewhere
BUSY_SHARE = 0.02  # of a core, that counts as getting somewhere before a worker is heard of; idle waiting stays below
SLOW_LOOK_SECONDS = 5.0  # a look that takes longer waits for the storage, and tells nothing of the workers

Watcher = Callable[[list[Report], Sequence[int]], None]


@dataclass(frozen=True)
class Ending:
    """How a submission ended, in a few words; stalled: it had to be ended, as nothing happened any more."""

    how: str
    stalled: bool = False


class Liveness:
    """When a submission last got anywhere, and for how long that may be.

    Workers tell of tasks that are done, of phases, and of the CPU time of their tasks' own threads. Until a worker is
    heard of, what the processes of the submission compute counts: a busy machine may take minutes to load Beam.
    """

    def __init__(self, starting: float, silent: float, who: str):
        """starting: seconds for a first worker to be heard of. who: what a person calls workers."""
        self._starting, self._silent, self._who = starting, silent, who
        self._state: object = None
        self._signs: object = None
        self._cpu = 0.0
        self._moved_at = self._heard_at = time.monotonic()

    def excuse(self, seconds: float) -> None:
        """Nothing could be seen for so long."""
        self._moved_at += seconds
        self._heard_at += seconds

    def look(self, reports: list[Report], pending: int, cpu_here: float) -> str | None:
        """Return what is wrong, in a few words, or None. cpu_here: seconds that processes here have computed."""
        now = time.monotonic()
        if (signs := tuple(reports)) != self._signs:
            self._signs, self._heard_at = signs, now
        state = ([(one.kind, one.task, one.done, one.phase) for one in reports], pending)
        cpu = sum(one.cpu_seconds for one in reports) if reports else cpu_here
        enough = TASK_CPU_SECONDS if reports else BUSY_SHARE * (now - self._moved_at)
        if state != self._state or cpu - self._cpu > max(enough, BUSY_SHARE):
            self._state, self._cpu, self._moved_at = state, cpu, now
        if reports and now - self._heard_at >= self._silent:
            return f"no {self._who} gave a sign of life for {self._silent:.0f} s"
        phases: list[Phase] = [one.phase for one in reports if one.kind == "working"]
        longest = max(phases, key=lambda phase: PHASE_SECONDS[phase], default=NO_PHASE)
        patience = PHASE_SECONDS[longest] if reports else self._starting
        if now - self._moved_at >= patience:
            doing = f" {longest}" if phases else ""
            return f"no {self._who} got anywhere{doing} for {patience:.0f} s"
        return None


def supervise(
    folder: Folder,
    process: "subprocess.Popen[bytes]",
    attempt: str,
    pending: Pending,
    batch: Sequence[int],
    engine: Engine,
    watch: Watcher,
) -> Ending:
    """Tell `watch` of reports and pending tasks, a few times a second, until there is an end to tell of."""
    group = ProcessGroup(process.pid)
    starting = PHASE_SECONDS["loading"] if engine.in_process else clusters.starting_seconds(engine.runner)
    silent = REMOTE_SILENT_SECONDS if folder.remote else SILENT_SECONDS
    liveness = Liveness(starting, silent, "process" if engine.in_process else "worker")
    lost_at: float | None = None
    done_at: float | None = None
    looked_at = time.monotonic()
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(REMOTE_POLL_SECONDS if folder.remote else POLL_SECONDS)
        folder.check_lease()
        start, last, looked_at = time.monotonic(), looked_at, time.monotonic()
        try:
            reports, left = progress.read_reports(folder, attempt), pending.update_sometimes()
        except OSError as error:
            if not is_outage(error):
                raise
            liveness.excuse(time.monotonic() - last)
            continue
        now = time.monotonic()
        if now - start > SLOW_LOOK_SECONDS:
            liveness.excuse(now - last)
        watch(reports, left)
        if not share_one(left, batch):
            done_at = done_at or now
            if now - done_at >= FINISHING_SECONDS or all(one.kind != "working" for one in reports):
                return Ending("all done")
            continue
        if engine.in_process or not reports:
            group.look()
        wrong = liveness.look(reports, len(left), group.cpu_seconds)
        if wrong is not None:
            return Ending(wrong, stalled=True)
        lost_at = (lost_at or now) if engine.in_process and group.lost_a_worker else None
        if lost_at is not None and now - lost_at >= LOST_WORKER_SECONDS:
            return Ending("a worker process died")
    code = process.returncode
    return Ending(f"killed by signal {-code}" if code < 0 else f"exit code {code}")
