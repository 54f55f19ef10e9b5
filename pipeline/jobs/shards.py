"""A job's second half: from finished raw parts to the view that was asked for."""

from lvae.manifests.manifest import Manifest
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import receipts, receipts_record
from lvae.manifests.publishing.publish import describe, swap
from lvae.manifests.shards.formats import codec
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.order import select
from lvae.manifests.views.view import (
    ViewPlan,
    ViewSettings,
    finished_shard,
    plan_view,
    remove_unfinished_shards,
    write_view,
)
from lvae.pipeline.beam.work import ShardsToWrite
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.submit import run
from lvae.pipeline.engines.tasks import Pending, Tasks
from lvae.pipeline.progress.display import Display


def write_view_of(
    folder: Folder, plan: Plan, settings: ViewSettings, engine: Engine, display: Display, keep_old: bool = False
) -> tuple[Manifest, int]:
    """Fold the receipts, select, write the shards, swap the manifest. Says how many shards had to be written."""
    selected = select(folder, plan, settings.selection, lambda: receipts(folder, plan))
    if selected.unmatched_keys:
        total = len(settings.selection.without_keys or ())
        display.say(f"warning: --without-keys: no image has {selected.unmatched_keys} of these {counted(total, 'key')}")
    raw_sha256 = receipts_record(folder, plan.listing.parts).sha256
    view = plan_view(plan, settings, selected, raw_sha256)
    write_view(folder, view)
    metadata = [
        record.path
        for layout in view.layouts.values()
        for record in codec(view.settings.format).prepare(folder, view.name, layout)
    ]
    made = _write_shards(folder, view, engine, display)
    manifest = describe(folder, plan, settings, selected, view, metadata)
    swap(folder, manifest, keep_old)
    return manifest, made


def _write_shards(folder: Folder, view: ViewPlan, engine: Engine, display: Display) -> int:
    shards = [(split, number) for split, layout in view.layouts.items() for number in range(layout.shards)]
    tasks = Tasks(
        numbers=range(len(shards)),
        finished=lambda task: finished_shard(folder, view, *shards[task]) is not None,
        name=lambda task: "shard {} {}".format(*shards[task]),
        describe=lambda task: "shard {1} of {0}".format(*shards[task]),
        work=lambda numbers: ShardsToWrite(folder.address, view.name, tuple(shards[number] for number in numbers)),
    )
    remove_unfinished_shards(folder, view)
    made = len(Pending(folder, tasks).update())
    if made:
        with display.progress("writing shards", len(shards), "shards", len(shards) - made) as bar:
            run(folder, tasks, engine, lambda _, waiting: bar.at(len(shards) - len(waiting)), display.say)
    return made
