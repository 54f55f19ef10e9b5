"""A run that goes on with another dataset: one that grew, or that was erased from."""

from dataclasses import fields, replace

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted, option_of, value_of
from lvae.train.runs.classes import renumber_classes
from lvae.train.runs.run import DATASET, DatasetRecord, Override, RunConfig


def continue_on(config: RunConfig, before: RunConfig, run: object, dataset: Dataset) -> RunConfig:
    """The settings of a run that goes on with the dataset of `config`, which is noted among its overrides.

    A conditional model keeps the numbers of its classes, whatever those of the dataset are. run: for messages.
    LvaeError where the model was not made for such latents, or does not know a class of theirs.
    """
    if config.dataset.id == before.dataset.id:
        return config
    place = dataset.folder
    where = f"--continue-on {place}"
    if found := _difference(before.dataset, config.dataset):
        raise LvaeError(where, f"{found}, so the model of {run} is not for its latents", "Begin another run with it.")
    _check_normalization(before.dataset, config.dataset, run, where, place)
    config = _keep_classes(config, before, run, where)
    renumber_classes(config, run, dataset)
    noted = Override(None, DATASET, _noted(before.dataset), _noted(config.dataset))
    return replace(config, overrides=(*config.overrides, noted))


def describe_change(change: Override) -> str:
    """What was changed, for a person."""
    if change.name != DATASET:
        return f"{change.name} was {change.before} and is {change.after} from now on"
    then, now = (f"{one['id'][:12]} of {counted(one['latents'], 'latent')}" for one in (change.before, change.after))
    return f"the dataset was {then} and is {now} from now on"


def _noted(dataset: DatasetRecord) -> dict[str, object]:
    return {"id": dataset.id, "latents": dataset.count}


def _difference(then: DatasetRecord, now: DatasetRecord) -> str | None:
    """Why the latents of two datasets are not of one kind; None where they are."""
    old, new = then.autoencoder, now.autoencoder
    if then.origin != now.origin:
        return f"it was made of {now.origin}, and the run was trained on {then.origin}"
    if replace(old, name=new.name) != new or (old.weights_unknown and old.name != new.name):
        return f"its autoencoder is {_named(new.name, new.weights_sha256)}, not {_named(old.name, old.weights_sha256)}"
    for field in fields(then.image):
        before, after = getattr(then.image, field.name), getattr(now.image, field.name)
        if before != after:
            return f"{option_of(f'image.{field.name}')} was {value_of(before)} and is {value_of(after)}"
    if then.shape != now.shape:
        return f"its latents are {'x'.join(map(str, now.shape))}, not {'x'.join(map(str, then.shape))}"
    return None


def _named(name: str, weights: str | None) -> str:
    return name if weights is None else f"{name} ({weights[:12]})"


def _check_normalization(then: DatasetRecord, now: DatasetRecord, run: object, where: str, place: object) -> None:
    old, new = then.normalization, now.normalization
    if (old.shift, old.scale) != (new.shift, new.scale):
        advice = f"Give it the run's: 'lvae shard {place} --normalization {run}/config.json'."
        raise LvaeError(where, "its latents are normalized by another shift and scale than the run's", advice)


def _keep_classes(config: RunConfig, before: RunConfig, run: object, where: str) -> RunConfig:
    """With the run's classes, for a conditional model knows a class by its number. LvaeError where one has no names."""
    then, now = before.dataset.classes, config.dataset.classes
    if not config.model.classes:
        return config
    if (then is None) != (now is None):
        problem = "its classes have names, and the run's have none" if then is None else "its classes have no names"
        raise LvaeError(where, problem, f"Begin another run with it, from these weights: --init {run}.")
    return replace(config, dataset=replace(config.dataset, classes=then))
