"""Options that a person gave and that do nothing here: refused or noted, never passed over without a word."""

import click
from click.core import ParameterSource

from lvae.manifests.errors import LvaeError

BY_A_PERSON = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.PROMPT)


def given(*names: str) -> list[str]:
    """Those of these parameters that stand on the command line, as they are written there."""
    context = click.get_current_context(silent=True)
    if context is None:
        return []
    options = {option.name: option.opts[0] for option in context.command.params}
    return [options[name] for name in names if context.get_parameter_source(name) in BY_A_PERSON]


def refuse_given(problem: str, *names: str, advice: str = "") -> None:
    """LvaeError that names those of these options that were given. problem: why they do nothing here."""
    found = given(*names)
    if found:
        them = "it" if len(found) == 1 else "them"
        raise LvaeError(" and ".join(found), problem, advice or f"Leave {them} out.")


def note_given(problem: str, *names: str) -> None:
    """Says so where one was given that scripts give everywhere, and without which the result is the same."""
    found = given(*names)
    if found:
        click.echo(f"{' and '.join(found)}: {problem}; without effect here", err=True)
