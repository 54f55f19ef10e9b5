"""Values of options that are wrong whatever a command does, told before it imports anything large."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lvae.commands.values.given import given, note_given, refuse_given
from lvae.evaluate.samples.options import guidance_weights, labels_of, parse_step, temperatures
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.train.config import ModelConfig
from lvae.train.presets import preset
from lvae.train.runs.config_file import read_config_file
from lvae.train.runs.drawing import DRAWING, PLAIN, read_drawing
from lvae.train.runs.packaged import run_name
from lvae.train.runs.settings import (
    DEFAULT_PRESET,
    apply_settings,
    as_whole_batch,
    check_names,
    count_classes,
    merge_settings,
    parse_pairs,
)
from lvae.train.runs.steps import require_step, steps_in

RUN_CONFIG = "config.json"


@dataclass(frozen=True)
class Classes:
    """Of a run's dataset: names of classes, and latents of each, where they are known."""

    classes: tuple[str, ...] | None
    class_counts: tuple[int, ...] | None


CLASSES = tuple(field.name for field in fields(Classes))


def read_model(run: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The model of a run, and all that its file of settings says."""
    content = records.loads(Folder(run).read(RUN_CONFIG), str(run / RUN_CONFIG))
    return records.from_plain(ModelConfig, content["model"], str(run / RUN_CONFIG)), content


def check_training(dataset: str, run: Path, options: dict[str, Any]) -> None:
    """LvaeError for names of settings and presets that do not exist; for a new run, for values, too."""
    check_names(parse_pairs("--override", options["overrides"]), "--override")
    path = options["config"]
    file = read_config_file(path) if path is not None and path.exists() else None
    settings = merge_settings({} if file is None else file.settings, options["settings"], options)
    check_names(settings)
    name = options["preset"] or (None if file is None else file.preset)
    begun = Folder(run).exists(RUN_CONFIG)
    if begun and records.loads(Folder(run).read(RUN_CONFIG), str(run / RUN_CONFIG)).get("init") is None:
        refuse_given(f"is what a new run begins with, and {run} has begun without it", "init")
    place = options["continue_on"] or dataset
    opened = None if "://" in place else Dataset.open(place)
    _refuse_unused(opened, options)
    if begun or opened is None:
        preset(name or DEFAULT_PRESET)
        return
    chosen = preset(name or DEFAULT_PRESET, opened.manifest.view.shape)
    apply_settings(chosen.model, chosen.training, as_whole_batch(count_classes(settings, opened)))


def _refuse_unused(dataset: Dataset | None, options: dict[str, Any]) -> None:
    """Options that do nothing, of a new run and of one that goes on. dataset: None where it is behind a URL."""
    if dataset is not None and "val" not in dataset.manifest.splits:
        problem = "needs a split named val, and DATASET has none"
        if options["patience"]:
            refuse_given(problem, "patience", advice="Make one: 'lvae shard DATASET --split val=5%'.")
        if options["validate_every"]:
            note_given(problem, "validate_every")
    if options["validate_every"] == 0 and options["patience"]:
        refuse_given("counts validations, and --validate-every 0 makes none", "patience")
    if options["preview"] == "none" and options["preview_every"]:
        refuse_given("says when previews are made, and --preview none makes none", "preview_every")
    if dataset is not None:
        note_given("is where a DATASET behind a URL is copied, and this one is here", "cache")


def take_drawing(run: Path, asked: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Options of `lvae sample`, with the run's own way of drawing where nothing is said of it, the paper's else.

    And that way in words, where it was taken. LvaeError that names RUN/drawing.json where it is not one for the model.
    """
    together = PLAIN.options().keys() - {"labels"}
    drawing = PLAIN if given(*together, "guidance", "convention") else read_drawing(run)
    own = {name: value for name, value in drawing.options().items() if asked[name] is None}
    taken = asked | own
    if drawing == PLAIN:
        return taken, None
    model, content = read_model(run)
    try:
        _check_draws(model, taken)
        check_labels(own.get("labels"), model, content)
    except LvaeError as error:
        raise LvaeError(f"{run_name(run)}/{DRAWING}", str(error)) from None
    words = drawing.in_words(own)
    return taken, f"drawn as {run_name(run)} says: {words}" if words else None


def _check_draws(model: ModelConfig, asked: dict[str, Any]) -> None:
    weights = (asked["guidance_mean"], asked["guidance_variance"], asked["guidance"], asked["convention"])
    guidance_weights(model, *weights)
    temperatures(asked["temperature"], len(model.groups))


def check_sampling(run: Path, asked: dict[str, Any]) -> None:
    """LvaeError for classes that the model of a run does not have, and for guidance and temperatures not for it."""
    model, content = read_model(run)
    _check_draws(model, asked)
    check_step(run, asked["step"])
    if not asked["output_temperature"]:
        note_given("is a kind of noise, and --output-temperature 0 adds none", "output_noise")
    _check_average(run, content["training"], asked)
    if model.low_resolution_factor is None and asked["low_resolution"] is not None:
        raise LvaeError("--low-resolution", "this model is no upsampler", "Leave the option out.")
    check_labels(asked["labels"], model, content)


def check_step(run: Path, text: str) -> None:
    """LvaeError for a checkpoint that a run does not have."""
    step = parse_step(text)
    if isinstance(step, int):
        require_step(run, step, steps_in(run / "checkpoints"))


def check_labels(labels: str | None, model: ModelConfig, content: dict[str, Any]) -> None:
    """LvaeError for classes that a model does not have; what a file says is looked at later."""
    if labels is not None and not (model.classes and Path(labels).is_file()):
        told = read_classes(content)
        labels_of(labels, 0, model.classes, told.classes, 0, counts=told.class_counts)


def read_classes(content: dict[str, Any]) -> Classes:
    """What a run's settings tell of its classes."""
    record = records.from_plain(dict[str, Any], content.get("dataset"), f"{RUN_CONFIG}.dataset")
    return records.from_plain(Classes, {name: record.get(name) for name in CLASSES}, f"{RUN_CONFIG}.dataset")


def _check_average(run: Path, training: dict[str, Any], asked: dict[str, Any]) -> None:
    decay, kept = asked["ema"], [training["ema"], *training.get("more_emas", ())]
    if asked["weights"] == "raw":
        refuse_given("names an average, and --parameters raw takes the weights of the last update", "ema")
    if decay is not None and decay not in kept:
        there = ", ".join(f"{one:g}" for one in kept)
        raise LvaeError(run_name(run), f"keeps no average of decay {decay:g}", f"It keeps {there}.")
