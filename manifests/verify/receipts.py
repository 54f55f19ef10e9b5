"""Receipts of checks: sixteen parts, or four shards, that somebody has looked at.

They lie under checks/COMMAND/, beside the dataset and no part of it, until the command has found no fault: what it
checked before it appended images it does not check again. A receipt tells what it is about; of anything else it is
stale, and is made anew. Nobody goes by those of another command: since one was killed a disk may have lost bits, and a
stranger's dataset may bring some along.
"""

from dataclasses import dataclass
from typing import Literal

from lvae.manifests import records
from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.shards.layout import SplitLayout
from lvae.manifests.statistics import MomentsRecord
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.names import Sha256
from lvae.manifests.views.view import ViewPlan

CHECKS = "checks"
PARTS_AT_ONCE, SHARDS_AT_ONCE = 16, 4
RECEIPTS_PER_FOLDER = 1024


@dataclass(frozen=True)
class CheckedParts:
    """What was found in some parts.

    subject: what they were, see `parts_subject`. whole: whether every part has a receipt that fits; only then do sums
    and hashes count. rejected_bytes, rejected_sha256: of their lines of rejected.jsonl. receipts: the hashes of the
    parts' receipts, and their bytes together.
    """

    format: Literal["latent-vae-checked-parts"]
    version: Literal[1]
    subject: Sha256
    faults: tuple[Fault, ...]
    whole: bool
    latents: int
    rejected: int
    rejected_bytes: int
    rejected_sha256: Sha256
    receipts: tuple[Sha256, ...]
    receipt_bytes: int


@dataclass(frozen=True)
class CheckedShards:
    """What was found in some shards of a split.

    lines_bytes, lines_sha256: of their lines of the split's index. moments: of their latents before normalization,
    where no raw latents are left that tell them, and nothing is wrong.
    """

    format: Literal["latent-vae-checked-shards"]
    version: Literal[1]
    subject: Sha256
    faults: tuple[Fault, ...]
    lines_bytes: int
    lines_sha256: Sha256
    moments: MomentsRecord | None


@dataclass(frozen=True)
class ShardRun:
    """Neighbouring shards of a split."""

    split: str
    shards: range


def part_runs(plan: Plan) -> int:
    """How many runs of parts there are to check."""
    return -(-plan.listing.parts // PARTS_AT_ONCE)


def parts_of_run(plan: Plan, run: int) -> range:
    return range(run * PARTS_AT_ONCE, min((run + 1) * PARTS_AT_ONCE, plan.listing.parts))


def shard_runs(layouts: dict[str, SplitLayout]) -> int:
    return sum(-(-layout.shards // SHARDS_AT_ONCE) for layout in layouts.values())


def shards_of_run(layouts: dict[str, SplitLayout], run: int) -> ShardRun:
    """The runs of all splits are numbered one behind the other."""
    for split, layout in layouts.items():
        here = -(-layout.shards // SHARDS_AT_ONCE)
        if run < here:
            return ShardRun(split, range(run * SHARDS_AT_ONCE, min((run + 1) * SHARDS_AT_ONCE, layout.shards)))
        run -= here
    raise IndexError("there is no such run of shards")


def parts_subject(plan: Plan, run: int, kept: bool) -> str:
    """What a check of parts is about: appending to the dataset changes it for the last run alone.

    The content of the receipts is left out: who replaces a receipt removes what was checked of it.
    """
    parts = parts_of_run(plan, run)
    first, last = plan.listing.place(parts[0]), plan.listing.place(parts[-1])
    segments = plan.listing.segments[first.segment : last.segment + 1]
    stop = last.first_row + last.rows
    erased = plan.erased.within(first.first_row, stop) if plan.erased else {}
    facts = [plan.encoding_sha256, [s.sha256 for s in segments], first.first_row, stop, len(parts), kept]
    return records.sha256_of([*facts, sorted(erased)])


def shards_subject(view: ViewPlan, run: int, contents: bool) -> str:
    """What a check of shards is about. contents: whether they are compared with the raw parts."""
    return records.sha256_of([view.sha256, run, contents])


def check_name(command: str, kind: Literal["parts", "shards", "listing"], run: int) -> str:
    return f"{CHECKS}/{command}/{kind}/{run // RECEIPTS_PER_FOLDER:06d}/{run:06d}.json"


def read_checked_parts(scratch: Folder, command: str, run: int, subject: str) -> CheckedParts | None:
    """The receipt of a check of this very thing, None where it is missing, damaged or stale."""
    name = check_name(command, "parts", run)
    data = scratch.read_if_there(name)
    try:
        found = None if data is None else records.parse(CheckedParts, data, name)
    except LvaeError:
        return None
    return found if found is not None and found.subject == subject else None


def read_checked_shards(scratch: Folder, command: str, run: int, subject: str) -> CheckedShards | None:
    name = check_name(command, "shards", run)
    data = scratch.read_if_there(name)
    try:
        found = None if data is None else records.parse(CheckedShards, data, name)
    except LvaeError:
        return None
    return found if found is not None and found.subject == subject else None
