"""From finished parts to a finished dataset: fold, view, manifest, verification."""

from collections.abc import Callable

from lvae.manifests.manifest import Manifest
from lvae.manifests.publishing.publish import write_rejected
from lvae.manifests.views.combine import UnfinishedPartsError
from lvae.manifests.views.order_files import groups_of
from lvae.manifests.views.view import ViewSettings
from lvae.pipeline.jobs.check import refuse_faults
from lvae.pipeline.jobs.fold import fold_parts, forget_unfinished, remove_orphans
from lvae.pipeline.jobs.shards import write_selected
from lvae.pipeline.jobs.spread import Spread


def finish_dataset(
    spread: Spread, settings: ViewSettings, make_parts: Callable[[], int], check_rejected: Callable[[int], None]
) -> tuple[Manifest, int, int]:
    """Manifest, and how many parts and shards had to be made.

    make_parts: makes those without a receipt. Where folding meets receipts that are damaged or of another plan, they
    are removed and their parts made again. check_rejected: is told how many images could not be used, and may raise.
    """
    folder, plan, parts = spread.folder, spread.plan, make_parts()
    while True:
        try:
            selected = fold_parts(spread, settings.selection)
        except UnfinishedPartsError as error:
            forget_unfinished(spread, error)
            again = make_parts()
            if not again:
                raise
            parts += again
        else:
            break
    write_rejected(folder, folder, groups_of(plan))
    check_rejected(selected.rejected)
    manifest, shards = write_selected(spread, settings, selected)
    remove_orphans(folder, plan, selected.orphans)
    refuse_faults(folder, plan, spread.engine, spread.display)
    return manifest, parts, shards
