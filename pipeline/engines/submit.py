"""Running a job to its end: Beam's options, submissions as watched child processes, and what happens when they die.

The in-process runner neither retries nor survives a lost process, so each submission is a child of the command. What
is finished is asked of the receipts, never of the runner; what is not is submitted again.
"""

import os
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.scratch import Scratch
from lvae.pipeline.beam.work import Submission, Work
from lvae.pipeline.engines import clusters
from lvae.pipeline.engines.choose import Engine, cores
from lvae.pipeline.engines.processes import ProcessGroup, child, last_line
from lvae.pipeline.progress import reports as progress

POLL_SECONDS = 0.25
REMOTE_POLL_SECONDS = 3.0  # where a look is some requests to an object store
LOST_WORKER_SECONDS = 6.0  # a worker process is gone, and the submission has not ended by itself
STALLED_SECONDS = 60.0  # no process of the submission has got anywhere
CPU_SECONDS = 3.0  # of computing that count as getting somewhere; idle waiting stays below that in a stall
GLANCES = 0.01  # of a core's time, at most, for asking which tasks have their receipts meanwhile
FULL_BYTES = 1 << 20  # a disk with less than this is full: what failed, failed for that
FRUITLESS_SUBMISSIONS = 3  # in a row, without a new receipt
DEATHS_ALONE = 2  # of a task that runs with nothing beside it


def _share_of_cores() -> float:
    """What a process that wants to compute may expect of a core on a machine this busy."""
    return min(1.0, cores() / max(os.getloadavg()[0], 1.0))


@dataclass(frozen=True)
class Tasks:
    """The work of a job.

    numbers: all tasks. finished: whether a task has its receipt. name: how a worker reports a task. describe: what a
    person calls it. work: some of them, for a submission.
    """

    numbers: Sequence[int]
    finished: Callable[[int], bool]
    name: Callable[[int], str]
    describe: Callable[[int], str]
    work: Callable[[list[int]], Work]


class Pending:
    """The tasks without a receipt. Each is asked for by name, and not again once it is finished."""

    def __init__(self, folder: Folder, tasks: Tasks):
        self._folder, self._tasks = folder, tasks
        self.numbers = list(tasks.numbers)
        self._sparing = progress.Sparing(GLANCES)

    def look(self) -> list[int]:
        found = self._folder.each(self._tasks.finished, self.numbers)
        self.numbers = [number for number, finished in zip(self.numbers, found, strict=True) if not finished]
        return self.numbers

    def glance(self) -> list[int]:
        """The same, but only now and then."""
        if self._sparing.due:
            with self._sparing:
                self.look()
        return self.numbers


Watcher = Callable[[list[progress.Report], list[int]], None]


def run(folder: Folder, tasks: Tasks, engine: Engine, watch: Watcher, log: Callable[[str], None]) -> None:
    """Submit until nothing is pending.

    `watch` is told the workers' reports and the pending tasks, a few times a second. After a death,
    what has no receipt is submitted again; a task that was under way at two deaths then runs alone; one that takes
    its process down twice while alone is named. Three submissions in a row without a new receipt end the job.
    """
    deaths: Counter[int] = Counter()
    deaths_alone: Counter[int] = Counter()
    fruitless = 0
    waiting = Pending(folder, tasks)
    pending = waiting.look()
    while pending:
        poisonous = {task for task, count in deaths_alone.items() if count >= DEATHS_ALONE}
        suspects = [task for task in pending if deaths[task] >= 2 and task not in poisonous]
        others = [task for task in pending if task not in suspects and task not in poisonous]
        batch = others or suspects[:1]
        if not batch:
            break
        alone = not others
        end = _submit(folder, tasks, batch, waiting, engine, alone, watch)
        before, pending = pending, waiting.look()
        if end.user_error:
            raise LvaeError("", end.user_error)
        if end.stalled and not engine.in_process:
            clusters.let_go_of_silent_workers(engine.runner, engine.options, log)
        if pending and folder.free_bytes() < FULL_BYTES:
            raise LvaeError(folder, "no space left", "Free some, then run the same command again to go on.")
        if not set(batch) & set(pending):
            continue
        under_way = [task for task in batch if task in pending and tasks.name(task) in end.under_way]
        if not end.storage:  # else nobody died of what it was at
            deaths.update(under_way)
        if alone and not end.storage:
            deaths_alone.update(batch)
            log(f"{tasks.describe(batch[0])} took its process down ({end.how})")
            continue
        fruitless = fruitless + 1 if len(pending) == len(before) else 0
        lost = "the storage failed" if end.storage else "the workers were lost"
        log(f"{lost} ({end.how}); {len(pending)} of {len(before)} tasks are submitted again")
        if fruitless >= FRUITLESS_SUBMISSIONS:
            raise LvaeError(folder, f"{fruitless} attempts in a row achieved nothing ({end.how}).{end.last_words}")
    if pending:
        named = ", ".join(tasks.describe(task) for task in pending[:3])
        raise LvaeError(
            folder,
            f"{named}: the process dies whenever it runs, even alone (out of memory?)",
            ("Everything else is done. Run the same command with more memory, or leave those images out."),
        )


@dataclass(frozen=True)
class _End:
    """How a submission ended.

    stalled: nothing had happened for long. under_way: what workers were at. user_error: a sentence that ends the job.
    storage: whether bytes could not be read or written after several tries.
    """

    how: str
    stalled: bool
    under_way: frozenset[str]
    user_error: str | None
    storage: bool
    last_words: str


def _submit(
    folder: Folder, tasks: Tasks, batch: list[int], waiting: Pending, engine: Engine, alone: bool, watch: Watcher
) -> _End:
    progress.forget(folder)
    workers = 1 if alone else min(engine.workers, len(batch))
    attempt = uuid.uuid4().hex
    options = _options(engine, workers, len(batch))
    submission = Submission(tasks.work(batch), options, attempt, watched=engine.in_process)
    # Not on the dataset's disk: were that full, Beam would hang over a line of its log.
    with Scratch() as scratch, (scratch / "output").open("w+b") as output:
        spec = scratch / "submission.json"
        spec.write_bytes(records.dumps(submission))
        with child(spec, output, engine.environment, cancelling=not engine.in_process) as process:
            how = _watch(folder, process, attempt, waiting, set(batch), engine, watch)
        last_words = last_line(output)
    reports = progress.reports(folder, attempt)
    watch(reports, waiting.look())
    messages = {report.kind: report.message for report in reports}
    if "bug" in messages:
        raise RuntimeError(f"a task failed, which should not happen; please report it:\n{messages['bug']}")
    storage = messages.get("storage")
    return _End(
        storage or how,
        how.startswith("no "),
        frozenset(report.task for report in reports if report.kind == "working"),
        messages.get("user"),
        storage is not None,
        "" if storage else f" The last words: {last_words}",
    )


def _options(engine: Engine, workers: int, tasks: int) -> tuple[str, ...]:
    if not engine.in_process:
        return (*engine.options, *clusters.options_for(engine.runner, engine.options, tasks))
    if any(option.startswith("--direct_running_mode") for option in engine.options):
        return engine.options
    if workers == 1:
        return (*engine.options, "--direct_running_mode=in_memory")
    return (*engine.options, "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}")


def _watch(
    folder: Folder,
    process: "subprocess.Popen[bytes]",
    attempt: str,
    waiting: Pending,
    batch: set[int],
    engine: Engine,
    watch: Watcher,
) -> str:
    """Until the submission ends, has to be ended, or has nothing left to do; says how, in a few words.

    Workers on this machine are seen as processes; those elsewhere tell how much they have computed. Until one of them
    does, what the submission computes counts: a busy machine may take minutes to load Beam.
    """
    group = ProcessGroup(process.pid)
    who = "process" if engine.in_process else "worker"
    seen_state: object = None
    seen_cpu, seen_at = 0.0, time.monotonic()
    lost_at: float | None = None
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(REMOTE_POLL_SECONDS if folder.remote else POLL_SECONDS)
        now = time.monotonic()
        reports = progress.reports(folder, attempt)
        pending = waiting.glance()
        watch(reports, pending)
        if batch.isdisjoint(pending):
            return "all done"
        state = ([(report.kind, report.task, report.done) for report in reports], len(pending))
        seen_here = engine.in_process or not reports
        if seen_here:
            group.look()
        cpu = group.cpu_seconds if seen_here else sum(report.cpu_seconds for report in reports)
        if state != seen_state or cpu - seen_cpu >= CPU_SECONDS * _share_of_cores():
            seen_state, seen_cpu, seen_at = state, cpu, now
        patience = STALLED_SECONDS if engine.in_process or reports else clusters.starting_seconds(engine.runner)
        if now - seen_at >= patience:
            return f"no {who} got anywhere for {patience:.0f} s"
        lost_at = (lost_at or now) if engine.in_process and group.lost_a_worker else None
        if lost_at is not None and now - lost_at >= LOST_WORKER_SECONDS:
            return "a worker process died"
    code = process.returncode
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
