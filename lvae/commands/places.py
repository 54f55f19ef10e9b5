"""Arguments that name places: what lies there is told before a command imports anything large."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from lvae.manifests.storage.places import inputs
from lvae.manifests.storage.places.inputs import Input, check_input
from lvae.train.runs.packaged import packaged_names, resolve_run


class Place(click.ParamType):  # type: ignore[type-arg]
    """A path or URL of something that must be there.

    path_type: what a command is handed. names: what may be named without being here.
    """

    name = "path"

    def __init__(self, wanted: Input, path_type: type = str, names: Iterable[str] = ()):
        self.wanted, self.path_type, self.names = wanted, path_type, names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ctx is not None and not ctx.resilient_parsing:
            check_input(value, self.wanted, usage_of(ctx), self.names)
        return self.path_type(value)


class RunPlace(Place):
    """A run by its path, or by the name of a model in the package."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(resolve_run(value), param, ctx)


def usage_of(context: click.Context) -> str:
    """A command with its arguments in order, and the options that it needs: lvae train DATASET RUN."""
    parameters = context.command.get_params(context)
    words = [one.make_metavar(context) for one in parameters if isinstance(one, click.Argument)]
    needed = (one for one in parameters if isinstance(one, click.Option) and one.required)
    words += [f"{one.opts[0]} {one.make_metavar(context)}" for one in needed]
    return " ".join((path_of(context), *words))


def path_of(context: click.Context) -> str:
    """The words of a command: lvae autoencoder fit."""
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(("lvae", *names))


SOURCE = Place(inputs.IMAGES)
DATASET = Place(inputs.DATASET)
BEGUN_DATASET = Place(inputs.BEGUN)
RUN = RunPlace(inputs.RUN, Path, packaged_names())
DATASET_OR_RUN = RunPlace(inputs.DATASET_OR_RUN, str, packaged_names())
RUN_OR_SAMPLES = RunPlace(inputs.RUN_OR_SAMPLES, Path, packaged_names())
SAMPLES_OR_DATASET = Place(inputs.SAMPLES_OR_DATASET)
PUBLISHED = Place(inputs.PUBLISHED, Path)
LATENTS_OR_IMAGES = Place(inputs.LATENTS_OR_IMAGES)
