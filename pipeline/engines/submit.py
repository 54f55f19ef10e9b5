"""Running a job to its end: submissions as watched child processes, and what happens when they die.

The in-process runner neither retries nor survives a lost process, so each submission is a child of the command. What
is finished is asked of the receipts, never of the runner; what is not is submitted again.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.scratch import Scratch
from lvae.pipeline.beam.work import Submission
from lvae.pipeline.engines import clusters
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.patience import Patience
from lvae.pipeline.engines.processes import read_last_line, start_child
from lvae.pipeline.engines.supervise import Watcher, supervise
from lvae.pipeline.engines.tasks import Pending, Tasks, holds, share_one
from lvae.pipeline.progress import reports as progress

FULL_BYTES = 1 << 20  # a disk with less than this is full: what failed, failed for that
FRUITLESS_SUBMISSIONS = 3  # in a row, without a new receipt, where the storage is not to blame
DEATHS_ALONE = 2  # of a task that runs with nothing beside it


def run(folder: Folder, tasks: Tasks, engine: Engine, watch: Watcher, say: Callable[[str], None]) -> None:
    """Submit until nothing is pending.

    `watch` is told the workers' reports and the pending tasks, a few times a second. After a death,
    what has no receipt is submitted again; a task that was under way at two deaths then runs alone; one that takes
    its process down twice while alone is named. Three submissions in a row without a new receipt end the job. Where
    the storage failed, the job waits and goes on for as long as the engine's patience lasts.
    """
    deaths: Counter[int] = Counter()
    deaths_alone: Counter[int] = Counter()
    fruitless = 0
    patience = Patience(engine.patience, say)
    waiting = Pending(folder, tasks)
    pending = patience.call(waiting.update)
    while pending:
        deadly = {task for task, count in deaths_alone.items() if count >= DEATHS_ALONE}
        suspects = [task for task in pending if deaths[task] >= 2 and task not in deadly]
        apart = {*suspects, *deadly}
        others = [task for task in pending if task not in apart] if apart else pending
        batch = others or suspects[:1]
        if not batch:
            break
        alone = not others
        end = patience.call(partial(_submit, folder, tasks, batch, waiting, engine, alone, watch))
        before, pending = pending, patience.call(waiting.update)
        if end.error is not None:
            raise end.error
        if end.stalled and not engine.in_process:
            clusters.retire_unresponsive_workers(engine.runner, engine.options, say)
        if pending and folder.free_bytes() < FULL_BYTES:
            raise LvaeError(folder, "no space left", "Free some, then run the same command again to go on.")
        got_on = len(pending) < len(before)
        if got_on:
            patience.reset()
        if not share_one(pending, batch):
            continue
        if end.failed == "storage":
            patience.wait(end.how)
            continue
        if end.failed is None:
            deaths.update(task for task in batch if tasks.name(task) in end.under_way and holds(pending, task))
            if alone:
                deaths_alone.update(batch)
                say(f"{tasks.describe(batch[0])} took its process down ({end.how})")
                continue
        fruitless = 0 if got_on else fruitless + 1
        what = "files cannot be used" if end.failed == "files" else "the workers were lost"
        say(f"{what} ({end.how}); {len(pending)} of {len(before)} tasks are submitted again")
        if fruitless >= FRUITLESS_SUBMISSIONS:
            raise LvaeError(folder, f"{fruitless} attempts in a row achieved nothing ({end.how})", end.last_line)
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

    stalled: nothing had happened for long. under_way: what workers were at. error: what ends the job. failed: what
    workers could not use, after several tries. last_line: of what the submission printed, for a person.
    """

    how: str
    stalled: bool
    under_way: frozenset[str]
    error: LvaeError | None
    failed: Literal["storage", "files"] | None
    last_line: str


def _submit(
    folder: Folder, tasks: Tasks, batch: Sequence[int], waiting: Pending, engine: Engine, alone: bool, watch: Watcher
) -> _End:
    progress.forget(folder)
    workers = 1 if alone else min(engine.workers, len(batch))
    attempt = uuid.uuid4().hex
    work = tasks.work(batch)
    options = _complete_options(engine, workers, work.elements)
    submission = Submission(work, options, attempt, watched=engine.in_process)
    # Not on the dataset's disk: were that full, Beam would hang over a line of its log.
    with Scratch() as scratch, (scratch / "output").open("w+b") as output:
        spec = scratch / "submission.json"
        spec.write_bytes(records.dumps(submission))
        with start_child(spec, output, engine.environment, cancelling=not engine.in_process) as process:
            end = supervise(folder, process, attempt, waiting, batch, engine, watch)
        last_line = read_last_line(output)
    reports = progress.read_reports(folder, attempt)
    watch(reports, waiting.update())
    failures = {report.kind: report for report in reports}
    if "bug" in failures:
        raise RuntimeError(f"a task failed, which should not happen; please report it:\n{failures['bug'].problem}")
    failed: Literal["storage", "files"] | None = (
        "storage" if "storage" in failures else "files" if "files" in failures else None
    )
    return _End(
        how=end.how if failed is None else failures[failed].problem,
        stalled=end.stalled,
        under_way=frozenset(report.task for report in reports if report.kind == "working"),
        error=failures["user"].error() if "user" in failures else None,
        failed=failed,
        last_line="" if failed else f"The last line of the engine: {last_line}",
    )


def _complete_options(engine: Engine, workers: int, tasks: int) -> tuple[str, ...]:
    if not engine.in_process:
        return (*engine.options, *clusters.options_for(engine.runner, engine.options, tasks))
    if any(option.startswith("--direct_running_mode") for option in engine.options):
        return engine.options
    if workers == 1:
        return (*engine.options, "--direct_running_mode=in_memory")
    return (*engine.options, "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}")
