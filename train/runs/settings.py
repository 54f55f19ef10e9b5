"""Settings as text, as a person gives them: checked without anything large, before a command imports it."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import did_you_mean
from lvae.train.config import ModelConfig, TrainConfig, names_of

DEFAULT_PRESET = "tiny"
ALL_CLASSES = "all"  # --set classes=all: as many as the dataset has
SHORTHANDS = {  # options, and the settings that they are shorter names of
    "steps": "updates",
    "batch": "batch",
    "accumulate": "accumulate",
    "seed": "seed",
    "precision": "precision",
}

Record = TypeVar("Record", ModelConfig, TrainConfig)


def parse_pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """KEY=VALUE of an option that may be repeated: later ones win."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise LvaeError(f"{option} {text}", f"say {option} KEY=VALUE")
        found[name] = value
    return found


def refuse_other(settings: Mapping[str, str], name: str, value: str, said: str) -> None:
    """LvaeError where --set says something else than an option that is a shorter way to say the same."""
    if settings.get(name, value) != value:
        raise LvaeError(f"{said} --set {name}={settings[name]}", "both set the same", "Leave one of them out.")


def merge_settings(file: Mapping[str, str], texts: Iterable[str], options: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a file, behind --set, and in options that are shorter ways to say the same: later ones win.

    LvaeError where --set and such an option differ.
    """
    found = parse_pairs("--set", texts)
    for option, name in SHORTHANDS.items():
        if options[option] is not None:
            refuse_other(found, name, str(options[option]), f"--{option} {options[option]}")
    found |= {name: str(options[option]) for option, name in SHORTHANDS.items() if options[option] is not None}
    below = dict(file)
    if "batch" in found:  # which alone names what an update sees
        below.pop("accumulate", None)
    return below | found


def as_whole_batch(settings: Mapping[str, str]) -> Mapping[str, str]:
    """`batch` alone names what an update sees, whatever the preset accumulates."""
    return {**settings, "accumulate": "1"} if "batch" in settings and "accumulate" not in settings else settings


def count_classes(settings: Mapping[str, str], dataset: Dataset) -> Mapping[str, str]:
    """`classes=all` as the number that the dataset has; LvaeError for another number than its own."""
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
    check_names(settings, option)
    parsed = {name: _parse(text) for name, text in settings.items()}
    return _with(model, parsed), _with(training, parsed)


def check_names(settings: Iterable[str], option: str = "--set") -> None:
    """LvaeError for the first that is no setting."""
    known = [*names_of(ModelConfig), *names_of(TrainConfig)]
    for name in settings:
        if name not in known:
            advice = did_you_mean(name, known, "'lvae train DATASET RUN --dry-run --json' lists them.")
            raise LvaeError(f"{option} {name:.60}", "there is no such setting", advice)


def _with(record: Record, values: Mapping[str, Any]) -> Record:
    """All values at once, for some are only possible together."""
    own = {name: value for name, value in values.items() if name in names_of(type(record))}
    if not own:
        return record
    try:
        return records.from_plain(type(record), {**records.plain(record), **own}, "--set")
    except LvaeError as error:  # --set.groups is written --set groups
        raise LvaeError(error.where.replace("--set.", "--set ", 1), error.problem, error.advice) from None


def _parse(text: str) -> Any:
    """JSON, or a list of JSON values between commas, or a word."""
    for attempt in (text, f"[{text}]"):
        try:
            return records.loads(attempt.encode(), text)
        except LvaeError:
            continue
    return text
