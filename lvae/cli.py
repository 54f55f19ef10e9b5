"""The command `lvae`. Only click is imported at the start: whatever a command needs, it imports when it runs."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from lvae.commands import (
    autoencoder as autoencoders,
)
from lvae.commands import (
    dataset as datasets,
)
from lvae.commands import (
    encode as encoding,
)
from lvae.commands import (
    evaluate as evaluating,
)
from lvae.commands import (
    exchange as exchanging,
)
from lvae.commands import (
    explore,
    latents,
    machine,
)
from lvae.commands import (
    manipulate as manipulating,
)
from lvae.commands import (
    report as reporting,
)
from lvae.commands import (
    train as training,
)
from lvae.manifests.errors import LvaeError, one_line
from lvae.manifests.messages import escape_controls
from lvae.terminal import escaped_output

WORDS = "lvae.words"  # as they were typed


class Group(click.Group):
    """Shows what a user caused as one line and exits with 1; `--debug` shows where it came from."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        context.meta[WORDS] = list(words)
        return super().parse_args(context, words)

    def invoke(self, context: click.Context) -> Any:
        try:
            _refuse_odd_paths(context.meta[WORDS])
            with _safe_path(), escaped_output():
                return super().invoke(context)
        except LvaeError as error:
            self._end(context, f"lvae: {error}", 1, error)
        except KeyboardInterrupt as error:
            self._end(context, "lvae: interrupted; the same command goes on from here", 130, error)
        except OSError as error:
            if error.errno == errno.EPIPE or (error.filename is None and error.errno is None):
                raise
            full = (errno.ENOSPC, errno.EDQUOT)
            advice = " Free some, then run the same command again." if error.errno in full else ""
            name = "a file" if error.filename is None else one_line(str(error.filename))
            self._end(context, f"lvae: {name}: {error.strerror}.{advice}", 1, error)

    @staticmethod
    def _end(context: click.Context, line: str, code: int, error: BaseException) -> None:
        if context.params.get("debug"):
            raise error
        click.echo(escape_controls(line), err=True)
        context.exit(code)


def _refuse_odd_paths(words: list[str]) -> None:
    """Datasets, runs and reports name what they were made from, in UTF-8."""
    if {"-h", "--help"}.intersection(words):
        return
    for place in (*words, os.getcwd()):  # noqa: PTH109
        try:
            place.encode()
        except UnicodeEncodeError:
            advice = "Rename it, or go by a symbolic link with a plain name."
            raise LvaeError(place, "is not UTF-8, and what is made names its places", advice) from None


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep files in the working directory from being taken for modules by Python processes that a command starts."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show a traceback with errors.")
@click.version_option(package_name="latent-vae", prog_name="lvae")
def main(debug: bool) -> None:
    """Deep VAEs in the latent space of an autoencoder: encode images once, train on the latents, sample."""


GROUPS = (
    encoding,
    datasets,
    training,
    evaluating,
    reporting,
    manipulating,
    explore,
    exchanging,
    latents,
    autoencoders,
    machine,
)

for command in (command for group in GROUPS for command in group.COMMANDS):
    main.add_command(command)
