"""The one exception for what a user can cause."""

from dataclasses import dataclass

LONGEST = 1000  # characters


class LvaeError(Exception):
    """Shown as one line, without a traceback: what is wrong, where, and what to do.

    Names and reasons in it come from files of any kind, so that what is not printable is escaped, and what is very long
    is cut.
    """

    def __init__(self, text: str):
        line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `part` or (`split`, `shard`): what has to be made again to mend it."""

    where: str
    problem: str
    part: int | None = None
    split: str | None = None
    shard: int | None = None


def without_advice(error: LvaeError) -> str:
    return str(error).split(": ", 1)[-1].split(". Run ")[0].split(". Remove ")[0].removesuffix(".")
