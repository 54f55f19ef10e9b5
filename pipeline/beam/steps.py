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
from lvae.manifests.views.group import fold_group, rank_group, read_ranks
from lvae.manifests.views.index_pieces import index_pieces, write_index_piece
from lvae.manifests.views.mixing import mix_window, read_mixing, write_mixed_shards
from lvae.manifests.views.order_files import THRESHOLDS, Fold, groups_of, read_fold
from lvae.manifests.views.selected_rows import Thresholds, find_thresholds
from lvae.manifests.views.view import ViewPlan, read_view


@dataclass(frozen=True)
class Place:
    """Where a step works. plan: of the dataset, as far as its manifest goes where that is looked at."""

    folder: Folder
    scratch: Folder
    plan: Plan
    view_name: str

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

    def shard(self, number: int) -> tuple[str, int]:
        """Split and number of a shard; those of all splits are numbered one behind the other."""
        for split, layout in self.view.layouts.items():
            if number < layout.shards:
                return split, number
            number -= layout.shards
        raise IndexError("there is no such shard")

    def index_piece(self, number: int) -> tuple[str, int]:
        for split, layout in self.view.layouts.items():
            if number < index_pieces(layout):
                return split, number
            number -= index_pieces(layout)
        raise IndexError("there is no such piece of an index")


def _rank(place: Place, number: int) -> None:
    rank_group(place.folder, place.plan, place.fold, number, place.scratch)


def _bound(place: Place, number: int) -> None:
    found = find_thresholds(place.fold.selection, lambda: read_ranks(place.scratch, groups_of(place.plan)))
    place.scratch.write(THRESHOLDS, records.dumps(found))


def _fold(place: Place, number: int) -> None:
    fold_group(place.folder, place.plan, place.fold, place.thresholds, number, place.scratch)


def _combine(place: Place, number: int) -> None:
    combine(place.plan, place.fold, place.scratch)


def _write_shard(place: Place, number: int) -> None:
    write_shard(place.folder, place.plan, place.view, *place.shard(number))


def _mix(place: Place, number: int) -> None:
    mix_window(place.folder, place.plan, place.view, read_mixing(place.folder, place.view), number)


def _write_mixed(place: Place, number: int) -> None:
    write_mixed_shards(place.folder, place.plan, place.view, read_mixing(place.folder, place.view), number)


def _write_index(place: Place, number: int) -> None:
    write_index_piece(place.folder, place.view, *place.index_piece(number))


def _check_parts(place: Place, number: int) -> None:
    found = check_parts(place.folder, place.plan, number, place.manifest.raw == "kept", deep=True)
    place.scratch.create(check_name("parts", number), records.dumps(found))


def _check_shards(place: Place, number: int) -> None:
    _create_check(place, number, None)


def _compare_shards(place: Place, number: int) -> None:
    _create_check(place, number, place.plan)


def _create_check(place: Place, number: int, plan: Plan | None) -> None:
    gather = None if plan is None else gather_for(place.folder, plan, place.view, place.scratch)
    found = check_shards(place.folder, place.manifest, place.view, number, gather)
    place.scratch.create(check_name("shards", number), records.dumps(found))


def _check_listing(place: Place, number: int) -> None:
    found = segment_sha256(place.folder, place.plan, number)
    place.scratch.create(check_name("listing", number), found.encode())


STEPS: dict[str, Callable[[Place, int], None]] = {
    "rank": _rank,
    "bound": _bound,
    "fold": _fold,
    "combine": _combine,
    "mix": _mix,
    "write mixed": _write_mixed,
    "shard": _write_shard,
    "index": _write_index,
    "check parts": _check_parts,
    "check listing": _check_listing,
    "check shards": _check_shards,
    "compare shards": _compare_shards,
}
