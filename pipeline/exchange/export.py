"""A dataset written in the layout of another trainer: nothing is encoded anew, all of it or nothing is there."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import UNKNOWN, Store
from lvae.manifests.parts.rows import UNLABELLED
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.views.selection import TRAIN
from lvae.pipeline.exchange.caches.record import MIRRORED, RECORD, ROWS, LatentsRecord, Layout, row_line
from lvae.pipeline.exchange.caches.sorting import sort_many
from lvae.pipeline.exchange.export_rows import Block, ExportRows
from lvae.pipeline.exchange.writers import Content, DitWriter, Edm2Writer, NpyWriter, SafetensorsWriter, Writer

LABELLED: tuple[Layout, ...] = ("lightningdit", "dit")  # whose trainers have no word for "no label"
ONE_LATENT: tuple[Layout, ...] = ("lightningdit", "dit")  # an image, whatever was kept of its posterior
WITHOUT_FLIPS: tuple[Layout, ...] = ("edm2", "dit")


@dataclass(frozen=True)
class ExportOptions:
    """scale: what raw latents are multiplied by."""

    layout: Layout
    split: str = TRAIN
    scale: float | None = None
    dtype: Literal["float32", "float16"] = "float32"


def export(
    dataset: Dataset, out: Path, options: ExportOptions, say: Callable[[str], None], advance: Callable[[int], None]
) -> LatentsRecord | None:
    """Write OUT and say what it is; None where this very export is there already.

    A folder appears under its name when it is whole. LvaeError where something else is there.
    """
    rows, scale = ExportRows(dataset), _scale(options)
    single = options.layout == "edm2" and out.suffix == ".zip"
    content = _content(rows, options, scale)
    record = _describe(rows, options, content, scale)
    if _is_there(out, record, single):
        return None
    _tell(rows, options, say)
    unfinished = out.with_name(f".{out.name.removesuffix('.zip')}.unfinished{'.zip' if single else ''}")
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    unfinished.unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _writer(options.layout, unfinished, content) as writer, tempfile.TemporaryFile("w+b") as lines:
            for block, latents, labels in _converted(rows, options, content, scale):
                writer.add(latents, labels)
                lines.writelines(_row_lines(block, options.layout))
                advance(len(labels))
            lines.seek(0)
            writer.add_table(ROWS, _in_file_order(lines, options.layout))
            writer.add_table(RECORD, [records.dumps(record)])
            writer.finish()
        os.replace(unfinished, out)  # noqa: PTH105  over an empty folder, too
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        unfinished.unlink(missing_ok=True)
    return record


def _scale(options: ExportOptions) -> float:
    if options.scale is None and options.layout == "dit":
        raise LvaeError("--scale", "fast-DiT's trainer expects multiplied latents", "0.18215 for Stable Diffusion's.")
    scale = 1.0 if options.scale is None else options.scale
    if not (np.isfinite(scale) and scale > 0):
        raise LvaeError(f"--scale {scale:g}", "must be a finite number above 0")
    if options.layout == "edm2" and (scale != 1 or options.dtype != "float32"):
        raise LvaeError("--layout edm2", "holds raw latents in float32", "Leave --scale and --dtype out.")
    return scale


def _keeps_moments(rows: ExportRows, layout: Layout) -> bool:
    return rows.moments and layout in ("npy", "safetensors")


def _holds(rows: ExportRows, layout: Layout) -> Store:
    """What the rows of the layout are: edm2's have deviations, which are 0 where none were kept."""
    store = rows.dataset.manifest.autoencoder.store
    return "mode" if rows.moments and layout in ONE_LATENT else store


def _content(rows: ExportRows, options: ExportOptions, scale: float) -> Content:
    channels, height, width = rows.dataset.manifest.view.shape
    doubled = options.layout == "edm2" or _keeps_moments(rows, options.layout)
    mean, std = _statistics(rows, options.layout, scale)
    return Content(
        count=rows.count,
        orientations=rows.orientations,
        shape=(channels * (2 if doubled else 1), height, width),
        moments=_keeps_moments(rows, options.layout),
        dtype=np.dtype(options.dtype),
        mean=mean,
        std=std,
    )


def _statistics(rows: ExportRows, layout: Layout, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of what a trainer sees: the dataset's own, exact ones; where means of posteriors are written alone, theirs."""
    found = rows.dataset.statistics
    mean, std = found.mean, found.std
    if rows.moments and layout in ONE_LATENT:
        moments = ChannelMoments.empty(len(mean))
        for block in rows.blocks():
            means = block.latents[:, :, : len(mean)]
            moments = moments.merge(ChannelMoments.of(means.reshape(-1, *rows.dataset.manifest.view.shape)))
        mean, std = moments.mean, moments.std
    return tuple((mean * scale).tolist()), tuple((std * scale).tolist())


def _describe(rows: ExportRows, options: ExportOptions, content: Content, scale: float) -> LatentsRecord:
    manifest = rows.dataset.manifest
    alone = options.layout in WITHOUT_FLIPS
    return LatentsRecord(
        format="latent-vae-exported-latents",
        version=2,
        dataset=manifest.id,
        layout=options.layout,
        split=options.split,
        count=rows.count * (rows.orientations if alone else 1),
        orientations=1 if alone else rows.orientations,
        scale=scale,
        dtype=options.dtype,
        store=manifest.autoencoder.store,
        holds=_holds(rows, options.layout),
        autoencoder=manifest.autoencoder.name,
        architecture=manifest.autoencoder.architecture,
        downsampling_factor=manifest.autoencoder.downsampling_factor,
        weights_sha256=manifest.autoencoder.weights_sha256 or UNKNOWN,
        input_range=manifest.image.input_range,
        crop=manifest.image.crop,
        exact=rows.exact,
        classes=rows.dataset.classes,
        mean=content.mean,
        std=content.std,
    )


def _is_there(out: Path, record: LatentsRecord, single: bool) -> bool:
    """Whether this very export is there; LvaeError for anything else."""
    if single:
        if out.exists():
            raise LvaeError(out, "is there already", "Name another file, or remove it.")
        return False
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    there = out / RECORD
    if there.is_file() and there.read_bytes() == records.dumps(record):
        return True
    raise LvaeError(out, "holds something else", "Name a new folder.")


def _tell(rows: ExportRows, options: ExportOptions, say: Callable[[str], None]) -> None:
    """What the layout cannot say, and what a trainer has to be told."""
    dataset, layout = rows.dataset, options.layout
    others = [name for name in dataset.splits if name != dataset.name]
    if others:
        say(f"{dataset.name} is written; {', '.join(others)}: by --split, into another place")
    if not rows.exact:
        say("its raw parts are not there: latents are the shards', within the rounding of their dtype")
    if rows.orientations == 2 and layout in WITHOUT_FLIPS:
        say(f"{layout} knows no flips: mirrored latents are rows of their own, each behind its image's")
    if rows.orientations == 1 and layout == "lightningdit":
        say("there are no mirrored latents: latents_flip repeats latents")
    if rows.moments and layout in ONE_LATENT:
        say(f"{layout} holds one latent an image: the means are written")
    if not rows.moments and layout == "edm2":
        say("the deviations are 0: one latent an image was kept")
    labels = dataset.labels[:]
    unlabelled = int((labels == UNLABELLED).sum())
    if unlabelled and layout in LABELLED:
        if unlabelled < len(labels):
            problem = f"{counted(unlabelled, 'latent')} of {len(labels)} have no label, which {layout} cannot say"
            raise LvaeError(dataset.folder, problem, "Leave them out first: 'lvae shard --only-classes'.")
        say("no latent has a label: all are written as class 0")
    elif unlabelled and unlabelled < len(labels) and layout == "edm2":
        say(f"{counted(unlabelled, 'latent')} without a label: dataset.json has none at all, as edm2 writes it then")


def _row_lines(block: Block, layout: Layout) -> Iterator[bytes]:
    alone = block.latents.shape[1] == 2 and layout in WITHOUT_FLIPS
    for key, label in zip(block.keys, block.labels.tolist(), strict=True):
        yield row_line(key, label)
        if alone:
            yield row_line(f"{key}{MIRRORED}", label)


def _in_file_order(lines: Iterable[bytes], layout: Layout) -> Iterable[bytes]:
    """Lines by row, as the names of the layout's files sort: fast-DiT's are numbers without leading zeros."""
    if layout != "dit":
        return lines
    named = ((f"{number}.npy", line.decode()) for number, line in enumerate(lines))
    return (line.encode() for _, line in sort_many(named))


def _converted(
    rows: ExportRows, options: ExportOptions, content: Content, scale: float
) -> Iterator[tuple[Block, NDArray[np.floating], NDArray[np.int32]]]:
    channels = rows.dataset.manifest.view.shape[0]
    for block in rows.blocks():
        means, spreads = block.latents[:, :, :channels], block.latents[:, :, channels:]
        if scale != 1:
            means = (means.astype(np.float64) * scale).astype(np.float32)
        if options.layout == "edm2":
            deviations = np.exp(spreads.astype(np.float64) / 2).astype(np.float32) if rows.moments else means * 0
            means = np.concatenate([means, deviations], 2)
        elif content.moments:
            if scale != 1:
                spreads = (spreads.astype(np.float64) + 2 * np.log(scale)).astype(np.float32)
            means = np.concatenate([means, spreads], 2)
        labels = block.labels
        if options.layout in LABELLED:
            labels = np.maximum(labels, 0)
        yield block, np.ascontiguousarray(means, content.dtype), labels


def _writer(layout: Layout, out: Path, content: Content) -> Writer:
    match layout:
        case "edm2":
            return Edm2Writer(out, content)
        case "dit":
            return DitWriter(out, content)
        case "npy":
            return NpyWriter(out, content)
        case _:
            return SafetensorsWriter(out, content, layout == "lightningdit")


def describe_for_edm2(record: LatentsRecord) -> str:
    """What edm2's StabilityVAEEncoder has to be given, since its constants are those of one set and one network."""
    numbers = {"raw_mean": record.mean, "raw_std": record.std}
    said = ", ".join(f"{name}={json.dumps([round(value, 4) for value in values])}" for name, values in numbers.items())
    return f"edm2 keeps statistics in its code: StabilityVAEEncoder({said})"
