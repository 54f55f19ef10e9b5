"""`lvae export`: a run's model as files for others, and reading them back bit for bit.

In our layout: OUT/model.safetensors, OUT/model.json and the autoencoder's OUT/weights/SHA256.safetensors. In the
published torch layout: OUT.pt, a bare state dict with `vae.` and `dae.`, and OUT.json, which says what it cannot say.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import torch
from torch import Tensor

from lvae.encode.weights.read import read_tensors, save_state
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.storage.folder import TEMPORARY, Folder, file_sha256
from lvae.pipeline.progress.console import say
from lvae.train.model import HierarchicalVAE
from lvae.train.published import build_published, published_state
from lvae.train.published_weights.files import AUTOENCODER, VAE, open_published
from lvae.train.runs.run import RunConfig, latest_checkpoint, load_weights, read_run

FORMAT, MODEL, RECORD = "latent-vae-export", "model.safetensors", "model.json"
Layout = Literal["lvae", "published"]


@dataclass(frozen=True)
class ExportRecord:
    """The JSON beside the weights. run: as in RUN/config.json. sha256: of the file of weights."""

    format: Literal["latent-vae-export"]
    version: Literal[1]
    written_by: str
    layout: Layout
    weights: Literal["ema", "raw"]
    step: int
    parameters: int
    sha256: str
    run: RunConfig


@dataclass(frozen=True)
class Exported:
    """An export read back. state: the model's tensors. autoencoder: the file of the autoencoder's weights, if any."""

    run: RunConfig
    step: int
    weights: str
    state: dict[str, Tensor]
    autoencoder: Path | None


def run_export(run: Path, out: Path, layout: Layout | None, weights: Literal["ema", "raw"]) -> None:
    layout = layout or ("published" if out.suffix == ".pt" else "lvae")
    if layout == "published" and out.suffix != ".pt":
        raise LvaeError(out, "must end in .pt in the published layout")
    config, checkpoint = read_run(run), latest_checkpoint(run)
    if layout == "published" and config.model.attention == "normalized":
        advice = "Leave out --layout published, and give a folder."
        raise LvaeError(out, "the published layout has no place for normalized attention", advice)
    model = HierarchicalVAE(config.model)
    load_weights(model, checkpoint.read("ema" if weights == "ema" else "model"), str(checkpoint.path))
    name = config.dataset.autoencoder.weights_file
    stage = Folder(run).local(name) if name is not None and Folder(run).exists(name) else None
    files = _make_ours(model, stage, name) if layout == "lvae" else _make_published(out, model, stage)
    root, main = (Folder(out), MODEL) if layout == "lvae" else (Folder(out.parent), out.name)
    record = ExportRecord(
        format="latent-vae-export",
        version=1,
        written_by=WRITTEN_BY,
        layout=layout,
        weights=weights,
        step=checkpoint.step,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        sha256=hashlib.sha256(files[main]).hexdigest(),
        run=config,
    )
    described = RECORD if layout == "lvae" else f"{out.stem}.json"
    files[described] = records.dumps(record)
    for key, data in files.items():
        _refuse_other(root, key, data)
    for key, data in files.items():
        root.write(key, data)
    if (root.root / TEMPORARY).is_dir() and not any((root.root / TEMPORARY).iterdir()):
        (root.root / TEMPORARY).rmdir()
    if layout == "published" and _differs(config):
        say(
            "warning: this model computes attention, and the published code returns the projected queries instead: "
            f"there it will draw other samples. Read back here, {described} sets it right"
        )
    if stage is None and name is not None:
        say(f"warning: {run} has no weights of its autoencoder, so the export has none")
    click.echo(f"{out}: {record.parameters:,} parameters, {weights} weights of update {checkpoint.step}")


def _make_ours(model: HierarchicalVAE, stage: Path | None, name: str | None) -> dict[str, bytes]:
    files = {MODEL: save_state({key: tensor.contiguous() for key, tensor in model.state_dict().items()})}
    return files if stage is None or name is None else files | {name: stage.read_bytes()}


def _make_published(out: Path, model: HierarchicalVAE, stage: Path | None) -> dict[str, bytes]:
    state = {f"{VAE}{key}": tensor.contiguous() for key, tensor in published_state(model).items()}
    if stage is not None:
        state |= {f"{AUTOENCODER}{key}": tensor.clone() for key, tensor in read_tensors(stage).items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return {out.name: buffer.getvalue()}


def _differs(config: RunConfig) -> bool:
    """Whether the published code would compute something else with these weights."""
    heads = zip(config.model.attentions, config.model.heads, strict=True)
    return config.model.attention == "softmax" and any(wanted and number > 1 for wanted, number in heads)


def _refuse_other(folder: Folder, name: str, data: bytes) -> None:
    there = folder.size(name)
    if there is not None and (there != len(data) or folder.read(name) != data):
        raise LvaeError(f"{folder.local(name)}", "exists and differs", "Choose another OUT, or remove it first.")


def read_exported(path: Path) -> Exported | None:
    """What `run_export` wrote there, checked; None where there is something else."""
    record_path = path / RECORD if path.is_dir() else path.with_suffix(".json")
    if path.is_dir() and not record_path.is_file():
        raise LvaeError(path, "a folder that 'lvae export' did not write", "Give a published file.")
    if not record_path.is_file():
        return None
    data = record_path.read_bytes()
    if FORMAT.encode() not in data and path.is_file():
        return None  # somebody else's JSON, beside a published file by chance
    record = records.parse(ExportRecord, data, str(record_path))
    model_path = path / MODEL if path.is_dir() else path
    if not model_path.is_file() or file_sha256(model_path) != record.sha256:
        raise LvaeError(model_path, f"is not the file that {record_path.name} describes", "Export it again.")
    file = open_published(model_path)
    state = dict(build_published(file.preferred, file, str(model_path), record.run.model).state_dict())
    name = record.run.dataset.autoencoder.weights_file
    stage = None
    if record.layout == "published":
        stage = model_path if file.autoencoder else None
    elif name is not None and Folder(path).size(name) is not None:
        stage = Folder(path).local(name)
    return Exported(record.run, record.step, record.weights, state, stage)
