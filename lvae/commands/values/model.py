"""Values of options that are wrong whatever a command does, told before it imports anything large."""

from pathlib import Path
from typing import Any

from lvae.evaluate.samples.options import guidance_weights, labels_of, parse_step, temperatures
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.storage.folder import Folder
from lvae.train.config import ModelConfig
from lvae.train.presets import preset
from lvae.train.runs.config_file import read_config_file
from lvae.train.runs.settings import (
    DEFAULT_PRESET,
    apply_settings,
    as_whole_batch,
    check_names,
    count_classes,
    merge_settings,
    parse_pairs,
)

RUN_CONFIG = "config.json"


def check_training(dataset: str, run: Path, options: dict[str, Any]) -> None:
    """LvaeError for names of settings and presets that do not exist; for a new run, for values, too."""
    check_names(parse_pairs("--override", options["overrides"]), "--override")
    path = options["config"]
    file = read_config_file(path) if path is not None and path.exists() else None
    settings = merge_settings({} if file is None else file.settings, options["settings"], options)
    check_names(settings)
    name = options["preset"] or (None if file is None else file.preset)
    begun = Folder(run).exists(RUN_CONFIG)
    if begun or "://" in dataset:
        preset(name or DEFAULT_PRESET)
        return
    opened = Dataset.open(dataset)
    chosen = preset(name or DEFAULT_PRESET, opened.manifest.view.shape)
    apply_settings(chosen.model, chosen.training, as_whole_batch(count_classes(settings, opened)))


def check_sampling(run: Path, asked: dict[str, Any]) -> None:
    """LvaeError for classes that the model of a run does not have, and for guidance and temperatures not for it."""
    content = records.loads(Folder(run).read(RUN_CONFIG), str(run / RUN_CONFIG))
    model = records.from_plain(ModelConfig, content["model"], str(run / RUN_CONFIG))
    weights = (asked["guidance_mean"], asked["guidance_variance"], asked["guidance"], asked["convention"])
    guidance_weights(model, *weights)
    temperatures(asked["temperature"], len(model.groups))
    parse_step(asked["step"])
    labels = asked["labels"]
    if labels is not None and not (model.classes and Path(labels).is_file()):
        labels_of(labels, 0, model.classes, content["dataset"]["classes"], 0)
