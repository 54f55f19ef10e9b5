"""`--dry-run`: what an encoding job would do, how much it would write and how long it would take. Writes nothing."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lvae.encode.autoencoder import multiply_adds
from lvae.encode.devices import AUTO
from lvae.encode.feeding.cores import cores
from lvae.encode.networks.base import Autoencoder
from lvae.encode.sources.open import open_reader
from lvae.manifests import records
from lvae.manifests.manifest import read_manifest_if_whole
from lvae.manifests.messages import counted, duration
from lvae.manifests.parts.erased_rows import ErasedRows
from lvae.manifests.parts.plan import Encoding, Plan, read_plan, refuse_change
from lvae.manifests.parts.receipts import finished
from lvae.manifests.parts.rows import ImageRow, Listing, RowReader, Segment
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.object_store import ENDLESS
from lvae.manifests.views.view import ViewSettings
from lvae.pipeline.planning.match import Match
from lvae.pipeline.planning.plan import (
    EncodeOptions,
    apply_to_encoding,
    build_without_weights,
    load_network,
    new_encoding,
    part_size_for,
    tell_of_classes,
)
from lvae.pipeline.planning.rates import Rates, measure_rates
from lvae.pipeline.planning.rescan import inherited_options, recognize
from lvae.pipeline.planning.scan import Scan, origin, tell
from lvae.pipeline.planning.view import SPACE_SLACK, ViewOptions, estimate_bytes, readable, settings_for

TRIAL_ROWS = 64  # listed rows kept for the trial
UNKNOWN_WEIGHTS = "0" * 64  # stands for a fingerprint where only the cost matters
START_SECONDS = 7.0  # nominally, to load Python, torch and Beam; 5.5 to 9.2 in tests/benchmarks/pipeline_overhead.md
VIEW_SECONDS = 0.0002  # of one latent, to write and verify a view (tests/benchmarks/pipeline_overhead.md)
ROUNDING = {  # of latents, in their deviations, beside float16's 0.0004 in a shard: tests/benchmarks/latent_error.md
    "tf32": ", which rounds latents by about 0.0006 (default) to 0.0024 (kl-f8) of their deviation",
    "bfloat16": ", which rounds latents by about 0.006 (default) to 0.03 (kl-f8) of their deviation",
}


@dataclass(frozen=True)
class Estimate:
    """The resolved settings and the expected size of a job. Rates in images per second; rates: None where not tried."""

    encoding: Encoding
    view: ViewSettings
    images: int
    images_to_encode: int
    parts: int
    part_size: int
    raw_bytes: int
    shard_bytes: int
    free_bytes: int
    workers: int
    cores: int
    images_per_second_per_worker: float
    measured: bool
    rates: Rates | None

    @property
    def encoding_seconds(self) -> float:
        """Of the clock, for the raw parts."""
        return self.images_to_encode / (self.images_per_second_per_worker * min(self.workers, max(self.parts, 1)))

    @property
    def seconds(self) -> float:
        """Of the clock: to start, to encode, and to write and verify a view."""
        latents = self.images * self.encoding.image.orientations
        return START_SECONDS + self.encoding_seconds + latents * VIEW_SECONDS

    @property
    def worker_hours(self) -> float:
        """Of work in all, whoever does it: what a price is for."""
        return self.images_to_encode / self.images_per_second_per_worker / 3600

    @property
    def _normalized(self) -> str:
        if self.view.shift is None or self.view.scale is None:
            return f"normalized by {self.view.normalization}"
        shift, scale = (
            " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))
            for values in (self.view.shift, self.view.scale)
        )
        return f"normalized by shift {shift}, scale {scale}"

    def as_dict(self) -> dict[str, Any]:
        binds = self.rates.binds(self.workers, self.cores) if self.rates is not None else None
        seconds = {"seconds": self.seconds, "encoding_seconds": self.encoding_seconds}
        more = {"worker_hours": self.worker_hours, "binds": binds}
        return {**records.plain(self), **seconds, **more}

    def __str__(self) -> str:
        image, autoencoder = self.encoding.image, self.encoding.autoencoder
        rate = f"{self.images_per_second_per_worker:.2f} images/s a worker ({'measured' if self.measured else 'given'})"
        fits = "fits" if self.raw_bytes + self.shard_bytes + SPACE_SLACK < self.free_bytes else "DOES NOT FIT"
        left = "" if self.images_to_encode == self.images else f" ({self.images_to_encode} to encode)"
        shape = "x".join(map(str, self.encoding.latent_shape))
        mirrored = ", mirrored" if image.mirrored else ""
        sides = [] if self.rates is None else [f"speed        {self.rates.describe(self.workers, self.cores)}"]
        return "\n".join(
            [
                f"images       {self.images}{left}, {image.size} px, crop {image.crop}{mirrored}",
                f"autoencoder  {autoencoder.name}, store {autoencoder.store}: latents of {shape}",
                f"view         {self.view.format} of {self.view.dtype}, {self._normalized}",
                f"parts        {self.parts} of {counted(self.part_size, 'image')}, batch {self.encoding.batch}",
                f"raw parts    {readable(self.raw_bytes)}",
                f"shards       {readable(self.shard_bytes)}",
                "store        an object store: whether it fits is not asked"
                if self.free_bytes >= ENDLESS
                else f"disk         {readable(self.free_bytes)} free: {fits}",
                f"precision    {self.encoding.precision}{ROUNDING.get(self.encoding.precision, '')}",
                *sides,
                f"work         {self.worker_hours:.2f} worker-hours",
                f"time         {duration(self.seconds)} with {counted(self.workers, 'worker')}, {rate}",
            ]
        )


@dataclass(frozen=True)
class Speed:
    """How many workers there will be, and the rate of each; None where a trial on this machine is to tell."""

    workers: int
    images_per_second: float | None


def estimate(
    folder: Folder, source: str, options: EncodeOptions, view: ViewOptions, speed: Speed, say: Callable[[str], None]
) -> Estimate:
    """List the images, resolve every setting, and encode a few images for the rate unless one is given."""
    workers, images_per_second = speed.workers, speed.images_per_second
    old = read_plan(folder)
    found, rows = _new_rows(folder, old, source, options, say)
    first = list(itertools.islice(rows, TRIAL_ROWS))
    new = len(first) + sum(1 for _ in rows)
    images = new + (old.listing.images if old is not None else 0)
    tell(found, images, say)
    tell_of_classes(options.preset, found.classes, say)
    network, encoding, cost = _resolve(folder, options, old, trial=images_per_second is None)
    part_size = (
        old.listing.segments[-1].part_size
        if old
        else options.scan.part_size or part_size_for(encoding, cost, options.device)
    )
    plan = _make_plan(old, found, options, new, part_size, encoding)
    left = new + (_count_left(folder, old) if old is not None and old.encoding is not None else images - new)
    view = replace(view, without_keys=None)  # rows to look for them in are not written yet
    settings = settings_for(folder, plan, view, read_manifest_if_whole(folder))
    raw_bytes, shard_bytes = estimate_bytes(plan, settings, left)[0], estimate_bytes(plan, settings, images)[1]
    if old is not None and not first:
        first = RowReader(folder, old.listing).part(0)[:TRIAL_ROWS]
    rates, rate = None, images_per_second
    if rate is None:
        rates = _try_out(encoding, network, options, first, found)
        rate = 1.0 if rates is None else rates.of_all(workers, cores()) / workers
    return Estimate(
        encoding,
        settings,
        images,
        left,
        plan.listing.parts,
        part_size,
        raw_bytes,
        shard_bytes,
        folder.free_bytes(),
        workers,
        cores(),
        rate,
        images_per_second is None,
        rates,
    )


def _try_out(
    encoding: Encoding, network: Autoencoder, options: EncodeOptions, rows: list[ImageRow], found: Scan
) -> Rates | None:
    """On this machine, also where workers elsewhere will do it."""
    reader = open_reader(found.source.kind, found.source.location)
    try:
        return measure_rates(encoding, network, "cpu" if options.device == AUTO else options.device, rows, reader)
    finally:
        reader.close()


def _new_rows(
    folder: Folder, old: Plan | None, source: str, options: EncodeOptions, say: Callable[[str], None]
) -> tuple[Scan, Iterator[ImageRow]]:
    """The source, and those of its images that the dataset does not list; refused as the job itself would refuse."""
    if old is None:
        found = Scan(source, options.scan)
        return found, found.rows()
    if not options.scan.append:
        recognize(folder, old, source, options.scan, say, closely=False)
    found = Scan(source, inherited_options(old, source, options.scan))
    return found, Match(folder, old, found, options.scan.labels is not None).new_rows()


def _make_plan(old: Plan | None, found: Scan, options: EncodeOptions, new: int, size: int, encoding: Encoding) -> Plan:
    """What the plan would be, as far as sizes depend on it."""
    segments = old.listing.segments if old is not None else ()
    origins = old.origins if old is not None else ()
    if new or old is None:
        segments = (*segments, Segment(found.source.kind, new, "", size, found.classes))
        origins = (*origins, origin(found, options.scan))
    return Plan(
        "latent-vae-plan", 1, origins, Listing(segments), old.erased if old is not None else ErasedRows(), encoding
    )


def _count_left(folder: Folder, plan: Plan) -> int:
    """Images in parts that are not finished."""
    parts = (part for part in range(plan.listing.parts) if finished(folder, plan, part) is None)
    return sum(plan.listing.place(part).rows for part in parts)


def _resolve(
    folder: Folder, options: EncodeOptions, old: Plan | None, trial: bool
) -> tuple[Autoencoder, Encoding, int]:
    """The network (with weights only where a trial wants them), the settings, and the cost of an image."""
    if old is not None and old.encoding is not None:
        refuse_change(folder, old.encoding, apply_to_encoding(options, old.encoding))
        kept = old.encoding.autoencoder
        network = build_without_weights(records.dumps(kept.architecture).decode())
        if trial and kept.weights_file is not None:
            from lvae.encode.autoencoder import load

            network = load(kept.architecture, str(folder.local(kept.weights_file)))
        return network, old.encoding, 0 if kept.pixels else multiply_adds(network, old.encoding.image.size)
    if trial or options.autoencoder is None:
        network = load_network(options)
    else:
        network = build_without_weights(options.autoencoder)
    pixels = network.architecture["kind"] == "pixels"
    encoding = new_encoding(options, network, None if pixels else UNKNOWN_WEIGHTS)
    return network, encoding, 0 if pixels else multiply_adds(network, encoding.image.size)
