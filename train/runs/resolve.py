"""From a preset and what a user sets to the settings of a run."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig, check_together, names_of
from lvae.train.presets import normalization_warning, preset
from lvae.train.runs.run import Override, RunConfig

DEFAULT_PRESET = "tiny"
NOTHING: Mapping[str, str] = MappingProxyType({})
ALL_CLASSES = "all"  # --set classes=all: as many as the dataset has

Record = TypeVar("Record", ModelConfig, TrainConfig)

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
    settings = _count_classes(settings, dataset)
    if before is not None and name in (None, before.preset):
        settings = _without_same_size(settings, before.training)
        model, training = apply_settings(before.model, before.training, settings)
        config = RunConfig.new(before.preset, model, training, dataset, before.init)
        config = replace(config, execution=before.execution, overrides=before.overrides)
        return _override(config, before, overrides) if overrides else config
    if overrides:
        problem = "there is no run yet that it could change" if before is None else "the run has another preset"
        raise LvaeError(f"--override {next(iter(overrides))}", problem, "Say --set to begin a run with it.")
    name = name or DEFAULT_PRESET
    chosen = preset(name, dataset.manifest.view.shape)
    model, training = apply_settings(chosen.model, chosen.training, _as_whole_batch(settings))
    if "sigma_q" not in settings and (
        warning := normalization_warning(chosen, dataset.normalization.kind, dataset.normalization.scale)
    ):
        logger.warning("%s", warning)
    config = RunConfig.new(name, model, training, dataset, init)
    return config if before is None else replace(config, overrides=before.overrides)


def _as_whole_batch(settings: Mapping[str, str]) -> Mapping[str, str]:
    """`batch` alone names what an update sees, whatever the preset accumulates."""
    return {**settings, "accumulate": "1"} if "batch" in settings and "accumulate" not in settings else settings


def _without_same_size(settings: Mapping[str, str], training: TrainConfig) -> Mapping[str, str]:
    """`batch` alone may name an update's latents, or the portions in which the run was begun: nothing changes then."""
    if "batch" not in settings or "accumulate" in settings:
        return settings
    if settings["batch"] in (str(training.batch), str(training.update_size)):
        return {name: value for name, value in settings.items() if name != "batch"}
    return _as_whole_batch(settings)


def _override(config: RunConfig, before: RunConfig, overrides: Mapping[str, str]) -> RunConfig:
    """The run with other settings from now on, which are written down with it."""
    for name in overrides:
        if name in names_of(ModelConfig):
            problem = "is a setting of the model, whose weights were made for it"
            raise LvaeError(f"--override {name}", problem, "Begin a new run with --init RUN.")
    _, training = apply_settings(config.model, config.training, _as_whole_batch(overrides), "--override")
    check_together(config.model, training)
    made = []
    for field in fields(training):
        old, new = getattr(before.training, field.name), getattr(training, field.name)
        if old != new and field.name in _as_whole_batch(overrides):
            made.append(Override(None, field.name, records.plain(old), records.plain(new)))
    return replace(config, training=training, overrides=(*before.overrides, *made))


def _count_classes(settings: Mapping[str, str], dataset: Dataset) -> Mapping[str, str]:
    asked = settings.get("classes")
    if asked != ALL_CLASSES:
        there = len(dataset.classes or ())
        if asked is not None and asked.isdecimal() and int(asked) and there and int(asked) != there:
            problem = f"{dataset.folder} has {there} classes"
            raise LvaeError(f"--set classes={asked}", problem, "Say --conditional for all of them.")
        return settings
    if dataset.classes is not None:
        return {**settings, "classes": str(len(dataset.classes))}
    return {**settings, "classes": str(max(0, int(dataset.labels.max()) + 1))}


def apply_settings(
    model: ModelConfig, training: TrainConfig, settings: Mapping[str, str], option: str = "--set"
) -> tuple[ModelConfig, TrainConfig]:
    """Both with settings given as text, as JSON or as a bare word: {"classes": "10", "heads": "4,0,0"}.

    LvaeError for a name that neither has, offering the nearest.
    """
    known = [*names_of(ModelConfig), *names_of(TrainConfig)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, cutoff=0.5)
            raise LvaeError(
                f"{option} {name}", "there is no such setting", f"Near it: {', '.join(near or sorted(known))}."
            )
    parsed = {name: _parse(text) for name, text in settings.items()}
    return _with(model, parsed), _with(training, parsed)


def _with(record: Record, values: Mapping[str, Any]) -> Record:
    """All values at once, for some are only possible together."""
    own = {name: value for name, value in values.items() if name in names_of(type(record))}
    return records.from_plain(type(record), {**records.plain(record), **own}, "--set") if own else record


def _parse(text: str) -> Any:
    """JSON, or a list of JSON values between commas, or a word."""
    for attempt in (text, f"[{text}]"):
        try:
            return records.loads(attempt.encode(), text)
        except LvaeError:
            continue
    return text
