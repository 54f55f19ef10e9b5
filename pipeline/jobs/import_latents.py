"""A cache of latents that another tool made as a dataset of ours: plan, parts, view, manifest, verification."""

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lvae.encode.catalogue.architectures import find_spec, name_of
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import Manifest, refuse_earlier_format
from lvae.manifests.messages import counted
from lvae.manifests.parts.erased_rows import ErasedRows
from lvae.manifests.parts.plan import Encoding, Origin, Plan, refuse_change, write_plan
from lvae.manifests.parts.receipts import has_receipt
from lvae.manifests.parts.rows import Listing, Segment
from lvae.manifests.publishing.publish import swap
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.open import folder_at
from lvae.manifests.storage.places.guard import DATASET, guard_output
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.exchange.caches.cache import Cache
from lvae.pipeline.exchange.caches.open import Choice, Layout, open_cache
from lvae.pipeline.exchange.listing import ListingOptions, find_segment, write_segment
from lvae.pipeline.exchange.part import import_part
from lvae.pipeline.exchange.parts import listed_parts, refuse_other_numbers
from lvae.pipeline.exchange.remarks import remarks
from lvae.pipeline.exchange.settings import ANY, Conversion, ImportOptions, new_encoding, parse_range, with_record
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
from lvae.pipeline.planning.existing import Existing, load_existing
from lvae.pipeline.planning.scan import remember, remembered
from lvae.pipeline.planning.view import ViewOptions
from lvae.pipeline.progress.display import Display

LANES = 4  # parts under way at the same time: while two are computed on, others are read or flushed to the disk


@dataclass(frozen=True)
class ImportRequest:
    """What to import, where to, and what was said of it."""

    cache: str
    dataset: str
    choice: Choice
    options: ImportOptions
    listing: ListingOptions
    view: ViewOptions
    max_rejected: str | None = None


def import_latents(request: ImportRequest, engine: Engine, display: Display) -> Result:
    """A cache to a finished, verified dataset. The same call again goes on, mends what is damaged, or does nothing."""
    folder = folder_at(request.dataset)
    guard_output(request.dataset, DATASET, [request.cache])
    if request.max_rejected is not None:
        parse_rejection_bound(request.max_rejected, 0)
    refuse_earlier_format(folder)
    with writing(folder):
        folder.sweep()
        look = partial(find_faults, folder, engine, display)
        existing = load_existing(folder, look, display.say)
        plan, cache, number = _prepare(folder, existing, request, display)
        if existing.damaged:
            set_aside(folder, plan, existing, look)
        settings = check_settings(folder, plan, request.view, existing)
        finished = find_finished(existing, plan)
        if finished is not None:
            display.say(f"{request.dataset}: is finished and whole; there is nothing to do")
            check_rejected(folder, plan, finished.counts.rejected, request.max_rejected, display.say)
            forget_checks(folder)
            remove_leftovers(folder, plan)
            swap(folder, finished)
            return Result(finished, 0, 0)
        spread = Spread(folder, folder, plan, engine, display)
        manifest, made, shards = finish_dataset(
            spread,
            settings,
            lambda: _import_parts(spread, {number: cache}, request),
            lambda rejected: check_rejected(folder, plan, rejected, request.max_rejected, display.say),
        )
        _tell(plan, manifest, cache, number, display)
        folder.sweep()
        return Result(manifest, made, shards)


def _prepare(folder: Folder, existing: Existing, request: ImportRequest, display: Display) -> tuple[Plan, Cache, int]:
    """The plan, new or continued, written down; the cache, and which segment it is."""
    old = existing.plan
    if old is None:
        if existing.manifest is not None:
            raise LvaeError(folder, "is a dataset without its plan.json", "Import into another folder.")
        return _first_plan(folder, request)
    if not old.is_imported:
        raise LvaeError(folder, "holds encoded images", "Import into another folder.")
    channels = old.encoded().raw_shape[0]
    cache = open_cache(request.cache, replace(request.choice, channels=channels))
    options = with_record(request.options, cache)
    conversion = _conversion(folder, old, cache, options)
    _refuse_other_settings(folder, old.encoded(), cache, options)
    kind = conversion.kind(cache.layout)
    number = find_segment(old, cache, kind, request.listing)
    if number is not None:
        refuse_other_numbers(folder, old, {number: cache}, display.say)
        _put_back_weights(folder, old.encoded(), request.options)
        return old, cache, number
    if not request.listing.append:
        advice = "Say --append to add it, or import into another folder."
        raise LvaeError(request.cache, f"is not the cache that {folder} was made from, as it was then", advice)
    _refuse_other_kind(folder, old, kind)
    again = open_cache(request.cache, replace(request.choice, channels=channels))
    segment = write_segment(folder, again, kind, request.listing, old)
    number = len(old.listing.segments)
    remember(folder, remembered(folder) | {number: again.seen.sum}, None)
    origins, listing = (*old.origins, _origin(request)), Listing((*old.listing.segments, segment))
    plan = replace(old, origins=origins, listing=listing)
    write_plan(folder, plan)
    return plan, again, number


def _first_plan(folder: Folder, request: ImportRequest) -> tuple[Plan, Cache, int]:
    options = request.options
    channels = None
    if options.autoencoder not in (None, ANY):
        channels = find_spec(str(options.autoencoder)).latent_channels
    cache = open_cache(request.cache, replace(request.choice, channels=channels))
    encoding, conversion, network = new_encoding(cache, with_record(options, cache))
    segment = write_segment(folder, cache, conversion.kind(cache.layout), request.listing, None)
    plan = Plan("latent-vae-plan", 1, (_origin(request),), Listing((segment,)), ErasedRows(), encoding)
    if network is not None:
        from lvae.pipeline.planning.plan import store_weights  # with torch, which an import else does without

        store_weights(folder, encoding, network)
    remember(folder, {0: cache.seen.sum}, None)
    write_plan(folder, plan)
    return plan, cache, 0


def _origin(request: ImportRequest) -> Origin:
    source = request.cache if any(letter in request.cache for letter in "*?[{") else str(Path(request.cache).absolute())
    return Origin(source, None, "source" if request.listing.labels is None else "file")


def _conversion(folder: Folder, plan: Plan, cache: Cache, options: ImportOptions) -> Conversion:
    """That of the dataset; a cache that is appended may have another scale, if it is said."""
    before = Conversion.of(plan.listing.segments[-1].kind)
    scale = before.scale if options.scale is None else options.scale
    return Conversion(scale, before.shift if options.shift is None else options.shift)


def _refuse_other_kind(folder: Folder, plan: Plan, kind: str) -> None:
    layouts = {segment.kind.split()[1] for segment in plan.listing.segments}
    if kind.split()[1] not in layouts:
        raise LvaeError(
            folder, f"was made from {', '.join(sorted(layouts))}, not from {kind.split()[1]}", "Merge them."
        )


def _refuse_other_settings(folder: Folder, old: Encoding, cache: Cache, options: ImportOptions) -> None:
    """LvaeError naming the first setting that differs from what the dataset was made with."""
    image, autoencoder = old.image, old.autoencoder
    if options.crop is not None:
        refuse_change(folder, {"image.crop": image.crop}, {"image.crop": options.crop})
    if options.input_range is not None:
        now = parse_range(options.input_range)
        refuse_change(folder, {"--input-range": image.input_range}, {"--input-range": now})
    if options.store is not None:
        refuse_change(folder, {"autoencoder.store": autoencoder.store}, {"autoencoder.store": options.store})
    if options.factor is not None:
        factor = autoencoder.downsampling_factor
        refuse_change(folder, {"--factor": factor}, {"--factor": options.factor})
    if options.autoencoder is not None:
        name = ANY if options.autoencoder == ANY else name_of(find_spec(options.autoencoder))
        refuse_change(folder, {"--autoencoder": autoencoder.name}, {"--autoencoder": name})
    shape, oriented = (cache.shape, cache.orientations), (old.raw_shape, image.orientations)
    if shape != oriented:
        problem = f"holds latents of {cache.shape} in {counted(cache.orientations, 'orientation')}"
        raise LvaeError(cache.location, problem, f"{folder} has {old.raw_shape} in {image.orientations}.")


def _put_back_weights(folder: Folder, encoding: Encoding, options: ImportOptions) -> None:
    """The weights given now, if any, must be the dataset's; lost ones are put back from them."""
    record = encoding.autoencoder
    if options.weights in (None, ANY) or not record.architecture:
        return
    from lvae.encode.autoencoder import load
    from lvae.pipeline.planning.plan import store_weights

    network = load(record.architecture, options.weights)
    refuse_change(folder, {"weights": record.weights_sha256}, {"weights": network.fingerprint})
    store_weights(folder, encoding, network)


def _import_parts(spread: Spread, caches: dict[int, Cache], request: ImportRequest) -> int:
    folder, plan = spread.folder, spread.plan
    pending = [part for part in range(plan.listing.parts) if not has_receipt(folder, part)]
    others = {plan.listing.place(part).segment for part in pending} - set(caches)
    again = {number: _open_again(plan, number, request) for number in sorted(others)}
    refuse_other_numbers(folder, plan, again, spread.display.say)
    caches |= again
    rows = sum(plan.listing.place(part).rows for part in pending)
    images = plan.listing.images
    if pending:
        forget_checked_parts(folder, spread.engine, pending)
        parts = listed_parts(folder, plan, caches, pending)
        with spread.display.progress("importing", images, "images", images - rows) as bar:
            for receipt in concurrently(partial(import_part, folder, plan), parts, lanes=LANES, ahead=LANES - 1):
                bar.advance(receipt.rows)
    return len(pending)


def _open_again(plan: Plan, number: int, request: ImportRequest) -> Cache:
    """The cache of an earlier segment, of which parts have to be made again."""
    segment, source = plan.listing.segments[number], plan.origins[number].source
    layout: Layout = segment.kind.split()[1]  # type: ignore[assignment]
    choice = Choice(layout, request.choice.array, plan.encoded().raw_shape[0])
    cache = open_cache(source, choice)
    if (cache.shape, cache.orientations) != (plan.encoded().raw_shape, plan.encoded().image.orientations):
        raise LvaeError(source, "is not as it was when it was imported")
    deque(cache.rows(), maxlen=0)  # so that its files have been looked at
    return cache


def _tell(plan: Plan, manifest: Manifest, cache: Cache, number: int, display: Display) -> None:
    segment: Segment = plan.listing.segments[number]
    for note in cache.notes:
        display.say(f"{cache.location}: {note}")
    statistics = manifest.statistics
    for remark in remarks(plan.encoded(), Conversion.of(segment.kind), statistics.mean, statistics.std):
        display.say(f"warning: {remark}")
