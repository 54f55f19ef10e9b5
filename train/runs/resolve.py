"""From a preset and what a user sets to the settings of a run."""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig, check_together, names_of
from lvae.train.presets import normalization_warning, preset
from lvae.train.runs.run import Override, RunConfig
from lvae.train.runs.settings import ALL_CLASSES, DEFAULT_PRESET, apply_settings, as_whole_batch, count_classes

NOTHING: Mapping[str, str] = MappingProxyType({})

logger = logging.getLogger(__name__)


def resolve_config(
    dataset: Dataset,
    before: RunConfig | None,
    name: str | None,
    settings: Mapping[str, str],
    init: str | None = None,
    overrides: Mapping[str, str] = NOTHING,
) -> RunConfig:
    """The settings of a run on this dataset: those of a preset, or of the run that is there where none is named.

    settings: what is set otherwise, as text. init: SHA-256 of the weights to begin a new run with. overrides: settings
    of the run that is there to go on with others from now on.
    """
    own = before.model.classes if before is not None else 0
    if own and settings.get("classes") in (ALL_CLASSES, str(own)):  # as the run has them, whatever the dataset has
        settings = {key: value for key, value in settings.items() if key != "classes"}
    settings = count_classes(settings, dataset)
    if before is not None and name in (None, before.preset):
        settings = _without_same_size(settings, before.training)
        model, training = apply_settings(before.model, before.training, settings)
        config = RunConfig.new(before.preset, model, training, dataset, before.init)
        config = replace(config, execution=before.execution, overrides=before.overrides)
        if config.model.classes and config.dataset.id == before.dataset.id:  # the run numbers them as it began
            known = {name: getattr(before.dataset, name) for name in ("classes", "class_counts")}
            config = replace(config, dataset=replace(config.dataset, **known))
        return _override(config, before, overrides) if overrides else config
    if overrides:
        problem = "there is no run yet that it could change" if before is None else "the run has another preset"
        raise LvaeError(f"--override {next(iter(overrides))}", problem, "Say --set to begin a run with it.")
    name = name or DEFAULT_PRESET
    chosen = preset(name, dataset.manifest.view.shape)
    model, training = apply_settings(chosen.model, chosen.training, as_whole_batch(settings))
    if "sigma_q" not in settings and (
        warning := normalization_warning(chosen, dataset.normalization.kind, dataset.normalization.scale)
    ):
        logger.warning("%s", warning)
    config = RunConfig.new(name, model, training, dataset, init)
    return config if before is None else replace(config, overrides=before.overrides)


def _without_same_size(settings: Mapping[str, str], training: TrainConfig) -> Mapping[str, str]:
    """`batch` alone may name an update's latents, or the portions in which the run was begun: nothing changes then."""
    if "batch" not in settings or "accumulate" in settings:
        return settings
    if settings["batch"] in (str(training.batch), str(training.update_size)):
        return {name: value for name, value in settings.items() if name != "batch"}
    return as_whole_batch(settings)


def _override(config: RunConfig, before: RunConfig, overrides: Mapping[str, str]) -> RunConfig:
    """The run with other settings from now on, which are written down with it."""
    for name in overrides:
        if name in names_of(ModelConfig):
            problem = "is a setting of the model, whose weights were made for it"
            raise LvaeError(f"--override {name}", problem, "Begin a new run with --init RUN.")
    _, training = apply_settings(config.model, config.training, as_whole_batch(overrides), "--override")
    check_together(config.model, training)
    made = []
    for field in fields(training):
        old, new = getattr(before.training, field.name), getattr(training, field.name)
        if old != new and field.name in as_whole_batch(overrides):
            made.append(Override(None, field.name, records.plain(old), records.plain(new)))
    return replace(config, training=training, overrides=(*before.overrides, *made))
