"""A RUN: the folder that a model is trained into, and what is needed to take the model out of it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import MANIFEST, WRITTEN_BY, Manifest, Statistics
from lvae.manifests.messages import did_you_mean
from lvae.manifests.parts.plan import AutoencoderRecord, ImageSettings
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.train.config import ModelConfig, TrainConfig, check_together
from lvae.train.model import HierarchicalVAE
from lvae.train.runs.checkpoints import Checkpoint, Checkpoints
from lvae.train.runs.packaged import packaged_names, resolve_run
from lvae.train.runs.steps import require_step

CONFIG, CHECKPOINTS, PREVIEWS, RESIDUALS = "config.json", "checkpoints", "previews", "residuals"
DATASET = "dataset"  # among the overrides: the run went on with another one
BEST = "best"  # in a checkpoint's state: {"step", "validation_loss_nats", "worse"}, of the best one so far
UPDATE_SIZE = {"batch", "accumulate"}  # whose product is what an update sees
MAY_CHANGE = {"updates", "precision", "recompute_from"} | UPDATE_SIZE
LATER_MODEL_SETTINGS: dict[str, Any] = {}
LATER_SETTINGS: dict[str, Any] = {
    "more_emas": [],
    "ema_warm_up": False,
    "gradient_clip": None,
    "singular_vectors": "kept",
}


def residuals_file(model_sha256: str) -> str:
    """Of what these weights leave out of latents: named by their hash, so that no others can be taken for them."""
    return f"{RESIDUALS}/{model_sha256}.safetensors"


@dataclass(frozen=True)
class DatasetRecord:
    """Of the dataset, what sampling and decoding need.

    class_counts: latents of every class that a conditional model is trained on, those of the dataset it went on with;
    None where nobody counted.
    """

    id: str
    origin: Literal["images", "samples"]
    count: int
    shape: tuple[int, int, int]
    image: ImageSettings
    autoencoder: AutoencoderRecord
    classes: tuple[str, ...] | None
    statistics: Statistics
    normalization: Normalization
    class_counts: tuple[int, ...] | None = records.later(None)

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        return cls(
            manifest.id,
            manifest.origin,
            manifest.splits["train"].count,
            manifest.view.shape,
            manifest.image,
            manifest.autoencoder,
            manifest.classes,
            manifest.statistics,
            manifest.normalization,
        )


@dataclass(frozen=True)
class ExecutionRecord:
    """How a run was last executed. micro_batch: latents that one of `devices` computes at a time.

    reduce_precision: of gradients between ranks.
    """

    device: Literal["cpu", "cuda", "xla"]
    devices: int
    precision: Literal["float32", "tf32", "bfloat16"]
    micro_batch: int
    reduce_precision: Literal["float32", "bfloat16"] = records.later("float32")


@dataclass(frozen=True)
class Override:
    """A setting that was changed in the middle of a run, or its dataset: {"id", "latents"} of each.

    step: after which update; None until that is known.
    """

    step: int | None
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class RunConfig:
    """RUN/config.json: what is trained, how, and on what. init: SHA-256 of the file of weights that it began with."""

    format: Literal["latent-vae-run"]
    version: Literal[1]
    written_by: str
    preset: str
    model: ModelConfig
    training: TrainConfig
    dataset: DatasetRecord
    init: str | None
    execution: ExecutionRecord | None = None
    overrides: tuple[Override, ...] = ()

    @classmethod
    def new(
        cls, preset: str, model: ModelConfig, training: TrainConfig, dataset: Dataset, init: str | None = None
    ) -> Self:
        check_together(model, training)
        return cls("latent-vae-run", 1, WRITTEN_BY, preset, model, training, DatasetRecord.of(dataset.manifest), init)

    def new_overrides(self) -> tuple[Override, ...]:
        """Those of the command at hand."""
        return tuple(override for override in self.overrides if override.step is None)

    def with_overrides_at(self, step: int) -> Self:
        """The same, once it is known after which update they were made."""
        dated = (replace(one, step=step) if one.step is None else one for one in self.overrides)
        return replace(self, overrides=tuple(dated))

    @property
    def dataset_since(self) -> int:
        """After which update the run got the dataset that it has; -1 where it always had it."""
        return max((one.step for one in self.overrides if one.name == DATASET and one.step is not None), default=-1)

    def executed(self) -> TrainConfig:
        """The training as it is executed: micro-batches over all devices, and how many of them an update has."""
        if self.execution is None:
            return self.training
        batch = self.execution.micro_batch * self.execution.devices
        accumulate = self.training.update_size // batch
        return replace(self.training, batch=batch, accumulate=accumulate, precision=self.execution.precision)


def find_run(run: str | Path) -> Path:
    """The folder of a run, by its path or the name of a model in the package; LvaeError where there is none.

    Every way in from Python goes through here.
    """
    folder = resolve_run(run)
    if not folder.exists() and (advice := did_you_mean(str(run), packaged_names())):
        raise LvaeError(run, "no such run, and no model of the package", advice)
    read_run(folder)
    return folder


def read_run(folder: str | Path) -> RunConfig:
    """The settings of a run; LvaeError where there is none."""
    config = read_run_if_there(folder)
    if config is None:
        if Folder(folder).exists(MANIFEST):
            raise LvaeError(
                folder, "is a dataset, not a run", "Give a folder that 'lvae train' made, or open it as a Dataset."
            )
        raise LvaeError(folder, "is not a run", f"Make one with 'lvae train DATASET {folder}'.")
    return config


def read_run_if_there(folder: str | Path) -> RunConfig | None:
    path = Path(folder) / CONFIG
    data = Folder(folder).read_if_there(CONFIG)
    if data is None:
        return None
    content = records.loads(data, str(path))
    if not isinstance(content, dict) or content.get("format") != "latent-vae-run":
        raise LvaeError(path, "does not describe a run")
    if content.get("version") != 1:
        raise LvaeError(path, f"has version {content.get('version')}, and this program reads 1", "Update latent-vae.")
    _add_later_settings(content)
    return records.from_plain(RunConfig, content, str(path))


def _add_later_settings(content: dict[str, Any]) -> None:
    """Give runs that are older than a setting its default, which is what they were trained with."""
    content.setdefault("execution", None)
    content.setdefault("overrides", [])
    for name, defaults in (("model", LATER_MODEL_SETTINGS), ("training", LATER_SETTINGS)):
        if isinstance(content.get(name), dict):
            content[name] = records.plain(defaults) | content[name]


def write_run(folder: str | Path, config: RunConfig) -> None:
    Folder(folder).write(CONFIG, records.dumps(config))


def latest_checkpoint(folder: str | Path, groups: Collection[str] | None = None) -> Checkpoint:
    """The newest one that is whole; LvaeError where there is none. groups: whose bytes are checked; all by default."""
    found = Checkpoints(Path(folder) / CHECKPOINTS).latest(groups)
    if found is None:
        raise LvaeError(folder, "has no checkpoint yet", "Let 'lvae train' run until it saves one.")
    return found


def find_checkpoint(
    folder: str | Path, which: int | Literal["best", "last"] = "last", groups: Collection[str] | None = None
) -> Checkpoint:
    """The checkpoint of a step, the newest one, or the one with the lowest validation loss."""
    if which == "last":
        return latest_checkpoint(folder, groups)
    checkpoints = Checkpoints(Path(folder) / CHECKPOINTS)
    steps = checkpoints.steps()
    if which == "best":
        best = latest_checkpoint(folder, ()).values.get(BEST)
        if best is None:
            advice = "Take --step last, or train with a split named val (lvae shard --split val=5%)."
            raise LvaeError(folder, "was never validated, so no checkpoint is the best", advice)
        which = int(best["step"])
    require_step(folder, which, steps)
    return checkpoints.open(which, groups)


def load_model(
    folder: str | Path, weights: Literal["ema", "raw"] = "ema", step: int | Literal["best"] | None = None
) -> HierarchicalVAE:
    """The trained model on the CPU, in eval mode: the average of its weights, or those of the last update.

    step: of another checkpoint than the newest.
    """
    config, group = read_run(folder), "ema" if weights == "ema" else "model"
    checkpoint = find_checkpoint(folder, "last" if step is None else step, (group,))
    model = HierarchicalVAE(config.model)
    load_weights(model, checkpoint.read(group), str(checkpoint.path))
    return model.eval()


def average_group(folder: str | Path, training: TrainConfig, decay: float | None) -> str:
    """The group of a checkpoint with the average of this decay; None: the main one."""
    if decay is None:
        return "ema"
    for group, kept in training.averages.items():
        if kept == decay:
            return group
    there = ", ".join(f"{kept:g}" for kept in training.averages.values())
    raise LvaeError(folder, f"keeps no average of decay {decay:g}", f"It keeps {there}.")


def load_weights(model: HierarchicalVAE, weights: Mapping[str, Any], where: str) -> None:
    """Fill a model; LvaeError naming the first tensor that is missing, strange or of another shape."""
    check_weights(model.state_dict(), weights, where)
    model.load_state_dict(weights)


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Any], where: str) -> None:
    """LvaeError naming the first tensor that is missing, strange or of another shape than a model's own."""
    for name in sorted(own.keys() | weights.keys()):
        if name not in weights:
            raise LvaeError(where, f"weights of another model: {name} is missing")
        if name not in own:
            raise LvaeError(where, f"weights of another model: {name} has no place in this one")
        found, wanted = list(weights[name].shape), list(own[name].shape)
        if found != wanted:
            raise LvaeError(where, f"weights of another model: {name} is {found}, not {wanted}")


def copy_autoencoder(dataset: Dataset, run: Path) -> None:
    """RUN/weights/: what decoding needs, so that a run is complete without its dataset."""
    name = dataset.manifest.autoencoder.weights_file
    if name is not None and not Folder(run).exists(name):
        Folder(run).write(name, dataset.folder.read(name))


def difference(old: RunConfig, new: RunConfig) -> str | None:
    """The first setting in which two runs differ, in words, another preset first; None where one continues the other.

    What an update is may not change, unless an override says so. How it is executed may; so may the number of updates,
    so that a run can go on for longer, and what only describes.
    """
    found = _first_difference(old, new)
    if found is not None and old.preset != new.preset:
        return f"its preset was {old.preset}, and this is {new.preset}"
    return found


def _first_difference(old: RunConfig, new: RunConfig) -> str | None:
    overridden = {override.name for override in new.new_overrides()}
    if old.dataset.id != new.dataset.id and DATASET not in overridden:
        return f"it was trained on dataset {old.dataset.id[:12]}, and this is {new.dataset.id[:12]}"
    for name in ("model", "training"):
        then, now = getattr(old, name), getattr(new, name)
        for field in fields(then):
            before, after = getattr(then, field.name), getattr(now, field.name)
            if before != after and field.name not in overridden | MAY_CHANGE:
                return f"{field.name} was {_shown(before)} and is {_shown(after)} now"
    if old.training.update_size != new.training.update_size and not overridden & UPDATE_SIZE:
        return f"an update saw {old.training.update_size} latents and sees {new.training.update_size} now"
    return None


def _shown(value: Any) -> str:
    return records.line(value).decode().strip()
