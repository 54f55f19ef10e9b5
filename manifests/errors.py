"""The one exception for what a user can cause."""

from dataclasses import dataclass

LONGEST = 1000  # characters


class LvaeError(Exception):
    """Shown as one line, without a traceback: where, what is wrong, and what to do.

    where: a path, an option, a key; "" where there is no place to name. problem: without a closing period.
    advice: whole sentences, or "".

    Names and reasons in it come from files of any kind, so that what is not printable is escaped, and what is very long
    is cut.
    """

    def __init__(self, where: object, problem: str, advice: str = ""):
        self.where, self.problem, self.advice = str(where), problem, advice
        text = f"{self.where}: {problem}" if self.where else problem
        if not text.endswith((".", "?", "!")):
            text += "."
        super().__init__(one_line(f"{text} {advice}" if advice else text))

    def __reduce__(self) -> tuple[type["LvaeError"], tuple[str, str, str]]:
        return type(self), (self.where, self.problem, self.advice)


def one_line(text: str) -> str:
    """A text without anything that would drive a terminal or break a line, cut where it is very long."""
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `part` or (`split`, `shard`): what has to be made again to mend it."""

    where: str
    problem: str
    part: int | None = None
    split: str | None = None
    shard: int | None = None
