"""`--dry-run`: what an encoding job would do, how much it would write and how long it would take. Writes nothing."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lvae.encode.autoencoder import multiply_adds
from lvae.encode.devices import choose_device
from lvae.encode.encoder import Encoder
from lvae.encode.networks.base import Autoencoder
from lvae.encode.part import open_row
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
from lvae.pipeline.planning.rescan import inherited_options, recognize
from lvae.pipeline.planning.scan import Scan, origin, tell
from lvae.pipeline.planning.view import SPACE_SLACK, ViewOptions, estimate_bytes, readable, settings_for

TRIAL_SECONDS = 3.0  # of encoding, to measure the rate
TRIAL_ROWS = 64  # listed rows kept for the trial
UNKNOWN_WEIGHTS = "0" * 64  # stands for a fingerprint where only the cost matters


@dataclass(frozen=True)
class Estimate:
    """The resolved settings and the expected size of a job. Rates in images per second."""

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
    images_per_second_per_worker: float
    measured: bool

    @property
    def seconds(self) -> float:
        return self.images_to_encode / (self.images_per_second_per_worker * min(self.workers, max(self.parts, 1)))

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
        return {**records.plain(self), "seconds": self.seconds, "worker_hours": self.worker_hours}

    def __str__(self) -> str:
        image, autoencoder = self.encoding.image, self.encoding.autoencoder
        rate = f"{self.images_per_second_per_worker:.2f} images/s a worker ({'measured' if self.measured else 'given'})"
        fits = "fits" if self.raw_bytes + self.shard_bytes + SPACE_SLACK < self.free_bytes else "DOES NOT FIT"
        left = "" if self.images_to_encode == self.images else f" ({self.images_to_encode} to encode)"
        shape = "x".join(map(str, self.encoding.latent_shape))
        mirrored = ", mirrored" if image.mirrored else ""
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
    part_size = old.listing.segments[-1].part_size if old else options.scan.part_size or part_size_for(encoding, cost)
    plan = _make_plan(old, found, options, new, part_size, encoding)
    left = new + (_count_left(folder, old) if old is not None and old.encoding is not None else images - new)
    view = replace(view, without_keys=None)  # rows to look for them in are not written yet
    settings = settings_for(folder, plan, view, read_manifest_if_whole(folder))
    raw_bytes, shard_bytes = estimate_bytes(plan, settings, left)[0], estimate_bytes(plan, settings, images)[1]
    if old is not None and not first:
        first = RowReader(folder, old.listing).part(0)[:TRIAL_ROWS]
    rate = images_per_second
    if rate is None:
        encoder = Encoder(encoding, network, choose_device(options.device))
        rate = _measure(encoder, encoding, first, found)
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
        rate,
        images_per_second is None,
    )


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


def _measure(encoder: Encoder, encoding: Encoding, rows: list[ImageRow], found: Scan) -> float:
    """Images per second of one worker, opening included. The first batch only warms up."""
    reader = open_reader(found.source.kind, found.source.location)
    opened = [open_row(row, reader, encoding.image) for row in rows[: encoding.batch]]
    pixels = [image.pixels for image in opened if image.pixels is not None]
    if not pixels:
        return 1.0
    import numpy as np

    batch = np.stack(pixels)
    encoder.encode(batch, [row.key for row in rows[: len(batch)]])
    start, done, position = time.monotonic(), 0, 0
    while time.monotonic() - start < TRIAL_SECONDS:
        chosen = [rows[(position + offset) % len(rows)] for offset in range(len(batch))]
        position += len(batch)
        images = [image.pixels for row in chosen if (image := open_row(row, reader, encoding.image)).pixels is not None]
        if images:
            encoder.encode(np.stack([image for image in images if image is not None]), [row.key for row in chosen])
        done += len(chosen)
    reader.close()
    return done / (time.monotonic() - start)
