"""What `lvae decode`, `features` and `reference` do with many workers."""

from dataclasses import dataclass, replace
from pathlib import Path

import click

from lvae.actions import engines
from lvae.actions.evaluate import DecodeOptions, FeatureOptions, format_of
from lvae.evaluate.features import efficientnet
from lvae.evaluate.features.feature_network import network_path, open_network
from lvae.evaluate.pictures.picture_folder import PictureFolder, check_pictures
from lvae.evaluate.pictures.positions import positions_of
from lvae.evaluate.pictures.streams import chosen_positions
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.manifests.messages import counted
from lvae.manifests.parts.decoded_parts import FeatureMode
from lvae.pipeline.jobs import decode as decode_job
from lvae.pipeline.jobs.decode import DecodeRequest


@dataclass(frozen=True)
class WorkerOptions:
    """Where and by how many workers parts are made. parts: where they leave what they make; None for OUT.parts.

    patience: seconds to wait for a storage that fails.
    """

    workers: int | None
    beam_options: tuple[str, ...]
    shared_path: bool
    parts: str | None
    part_size: int | None
    patience: float

    @property
    def is_asked_for(self) -> bool:
        return self.workers is not None or bool(self.beam_options)


def run(latents: str, out: Path, request: DecodeRequest, device: str, work: WorkerOptions) -> None:
    engine = engines.choose(work.beam_options, work.workers, work.patience)
    devices = engines.devices_for(engine, {"device": device})
    parts = work.parts or f"{out}.parts"
    engine = engines.ready(engine, devices, parts, latents, (latents, parts), work.shared_path)
    request = replace(request, part_size=work.part_size)
    count = engines.wait_for_storage(
        engine.patience, lambda: decode_job.make(latents, out, parts, request, engine, devices)
    )
    what = "pictures" if request.kind != "features" else "statistics" if request.statistics else "features"
    click.echo(
        f"{out}: {counted(count, 'picture')}" if what == "pictures" else f"{out}: {what} of {counted(count, 'picture')}"
    )


def decoding_request(latents: str, out: Path, asked: DecodeOptions) -> DecodeRequest:
    """LvaeError for options that workers cannot keep."""
    kind = format_of(out, asked.format)
    if asked.beside or asked.columns:
        raise LvaeError("", "--beside and --columns are for a grid, which several workers do not make")
    if asked.batch is not None:
        raise LvaeError("--batch", "workers take 32 pictures at a time", "Leave it out; --part-size is theirs to set.")
    if kind == "grid":
        raise LvaeError(out, "a grid is not made by several workers", "Leave --workers and Beam's options out.")
    opened = _dataset(latents, asked.split)
    there = len(opened)
    if kind == "png":
        check_pictures(out, PictureFolder.of(opened))
    chosen = None
    if asked.indices is not None or asked.limit is not None:
        chosen = tuple(positions_of(asked.indices, there, asked.limit).tolist())
    return DecodeRequest(
        kind,
        asked.split,
        positions=chosen,
        round=asked.rounding,
        precision=asked.precision,
        weights=None if asked.weights is None else Path(asked.weights),
    )


def features_request(latents: str, asked: FeatureOptions) -> DecodeRequest:
    """LvaeError for what is no feature network, before any worker has to say so."""
    choice = asked.choice
    if choice.size is not None:
        raise LvaeError("--size", "pictures of a dataset have its size", "Leave it out.")
    there = len(_dataset(latents, choice.split))
    network = open_network(asked.features, asked.mode)
    modes: dict[str, FeatureMode | None] = {"inception": asked.mode, "efficientnet-lite0": efficientnet.MODE}
    chosen = None if choice.num is None else chosen_positions(latents, there, choice.num, choice.seed)
    return DecodeRequest(
        "features",
        choice.split,
        of="originals" if asked.originals else "latents",
        positions=None if chosen is None else tuple(chosen.tolist()),
        network=network_path(asked.features),
        mode=modes.get(network.name),
        statistics=asked.statistics,
    )


def _dataset(latents: str, split: str) -> Dataset:
    if not is_dataset(latents):
        raise LvaeError(latents, "workers take datasets and samples alone", "Leave --workers and Beam's options out.")
    return Dataset.open(latents, split)
