"""Folding the receipts of all parts into the order of a view: groups by workers, their totals by one of them."""

from collections.abc import Iterable

from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import part_folder, receipt_name
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.combine import (
    Selected,
    UnfinishedPartsError,
    begin_fold,
    gather_selected,
    read_totals,
    require_groups,
)
from lvae.manifests.views.group import write_thresholds
from lvae.manifests.views.order_files import (
    FOLD,
    THRESHOLDS,
    Fold,
    group_receipt_name,
    groups_of,
    ranks_file,
    read_fold,
)
from lvae.manifests.views.selected_rows import needs_ranks
from lvae.manifests.views.selection import Selection
from lvae.pipeline.jobs.spread import Spread


def fold_parts(spread: Spread, selection: Selection, statistics: bool = True) -> Selected:
    """The order of a view, made anew in the scratch folder. UnfinishedPartsError names parts that lack a receipt."""
    wanted = Fold(spread.plan.whole_sha256, selection, statistics)
    return _finish(spread, begin_fold(wanted, spread.scratch))


def fold_again(spread: Spread, selection: Selection, statistics: bool = True) -> Selected:
    """The same of an order that may be there already, made since the parts were."""
    wanted = Fold(spread.plan.whole_sha256, selection, statistics)
    if spread.scratch.exists(FOLD) and read_fold(spread.scratch) == wanted:
        return _finish(spread, wanted)
    return fold_parts(spread, selection, statistics)


def _finish(spread: Spread, fold: Fold) -> Selected:
    scratch, groups = spread.scratch, range(groups_of(spread.plan))
    if needs_ranks(fold.selection):
        spread.do_small("rank", groups, lambda group: scratch.size(ranks_file(group)) is not None)
        spread.do_small("bound", range(1), lambda _: scratch.size(THRESHOLDS) is not None)
    elif scratch.size(THRESHOLDS) is None:
        write_thresholds(spread.plan, fold, scratch)
    spread.do_small("fold", groups, lambda group: scratch.size(group_receipt_name(group)) is not None)
    require_groups(spread.folder, spread.plan, fold, scratch)
    spread.do_small("combine", range(1), lambda _: read_totals(scratch, fold) is not None)
    return gather_selected(spread.folder, spread.plan, fold, scratch)


def forget_unfinished(spread: Spread, error: UnfinishedPartsError) -> None:
    """Remove receipts that do not count, so that their parts are made again. For the holder of the lock."""
    for part in error.parts:
        spread.folder.remove(receipt_name(part))


def remove_orphans(folder: Folder, plan: Plan, orphans: Iterable[str]) -> None:
    """Remove what attempts left behind that were overtaken or killed, and the parts of another plan that lay here."""
    for name in orphans:
        folder.remove(name)
    group = groups_of(plan)
    while any(True for _ in folder.names(part_folder(group))):
        folder.remove(part_folder(group))
        group += 1
