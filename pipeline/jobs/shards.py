"""A job's second half: from finished raw parts to the view that was asked for."""

from lvae.manifests.manifest import Manifest
from lvae.manifests.messages import counted
from lvae.manifests.publishing.publish import WrittenView, describe, swap
from lvae.manifests.shards.formats import codec
from lvae.manifests.storage.folder import FileRecord
from lvae.manifests.views.combine import Selected, check_counts
from lvae.manifests.views.index_pieces import index_pieces, join_index, piece_name, piece_of
from lvae.manifests.views.mixing import (
    MIXING,
    begin_mixing,
    bundles_of,
    finished_window,
    plan_mixing,
    row_bytes,
)
from lvae.manifests.views.view import (
    ViewPlan,
    ViewSettings,
    has_shard_receipt,
    plan_view,
    remove_unfinished_shards,
    shard_of,
    write_view,
)
from lvae.pipeline.jobs.spread import Spread

TWO_PASSES_BYTES = 64 << 20  # of latents on a store: with less, one request a latent is soon done


def write_selected(
    spread: Spread, settings: ViewSettings, selected: Selected, keep_old: bool = False
) -> tuple[Manifest, int]:
    """Of an order that is there: write the shards, swap the manifest. Says how many shards had to be written."""
    folder, plan = spread.folder, spread.plan
    check_counts(selected.counts, settings.selection)
    if selected.unmatched_keys:
        total = len(settings.selection.without_keys or ())
        spread.display.say(
            f"warning: --without-keys: no image has {selected.unmatched_keys} of these {counted(total, 'key')}"
        )
    view = plan_view(plan, settings, selected, selected.receipts.sha256)
    write_view(folder, view)
    metadata = [
        record.path
        for layout in view.layouts.values()
        for record in codec(view.settings.format).prepare(folder, view.name, layout)
    ]
    made = _write_shards(spread, view)
    manifest = describe(folder, plan, settings, selected, WrittenView(view, metadata, _write_indices(spread, view)))
    swap(folder, manifest, keep_old)
    folder.remove(MIXING)
    return manifest, made


def _write_shards(spread: Spread, view: ViewPlan) -> int:
    """Says how many had to be written."""
    folder = spread.folder
    remove_unfinished_shards(folder, view)
    shards = range(sum(layout.shards for layout in view.layouts.values()))
    if not in_two_passes(spread, view):
        return spread.do("shard", shards, lambda one: has_shard_receipt(folder, view, *shard_of(view, one)), view.name)
    missing = sum(not has_shard_receipt(folder, view, *shard_of(view, one)) for one in shards)
    if missing:
        mixing = plan_mixing(view, folder)
        begin_mixing(folder, view, mixing)
        bundles, windows = bundles_of(view, mixing), range(mixing.windows)
        spread.do("window", windows, lambda one: finished_window(folder, view, one) is not None, view.name)

        def is_written(number: int) -> bool:
            bundle = bundles[number]
            return all(has_shard_receipt(folder, view, bundle.split, shard) for shard in bundle.shards)

        spread.do("bundle", range(len(bundles)), is_written, view.name)
    return missing


def in_two_passes(spread: Spread, view: ViewPlan) -> bool:
    """Whether shards are mixed in two passes: where each latent that a shard needs would be a request."""
    if spread.engine.shuffle != "auto":
        return spread.engine.shuffle == "two-passes"
    stored = sum(layout.count * row_bytes(layout) for layout in view.layouts.values())
    return spread.folder.remote and stored > TWO_PASSES_BYTES


def _write_indices(spread: Spread, view: ViewPlan) -> dict[str, FileRecord]:
    """The list of every split's shards."""
    folder, pieces = spread.folder, range(sum(map(index_pieces, view.layouts.values())))
    few = len(pieces) <= len(view.layouts)
    do = spread.do_here if few else spread.do
    do("index", pieces, lambda one: folder.size(piece_name(view, *piece_of(view, one))) is not None, view.name)
    return {split: join_index(folder, view, split) for split in view.layouts}
