"""Running a job to its end: Beam's options, submissions as watched child processes, and what happens when they die.

The in-process runner neither retries nor survives a lost process, so each submission is a child of the command. What
is finished is asked of the receipts, never of the runner; what is not is submitted again.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import TEMPORARY, Folder
from lvae.pipeline import progress
from lvae.pipeline.console import say
from lvae.pipeline.submission import Submission

IN_PROCESS = "FnApiRunner"
RUNNERS = {
    "fnapirunner": IN_PROCESS,
    "directrunner": IN_PROCESS,  # Beam's own choice under this name may download and run another engine
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "daskrunner": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "portable": "PortableRunner",
    "portablerunner": "PortableRunner",
    "flink": "FlinkRunner",
    "flinkrunner": "FlinkRunner",
    "spark": "SparkRunner",
    "sparkrunner": "SparkRunner",
    "dataflow": "DataflowRunner",
    "dataflowrunner": "DataflowRunner",
}

POLL_SECONDS = 0.25
LOST_WORKER_SECONDS = 6.0  # a worker process is gone, and the submission has not ended by itself
STALLED_SECONDS = 60.0  # no process of the submission has got anywhere
CPU_SECONDS = 3.0  # of computing that count as getting somewhere; idle waiting stays below that in a stall
FULL_BYTES = 1 << 20  # a disk with less than this is full: what failed, failed for that
FRUITLESS_SUBMISSIONS = 3  # in a row, without a new receipt
DEATHS_ALONE = 2  # of a task that runs with nothing beside it


def _share_of_cores() -> float:
    """What a process that wants to compute may expect of a core on a machine this busy."""
    return min(1.0, cores() / max(os.getloadavg()[0], 1.0))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Engine:
    """How a job is run: the runner's options, and how many worker processes on this machine."""

    options: tuple[str, ...]
    workers: int
    in_process: bool
    environment: dict[str, str]


def choose_engine(beam_options: Sequence[str], workers: int, environment: dict[str, str]) -> Engine:
    """Beam's options from what stands after `--`; LvaeError for a runner or an option that nobody knows.

    Other runners than the in-process one may take options that Beam's Python side does not know: those are warned of.
    """
    name, others = IN_PROCESS, []
    waiting = iter(beam_options)
    for option in waiting:
        if option == "--runner":
            name = next(waiting, "")
        elif option.startswith("--runner="):
            name = option.removeprefix("--runner=")
        else:
            others.append(option)
    runner = RUNNERS.get(name.lower(), name if name in RUNNERS.values() else None)
    if runner is None:
        known = "FnApiRunner, dask, portable, flink, spark, dataflow"
        raise LvaeError(f"--runner={name}: there is no such runner. Choose one of {known}.")
    options = (f"--runner={runner}", *others)
    if others:
        _check_options(others, runner)
    return Engine(options, workers, runner == IN_PROCESS, environment)


def _check_options(options: Sequence[str], runner: str) -> None:
    from lvae.pipeline.beam_options import unknown_options  # which loads Beam: a second or two

    unknown = " ".join(unknown_options(options))
    if unknown and runner == IN_PROCESS:
        raise LvaeError(f"a Beam option after --: {unknown} is unknown. Leave it out, or mend its spelling.")
    if unknown:
        say(f"warning: Beam does not know {unknown}; passed on to {runner.rpartition('.')[2]} unchecked")


@dataclass(frozen=True)
class Tasks:
    """The work of a job.

    numbers: all tasks. finished: whether a task has its receipt. name: how a worker reports a task. describe: what a
    person calls it. submission: a spec for some of them.
    """

    numbers: Sequence[int]
    finished: Callable[[int], bool]
    name: Callable[[int], str]
    describe: Callable[[int], str]
    submission: Callable[[list[int], tuple[str, ...]], Submission]


class Pending:
    """The tasks without a receipt. Each is asked for by name, and not again once it is finished."""

    def __init__(self, tasks: Tasks):
        self._tasks = tasks
        self.numbers = list(tasks.numbers)
        self._next_look = 0.0

    def look(self) -> list[int]:
        self.numbers = [number for number in self.numbers if not self._tasks.finished(number)]
        return self.numbers

    def glance(self) -> list[int]:
        """The same, but at most a fortieth of the time is spent looking: the workers need every core."""
        start = time.monotonic()
        if start >= self._next_look:
            self.look()
            end = time.monotonic()
            self._next_look = end + 39 * (end - start)
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
    waiting = Pending(tasks)
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
            raise LvaeError(end.user_error)
        if pending and folder.free_bytes() < FULL_BYTES:
            raise LvaeError(f"{folder}: no space left. Free some, then run the same command again to go on.")
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
            raise LvaeError(f"{folder}: {fruitless} attempts in a row achieved nothing ({end.how}).{end.last_words}")
    if pending:
        named = ", ".join(tasks.describe(task) for task in pending[:3])
        raise LvaeError(
            f"{folder}: {named}: the process dies whenever it runs, even alone (out of memory?). Everything else is "
            "done. Run the same command with more memory, or leave those images out."
        )


@dataclass(frozen=True)
class _End:
    """How a submission ended. `under_way`: what workers were at. `user_error`: a sentence that ends the job. `storage`:
    whether bytes could not be read or written after several tries."""

    how: str
    under_way: frozenset[str]
    user_error: str | None
    storage: bool
    last_words: str


def _submit(
    folder: Folder, tasks: Tasks, batch: list[int], waiting: Pending, engine: Engine, alone: bool, watch: Watcher
) -> _End:
    progress.forget(folder)
    workers = 1 if alone else min(engine.workers, len(batch))
    submission = replace(tasks.submission(batch, _options(engine, workers)), watched=engine.in_process)
    spec = folder.write(f"{TEMPORARY}/submission.json", records.dumps(submission))
    # Not on the dataset's disk: were that full, Beam would hang over a line of its log.
    with tempfile.TemporaryFile() as output:
        with _child(folder.local(spec.path), output, engine.environment) as child:
            how = _watch(folder, child, waiting, set(batch), engine, watch)
        last_words = _last_line(output)
    reports = progress.reports(folder)
    watch(reports, waiting.look())
    messages = {report.kind: report.message for report in reports}
    if "bug" in messages:
        raise RuntimeError(f"a task failed, which should not happen; please report it:\n{messages['bug']}")
    storage = messages.get("storage")
    return _End(
        storage or how,
        frozenset(report.task for report in reports if report.kind == "working"),
        messages.get("user"),
        storage is not None,
        "" if storage else f" The last words: {last_words}",
    )


def _options(engine: Engine, workers: int) -> tuple[str, ...]:
    if not engine.in_process or any(option.startswith("--direct_running_mode") for option in engine.options):
        return engine.options
    if workers == 1:
        return (*engine.options, "--direct_running_mode=in_memory")
    return (*engine.options, "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}")


@contextmanager
def _child(spec: Path, output: IO[bytes], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A submission in a process group of its own, which does not outlive this block."""
    child = subprocess.Popen(
        [sys.executable, "-m", "lvae.pipeline.submission", str(spec)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):  # all of it has ended by itself
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _watch(
    folder: Folder,
    child: "subprocess.Popen[bytes]",
    waiting: Pending,
    batch: set[int],
    engine: Engine,
    watch: Watcher,
) -> str:
    """Until the submission ends, has to be ended, or has nothing left to do; says how, in a few words."""
    group = ProcessGroup(child.pid)
    seen_state: object = None
    seen_cpu, seen_at = 0.0, time.monotonic()
    lost_at: float | None = None
    while child.poll() is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        reports = progress.reports(folder)
        pending = waiting.glance()
        watch(reports, pending)
        if not engine.in_process:
            continue
        if batch.isdisjoint(pending):
            return "all done"
        group.look()
        cpu, state = group.cpu_seconds, (reports, len(pending))
        if state != seen_state or cpu - seen_cpu >= CPU_SECONDS * _share_of_cores():
            seen_state, seen_cpu, seen_at = state, cpu, now
        if now - seen_at >= STALLED_SECONDS:
            return f"no process got anywhere for {STALLED_SECONDS:.0f} s"
        lost_at = (lost_at or now) if group.lost_a_worker else None
        if lost_at is not None and now - lost_at >= LOST_WORKER_SECONDS:
            return "a worker process died"
    code = child.returncode
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


class ProcessGroup:
    """The processes of a submission, as /proc shows them; elsewhere than on Linux it sees none."""

    def __init__(self, group: int):
        self._group = group
        self._workers: set[int] = set()
        self._spent: dict[int, float] = {}
        self.lost_a_worker = False  # whether a worker process that was there is gone

    def look(self) -> None:
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
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) != self._group or fields[0] == "Z":
                    continue
                command = (path / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            found[int(path.name)] = (seconds, b"sdk_worker_main" in command and not command.startswith(b"/bin/sh"))
        return found


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "(none)"
