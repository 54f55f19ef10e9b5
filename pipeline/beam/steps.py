"""What is done with numbers beside encoding: groups of parts folded, shards written, parts and shards checked.

A step is a function of a dataset and a number, and leaves a file by which it is known to be done. Where it lies: in
`scratch`, which is the dataset's own folder, or another one where the dataset is only looked at. Nothing here knows
Beam, so that a command does small jobs by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import Manifest, read_manifest
from lvae.manifests.parts.plan import Plan
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.checker import gather_for
from lvae.manifests.verify.parts import check_parts
from lvae.manifests.verify.receipts import check_name
from lvae.manifests.verify.selection import segment_sha256
from lvae.manifests.verify.shards import check_shards
from lvae.manifests.views.combine import combine
from lvae.manifests.views.gather import write_shard
from lvae.manifests.views.group import fold_group, rank_group, write_thresholds
from lvae.manifests.views.index_pieces import piece_of, write_index_piece
from lvae.manifests.views.mixing import mix_window, read_mixing, write_mixed_shards
from lvae.manifests.views.order_files import THRESHOLDS, Fold, read_fold
from lvae.manifests.views.selected_rows import Thresholds
from lvae.manifests.views.view import ViewPlan, read_view, shard_of


@dataclass(frozen=True)
class Place:
    """Where a step works. plan: of the dataset, as far as its manifest goes where that is looked at.

    command: which one asks, for steps whose files are for that one alone.
    """

    folder: Folder
    scratch: Folder
    plan: Plan
    view_name: str
    command: str

    @cached_property
    def fold(self) -> Fold:
        return read_fold(self.scratch)

    @cached_property
    def thresholds(self) -> Thresholds:
        return records.parse(Thresholds, self.scratch.read(THRESHOLDS), THRESHOLDS)

    @cached_property
    def view(self) -> ViewPlan:
        return read_view(self.folder, self.view_name)

    @cached_property
    def manifest(self) -> Manifest:
        found = read_manifest(self.folder)
        if found is None:
            raise LvaeError(self.folder, "its manifest is missing", "Run the same command again.")
        return found


def _rank(place: Place, number: int) -> None:
    rank_group(place.folder, place.plan, place.fold, number, place.scratch)


def _bound(place: Place, number: int) -> None:
    write_thresholds(place.plan, place.fold, place.scratch)


def _fold(place: Place, number: int) -> None:
    fold_group(place.folder, place.plan, place.fold, place.thresholds, number, place.scratch)


def _combine(place: Place, number: int) -> None:
    combine(place.plan, place.fold, place.scratch)


def _write_shard(place: Place, number: int) -> None:
    write_shard(place.folder, place.plan, place.view, *shard_of(place.view, number))


def _mix(place: Place, number: int) -> None:
    mix_window(place.folder, place.plan, place.view, read_mixing(place.folder, place.view), number)


def _write_mixed(place: Place, number: int) -> None:
    write_mixed_shards(place.folder, place.plan, place.view, read_mixing(place.folder, place.view), number)


def _write_index(place: Place, number: int) -> None:
    write_index_piece(place.folder, place.view, *piece_of(place.view, number))


def _check_parts(place: Place, number: int) -> None:
    found = check_parts(place.folder, place.plan, number, place.manifest.raw == "kept", deep=True)
    place.scratch.create(check_name(place.command, "parts", number), records.dumps(found))


def _check_shards(place: Place, number: int) -> None:
    _create_check(place, number, None)


def _compare_shards(place: Place, number: int) -> None:
    _create_check(place, number, place.plan)


def _create_check(place: Place, number: int, plan: Plan | None) -> None:
    gather = None if plan is None else gather_for(place.folder, plan, place.view, place.scratch)
    found = check_shards(place.folder, place.manifest, place.view, number, gather)
    place.scratch.create(check_name(place.command, "shards", number), records.dumps(found))


def _check_listing(place: Place, number: int) -> None:
    found = segment_sha256(place.folder, place.plan, number)
    place.scratch.create(check_name(place.command, "listing", number), found.encode())


@dataclass(frozen=True)
class Step:
    """do: with a number. doing, unit: for a person, beside a bar."""

    do: Callable[[Place, int], None]
    doing: str
    unit: str


STEPS = {
    "rank": Step(_rank, "ranking keys", "groups of parts"),
    "bound": Step(_bound, "ranking keys", "selections"),
    "fold": Step(_fold, "folding receipts", "groups of parts"),
    "combine": Step(_combine, "folding receipts", "orders"),
    "window": Step(_mix, "mixing", "windows"),
    "bundle": Step(_write_mixed, "writing shards", "bundles"),
    "shard": Step(_write_shard, "writing shards", "shards"),
    "index": Step(_write_index, "listing shards", "pieces"),
    "check parts": Step(_check_parts, "checking parts", "runs of parts"),
    "check listing": Step(_check_listing, "checking rows", "segments"),
    "check shards": Step(_check_shards, "checking shards", "runs of shards"),
    "compare shards": Step(_compare_shards, "checking shards", "runs of shards"),
}
