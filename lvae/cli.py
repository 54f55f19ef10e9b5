"""The command `lvae`. Only click is imported at the start: whatever a command needs, it imports when it runs."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.exceptions import NoSuchCommand

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
    options as shared,
)
from lvae.commands import (
    report as reporting,
)
from lvae.commands import (
    study as studies,
)
from lvae.commands import (
    train as training,
)
from lvae.commands.places import path_of, usage_of
from lvae.manifests.errors import LvaeError, one_line
from lvae.manifests.messages import did_you_mean, duration, escape_controls
from lvae.terminal import escaped_output

WORDS = "lvae.words"  # as they were typed
RESUMING = (  # commands that go on where they were stopped; others begin anew
    *("scan", "encode", "shard", "merge", "latents", "train", "sample", "decode", "sweep", "study", "autoencoder"),
    *("demo", "scenes"),
)
SECTIONS = {  # of the help, commands in the order of use
    "Data": "scan encode inspect stats verify shard merge clean watch latents",
    "Model": "train plot residuals sample decode import export",
    "Evaluate": "score features reference sweep neighbours report study",
    "Look inside": "traverse interpolate outpaint depths explore",
    "Autoencoder": "autoencoder",
    "This machine": "demo scenes doctor",
}


class Group(click.Group):
    """Shows what a user caused as one line; `--debug` shows where it came from. A command ends with its duration."""

    depth = 0

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        context.meta[WORDS] = list(words)
        return super().parse_args(context, words)

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, left = super().resolve_command(context, words)
        if isinstance(command, click.Command) and not isinstance(command, click.Group):
            _refuse_surplus(command, name, left, context)
        return name, command, left

    def invoke(self, context: click.Context) -> Any:
        began = time.monotonic()
        try:
            _refuse_odd_paths(context.meta[WORDS])
            with _safe_path(), escaped_output(), self._nested() as outermost:
                result = super().invoke(context)
                if outermost:
                    _say_end(context, time.monotonic() - began)
                return result
        except LvaeError as error:
            self._end(context, f"lvae: {error}", 1, error)
        except click.UsageError as error:
            self._end(context, f"lvae: {explain_usage(error)}", 2, error)
        except KeyboardInterrupt as error:
            name = context.invoked_subcommand if context.parent is None else context.info_name
            resumes = self.depth > 0 or name in RESUMING  # a step of another command's: that one goes on
            more = "; the same command resumes from here" if resumes else ""
            self._end(context, f"lvae: interrupted{more}", 130, error)
        except OSError as error:
            if error.errno == errno.EPIPE or (error.filename is None and error.errno is None):
                raise
            full = (errno.ENOSPC, errno.EDQUOT)
            advice = " Free some, then run the same command again." if error.errno in full else ""
            name = "a file" if error.filename is None else one_line(str(error.filename))
            self._end(context, f"lvae: {name}: {error.strerror}.{advice}", 1, error)

    @contextmanager
    def _nested(self) -> Iterator[bool]:
        """Whether no other command runs this one as one of its steps."""
        self.depth += 1
        try:
            yield self.depth == 1
        finally:
            self.depth -= 1

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order of use."""
        known = [name for names in SECTIONS.values() for name in names.split() if name in self.commands]
        return [*known, *sorted(self.commands.keys() - set(known))]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        left = self.list_commands(context)
        width = max(map(len, left))
        for title, names in (*SECTIONS.items(), ("Others", " ".join(left))):
            here = [name for name in names.split() if name in left]
            rows = [(f"{name:{width}}", self.commands[name].get_short_help_str(90)) for name in here]
            left = [name for name in left if name not in names.split()]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    @staticmethod
    def _end(context: click.Context, line: str, code: int, error: BaseException) -> None:
        if context.params.get("debug"):
            raise error
        click.echo(escape_controls(line), err=True)
        context.exit(code)


def explain_usage(error: click.UsageError) -> str:
    """Wrong usage on one line: the command, what is wrong, and how it is written."""
    problem = one_line(" ".join(_problem_of(error).split())).rstrip(".")
    problem += "" if problem.endswith("?") else "."
    if error.ctx is None:
        return problem
    path = path_of(error.ctx)
    name = path.partition(" ")[2]
    if isinstance(error.ctx.command, click.Group):
        return f"{name}{': ' if name else ''}{problem} '{path} --help' lists the commands."
    written = f"Write '{usage_of(error.ctx)}'; '{path} --help' explains it."
    return f"{name}: {problem} {written}"


def _problem_of(error: click.UsageError) -> str:
    """What is wrong; names that do not exist are answered with those that are like them."""
    if isinstance(error, click.NoSuchOption):
        known = [name for option in error.ctx.command.params for name in option.opts] if error.ctx else []
        return f"there is no option {error.option_name}. {did_you_mean(error.option_name, known)}"
    if isinstance(error, NoSuchCommand):
        known = error.ctx.command.list_commands(error.ctx) if error.ctx else []  # type: ignore[attr-defined]
        return f"there is no command {error.command_name!r}. {did_you_mean(error.command_name, known)}"
    return error.format_message()


def _refuse_surplus(command: click.Command, name: str | None, words: list[str], parent: click.Context) -> None:
    """UsageError for more arguments than a command takes, before it looks at what lies at the first ones."""
    if isinstance(command, shared.EngineCommand):
        words = words[: words.index("--")] if "--" in words else words
    context = command.context_class(command, parent=parent, info_name=name)
    _, surplus, _ = command.make_parser(context).parse_args(list(words))
    if surplus and not command.allow_extra_args:
        noun = "argument" if len(surplus) == 1 else "arguments"
        context.fail(f"Got unexpected extra {noun} ({' '.join(map(str, surplus))})")


def _say_end(context: click.Context, seconds: float) -> None:
    """How long a command took, and the natural next one."""
    if context.meta.get(shared.SILENT):
        return
    took = f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
    following = context.meta.get(shared.NEXT)
    click.echo(f"took {took}" + (f". Next: {following}" if following else ""), err=True)


def _refuse_odd_paths(words: list[str]) -> None:
    """Datasets, runs and reports name what they were made from, in UTF-8."""
    if {"-h", "--help"}.intersection(words):
        return
    for place in (*words, os.getcwd()):  # noqa: PTH109
        if "\0" in place:
            raise LvaeError(place, "holds a null byte, and no path does", "Write it without.")
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
    studies,
    manipulating,
    explore,
    exchanging,
    latents,
    autoencoders,
    machine,
)

for command in (command for group in GROUPS for command in group.COMMANDS):
    main.add_command(command)
