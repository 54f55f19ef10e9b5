"""Verifying a dataset by workers: parts and shards in runs, each with a receipt, and the view's order made again."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import Manifest
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import Plan, read_plan, read_plan_if_whole
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.manifests.verify.checker import Subject
from lvae.manifests.verify.receipts import (
    CHECKS,
    PARTS_AT_ONCE,
    CheckedParts,
    CheckedShards,
    check_name,
    part_runs,
    parts_subject,
    read_checked_parts,
    read_checked_shards,
    shard_runs,
    shards_subject,
)
from lvae.manifests.verify.verify import mend_command, verify
from lvae.manifests.views.combine import Selected
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewPlan
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.jobs.fold import fold_again
from lvae.pipeline.jobs.spread import Spread
from lvae.pipeline.progress.display import Display

T = TypeVar("T")
Kind = Literal["parts", "shards", "listing"]


@dataclass(frozen=True)
class ByWorkers:
    """A checker that has workers look. scratch: where receipts of checks and the order lie."""

    scratch: Folder
    engine: Engine
    display: Display

    @property
    def command(self) -> str:
        return self.engine.command

    def _spread(self, folder: Folder, plan: Plan) -> Spread:
        return Spread(folder, self.scratch, plan, self.engine, self.display)

    def _is_there(self, kind: Kind, run: int) -> bool:
        return self.scratch.size(check_name(self.command, kind, run)) is not None

    def _make_way(self, kind: Kind, runs: range, counts: Callable[[int], bool]) -> None:
        """Remove receipts that do not count: stale ones, and those that tell of faults, which may have been mended."""
        for run in runs:
            if self._is_there(kind, run) and not counts(run):
                self.scratch.remove(check_name(self.command, kind, run))

    def parts(self, subject: Subject) -> Iterator[CheckedParts]:
        plan, scratch = subject.plan, self.scratch

        def look(run: int) -> CheckedParts | None:
            return read_checked_parts(scratch, self.command, run, parts_subject(plan, run, subject.kept))

        runs = range(part_runs(plan))
        self._make_way("parts", runs, lambda run: _faultless(look(run)))
        spread = self._spread(subject.folder, plan)
        spread.do("check parts", runs, lambda run: self._is_there("parts", run))
        for found in scratch.each(look, runs):
            yield _require(found)

    def segments(self, subject: Subject) -> Iterator[str]:
        scratch, numbers = self.scratch, range(len(subject.plan.listing.segments))
        spread = self._spread(subject.folder, subject.plan)
        self._make_way("listing", numbers, lambda number: False)
        spread.do("check listing", numbers, lambda one: self._is_there("listing", one))
        for number in numbers:
            yield scratch.read(check_name(self.command, "listing", number)).decode()

    def select(self, subject: Subject, selection: Selection) -> Selected:
        return fold_again(self._spread(subject.folder, subject.plan), selection, statistics=subject.kept)

    def shards(self, folder: Folder, manifest: Manifest, view: ViewPlan, plan: Plan | None) -> Iterator[CheckedShards]:
        scratch, runs = self.scratch, range(shard_runs(view.layouts))

        def look(run: int) -> CheckedShards | None:
            return read_checked_shards(scratch, self.command, run, shards_subject(view, run, plan is not None))

        self._make_way("shards", runs, lambda run: _faultless(look(run)))
        whole = plan or read_plan(folder)
        if whole is None:
            raise LvaeError(folder, "has no plan.json", "Run its 'lvae encode' command again.")
        step = "check shards" if plan is None else "compare shards"
        spread = self._spread(folder, whole)
        spread.do(step, runs, lambda run: self._is_there("shards", run), view.name)
        for found in scratch.each(look, runs):
            yield _require(found)


def _faultless(found: CheckedParts | CheckedShards | None) -> bool:
    return found is not None and not found.faults


def _require(found: T | None) -> T:
    if found is None:
        raise LvaeError("", "what was checked has changed meanwhile", "Run the same command again.")
    return found


def find_faults(folder: Folder, engine: Engine, display: Display) -> list[Fault]:
    """All faults of a dataset, to the last byte, by workers where it is large. For the holder of the lock.

    What was found lies under checks/ until `forget_checks`, and this command does not look at it twice. What another
    one has left there, which was killed maybe long ago, goes.
    """
    if next(folder.names(f"{CHECKS}/{engine.command}"), None) is None:
        forget_checks(folder)
    plan = read_plan_if_whole(folder)
    if plan is None or plan.encoding is None or Spread(folder, folder, plan, engine, display).small:
        return verify(folder, deep=True)
    return verify(folder, deep=True, checker=ByWorkers(folder, engine, display))


def forget_checks(folder: Folder) -> None:
    """A verification has ended well."""
    folder.remove(CHECKS)


def forget_checked_parts(folder: Folder, engine: Engine, parts: Iterable[int]) -> None:
    """What was checked of parts that are made again: their receipts may be others then."""
    if next(folder.names(f"{CHECKS}/{engine.command}"), None) is not None:
        for run in sorted({part // PARTS_AT_ONCE for part in parts}):
            folder.remove(check_name(engine.command, "parts", run))


def refuse_faults(folder: Folder, plan: Plan, engine: Engine, display: Display) -> None:
    """The last step of what makes a dataset: every byte of it is read again."""
    faults = find_faults(folder, engine, display)
    if faults:
        first, *rest = faults
        more = f" and {counted(len(rest), 'more fault')}" if rest else ""
        raise LvaeError(
            f"{folder}/{first.where}", f"{first.problem}{more}", f"Run: {mend_command(plan, folder, faults)}"
        )
    forget_checks(folder)


def verify_by_workers(folder: Folder, engine: Engine, display: Display) -> list[Fault]:
    """All faults of a dataset that is only looked at, and nothing taken for granted that lies in it.

    Workers on this machine leave what they find in a temporary folder. Those elsewhere leave it in the dataset's, which
    is locked meanwhile.
    """
    if read_plan_if_whole(folder) is None:
        return verify(folder, deep=True)  # samples have no parts
    if engine.in_process:
        with TemporaryDirectory() as scratch:
            return verify(folder, deep=True, checker=ByWorkers(Folder(scratch), engine, display))
    with writing(folder):
        folder.sweep()
        forget_checks(folder)
        faults = verify(folder, deep=True, checker=ByWorkers(folder, engine, display))
        forget_checks(folder)
        folder.sweep()
        return faults
