"""The command `lvae`. Only click is imported at the start: whatever a command needs, it imports when it runs."""

import errno
import os
import re
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


class Group(click.Group):
    """Shows what a user caused as one line and exits with 1; `--debug` shows where it came from."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with _safe_path(), escaped_output():
                return super().invoke(context)
        except LvaeError as error:
            self._end(context, f"lvae: {error}", 1, error)
        except KeyboardInterrupt as error:
            self._end(context, "lvae: interrupted; the same command goes on from here", 130, error)
        except UnicodeEncodeError as error:
            if not re.search("[\\ud800-\\udfff]", error.object):
                raise
            self._end(context, f"lvae: {one_line(error.object)}: not UTF-8. Rename it.", 1, error)
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


GROUPS = (encoding, datasets, training, evaluating, reporting, manipulating, exchanging, autoencoders, machine)

for command in (command for group in GROUPS for command in group.COMMANDS):
    main.add_command(command)
