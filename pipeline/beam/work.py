"""What a submission does, as the command writes it down for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lvae.encode.feeding.settings import Feeding

LONGEST_RANGE = 64  # parts of one task


Range = tuple[int, int]  # part numbers from `start` to before `stop`


def ranges_of(numbers: Sequence[int], pieces: int) -> tuple[Range, ...]:
    """Ascending numbers as ranges of consecutive ones: at least `pieces` of them, as far as there are numbers."""
    longest = min(max(1, len(numbers) // max(pieces, 1)), LONGEST_RANGE)
    found: list[Range] = []
    for number in numbers:
        if found and found[-1][1] == number and number - found[-1][0] < longest:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return tuple(found)


@dataclass(frozen=True)
class PartsToEncode:
    """dataset: its address, as workers find it. parts: ranges, one a task."""

    dataset: str
    parts: tuple[Range, ...]
    feeding: Feeding
    kind: Literal["encode"] = "encode"

    @property
    def elements(self) -> int:
        """How many things of it the engine spreads."""
        return len(self.parts)


@dataclass(frozen=True)
class PartsToDecode:
    """dataset: the folder of the parts, which says what they are made of. parts: ranges, one a task."""

    dataset: str
    parts: tuple[Range, ...]
    devices: tuple[str, ...]
    kind: Literal["decode"] = "decode"

    @property
    def elements(self) -> int:
        return len(self.parts)


@dataclass(frozen=True)
class StepsToDo:
    """One of the steps of pipeline/beam/steps.py with many numbers.

    scratch: the address of the folder in which it leaves what it leaves. view: the name of the one that it is about, or
    "". plan: the hash of the dataset's plan, as far as it counts. numbers: ranges, one a task. command: which one asks.
    """

    dataset: str
    scratch: str
    step: str
    view: str
    plan: str
    numbers: tuple[Range, ...]
    command: str
    kind: Literal["steps"] = "steps"

    @property
    def elements(self) -> int:
        return len(self.numbers)


Work = PartsToEncode | PartsToDecode | StepsToDo


@dataclass(frozen=True)
class Submission:
    """Work for one run of an engine.

    options: Beam's, as on a command line. attempt: names this submission among others. watched: by a command on this
    machine, which workers do not outlive.
    """

    work: Work
    options: tuple[str, ...]
    attempt: str
    watched: bool
