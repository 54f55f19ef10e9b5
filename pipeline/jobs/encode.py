"""The whole encoding job in its order: plan, parts, fold, view, manifest, verification."""

from dataclasses import dataclass, replace
from functools import partial

from lvae.encode.feeding.settings import Feeding
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import Manifest, read_manifest, refuse_earlier_format
from lvae.manifests.parts.enlarged import tell_of_enlarged
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import has_receipt
from lvae.manifests.publishing.publish import drop_raw, swap
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.open import folder_at
from lvae.manifests.storage.places.guard import DATASET, guard_output
from lvae.manifests.views.view import ViewSettings
from lvae.pipeline.beam.work import PartsToEncode, ranges_of
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.submit import run
from lvae.pipeline.engines.tasks import Pending, Tasks
from lvae.pipeline.jobs.check import find_faults, forget_checked_parts, forget_checks
from lvae.pipeline.jobs.finish import finish_dataset
from lvae.pipeline.jobs.resume import (
    Result,
    check_rejected,
    check_settings,
    find_finished,
    remove_leftovers,
    set_aside,
)
from lvae.pipeline.jobs.spread import Spread
from lvae.pipeline.planning.bounds import parse_rejection_bound
from lvae.pipeline.planning.existing import load_existing
from lvae.pipeline.planning.plan import EncodeOptions, prepare
from lvae.pipeline.planning.view import ViewOptions
from lvae.pipeline.progress import reports as progress
from lvae.pipeline.progress.display import Display


@dataclass(frozen=True)
class EncodeRequest:
    """What to encode, where to, and how. max_rejected: as on the command line. drop_raw: once all is verified."""

    source: str
    dataset: str
    options: EncodeOptions
    view: ViewOptions
    feeding: Feeding
    max_rejected: str | None = None
    drop_raw: bool = False


def encode(request: EncodeRequest, engine: Engine, display: Display) -> Result:
    """Images to a finished, verified dataset. The same call again goes on, mends what is damaged, or does nothing."""
    folder = folder_at(request.dataset)
    guard_output(request.dataset, DATASET, [request.source])
    if request.max_rejected is not None:
        parse_rejection_bound(request.max_rejected, 0)  # a typing error is told now, not after the work
    refuse_earlier_format(folder)
    with writing(folder):
        folder.sweep()
        look = partial(find_faults, folder, engine, display)
        existing = load_existing(folder, look, display.say)
        if request.options.scan.append and existing.dropped:
            raise LvaeError(
                request.dataset,
                "its raw parts have been dropped, and new images need them beside theirs",
                "Encode the new images into a dataset of their own.",
            )
        plan = prepare(folder, existing, request.source, request.options, display.say)
        if existing.damaged:
            set_aside(folder, plan, existing, look)
        settings = check_settings(folder, plan, request.view, existing)
        finished_before = find_finished(existing, plan)
        if finished_before is not None:
            result = _leave_as_it_is(folder, plan, finished_before, request, display)
        else:
            result = _make(folder, plan, settings, request, engine, display)
        if request.drop_raw and result.manifest.raw == "kept":
            drop_raw(folder)
            result = replace(result, manifest=read_manifest(folder) or result.manifest)
        folder.sweep()
        return result


def _leave_as_it_is(folder: Folder, plan: Plan, manifest: Manifest, request: EncodeRequest, display: Display) -> Result:
    display.say(f"{request.dataset}: is finished and whole; there is nothing to do")
    forget_checks(folder)
    if manifest.raw == "kept":
        check_rejected(folder, plan, manifest.counts.rejected, request.max_rejected, display.say)
        remove_leftovers(folder, plan)
        swap(folder, manifest)
    return Result(manifest, 0, 0)


def _make(
    folder: Folder, plan: Plan, settings: ViewSettings, request: EncodeRequest, engine: Engine, display: Display
) -> Result:
    manifest, parts, shards = finish_dataset(
        Spread(folder, folder, plan, engine, display),
        settings,
        lambda: _encode_parts(folder, plan, request.feeding, engine, display),
        lambda rejected: check_rejected(folder, plan, rejected, request.max_rejected, display.say),
    )
    tell_of_enlarged(folder, plan, display.say)
    return Result(manifest, parts, shards)


def _encode_parts(folder: Folder, plan: Plan, feeding: Feeding, engine: Engine, display: Display) -> int:
    tasks = Tasks(
        numbers=range(plan.listing.parts),
        finished=partial(has_receipt, folder),
        name=lambda part: f"part {part}",
        describe=lambda part: _describe_part(plan, part),
        work=lambda parts: PartsToEncode(folder.address, ranges_of(parts, engine.tasks), feeding),
    )
    sizes = [plan.listing.place(part).rows for part in range(plan.listing.parts)]
    pending = Pending(folder, tasks).update()
    if not pending:
        return 0
    forget_checked_parts(folder, engine, pending)
    made, parts_done = len(pending), progress.PartsDone(sizes, pending)
    with display.progress("encoding", sum(sizes), "images", parts_done.now([], pending)) as bar:
        run(folder, tasks, engine, lambda reports, waiting: bar.at(parts_done.now(reports, waiting)), display.say)
    return made


def _describe_part(plan: Plan, part: int) -> str:
    place = plan.listing.place(part)
    return f"part {part} (images {place.first_row} to {place.first_row + place.rows - 1})"
