"""What `lvae decode`, `features` and `reference` do with many workers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from lvae.actions import engines
from lvae.actions.evaluate import format_of
from lvae.encode.quality.fidelity import Rounding
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.features.open import Pictures
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures import decode as decoding
from lvae.evaluate.pictures.streams import chosen_positions
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.pipeline.jobs import decode as decode_job
from lvae.pipeline.jobs.decode import DecodeRequest


@dataclass(frozen=True)
class Work:
    """A job of many workers. parts: where they leave what they make; None for OUT.parts."""

    workers: int | None
    beam_options: tuple[str, ...]
    shared_path: bool
    parts: str | None
    part_size: int | None

    @property
    def is_asked_for(self) -> bool:
        """LvaeError for options of a job where there is none."""
        asked = self.workers is not None or bool(self.beam_options)
        if not asked and (self.parts is not None or self.part_size is not None or self.shared_path):
            raise LvaeError(
                "", "--parts, --part-size and --shared-path are for workers", "Give --workers N or Beam options."
            )
        return asked


def run(latents: str, out: Path, request: DecodeRequest, device: str, work: Work) -> None:
    engine = engines.choose(work.beam_options, work.workers)
    devices = engines.devices_for(engine, {"device": device})
    parts = work.parts or f"{out}.parts"
    engine = engines.ready(engine, devices, parts, latents, (latents, parts), work.shared_path)
    request = replace(request, part_size=work.part_size)
    count = decode_job.make(latents, out, parts, request, engine, devices)
    what = "pictures" if request.kind != "features" else "statistics" if request.statistics else "features"
    click.echo(f"{out}: {count} pictures" if what == "pictures" else f"{out}: {what} of {count} pictures")


def decoding_request(
    latents: str,
    out: Path,
    weights: str | None,
    format_: str | None,
    split: str,
    indices: str | None,
    limit: int | None,
    precision: Any,
    rounding: Rounding,
) -> DecodeRequest:
    kind = format_of(out, format_)
    if kind == "grid":
        raise LvaeError(out, "a grid is not made by several workers", "Leave --workers and Beam's options out.")
    there = len(_dataset(latents, split))
    chosen = None if indices is None and limit is None else decoding.positions_of(indices, there, limit)
    return DecodeRequest(
        kind,
        split,
        positions=None if chosen is None else tuple(chosen.tolist()),
        round=rounding,
        precision=precision,
        weights=None if weights is None else Path(weights),
    )


def features_request(
    latents: str, features: Path, mode: Mode, originals: bool, statistics: bool, asked: Pictures
) -> DecodeRequest:
    if asked.size is not None:
        raise LvaeError("--size", "pictures of a dataset have its size", "Leave it out.")
    there = len(_dataset(latents, asked.split))
    name = open_network(features, mode).name  # refuses what is no network, before any worker has to
    chosen = None if asked.num is None else chosen_positions(latents, there, asked.num, asked.seed)
    return DecodeRequest(
        "features",
        asked.split,
        of="originals" if originals else "latents",
        positions=None if chosen is None else tuple(chosen.tolist()),
        network=features,
        mode=mode if name == "inception" else None,
        statistics=statistics,
    )


def _dataset(latents: str, split: str) -> Dataset:
    if not is_dataset(latents):
        raise LvaeError(latents, "workers take datasets and samples alone", "Leave --workers and Beam's options out.")
    return Dataset.open(latents, split)
