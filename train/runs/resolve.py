"""From a preset and what a user sets to the settings of a run."""

import difflib
import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig, names_of
from lvae.train.presets import normalization_warning, preset
from lvae.train.runs.run import RunConfig

DEFAULT_PRESET = "tiny"
ALL_CLASSES = "all"  # --set classes=all: as many as the dataset has

Record = TypeVar("Record", ModelConfig, TrainConfig)

logger = logging.getLogger(__name__)


def resolve_config(
    dataset: Dataset, before: RunConfig | None, name: str | None, settings: Mapping[str, str], init: str | None = None
) -> RunConfig:
    """The settings of a run on this dataset: those of a preset, or of the run that is there where none is named.

    settings: what is set otherwise, as text. init: SHA-256 of the weights to begin a new run with.
    """
    if before is not None and name in (None, before.preset):
        name, model, training = before.preset, before.model, before.training
        model, training, init = *apply_settings(model, training, _count_classes(settings, dataset)), before.init
    else:
        name = name or DEFAULT_PRESET
        chosen = preset(name, dataset.manifest.view.shape)
        model, training = apply_settings(chosen.model, chosen.training, _count_classes(settings, dataset))
        if "sigma_q" not in settings and (
            warning := normalization_warning(chosen, dataset.normalization.kind, dataset.normalization.scale)
        ):
            logger.warning("%s", warning)
    return RunConfig.new(name, model, training, dataset, init)


def _count_classes(settings: Mapping[str, str], dataset: Dataset) -> Mapping[str, str]:
    if settings.get("classes") != ALL_CLASSES:
        return settings
    if dataset.classes is not None:
        return {**settings, "classes": str(len(dataset.classes))}
    return {**settings, "classes": str(max(0, int(dataset.labels.max()) + 1))}


def apply_settings(
    model: ModelConfig, training: TrainConfig, settings: Mapping[str, str]
) -> tuple[ModelConfig, TrainConfig]:
    """Both with settings given as text, as JSON or as a bare word: {"classes": "10", "heads": "4,0,0"}.

    LvaeError for a name that neither has, offering the nearest.
    """
    known = [*names_of(ModelConfig), *names_of(TrainConfig)]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, cutoff=0.5)
            raise LvaeError(
                f"--set {name}", "there is no such setting", f"Near it: {', '.join(near or sorted(known))}."
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
