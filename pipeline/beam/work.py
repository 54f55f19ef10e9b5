"""What a submission does, as the command writes it down for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
    """dataset: its address, as workers find it. parts: ranges, one a task. devices: as the command line says them."""

    dataset: str
    parts: tuple[Range, ...]
    devices: tuple[str, ...]
    kind: Literal["encode"] = "encode"

    @property
    def elements(self) -> int:
        """How many things of it the engine spreads."""
        return len(self.parts)


@dataclass(frozen=True)
class PartsToDecode:
    """dataset: the folder of the parts, which says what they are made of."""

    dataset: str
    parts: tuple[int, ...]
    devices: tuple[str, ...]
    kind: Literal["decode"] = "decode"

    @property
    def elements(self) -> int:
        return len(self.parts)


@dataclass(frozen=True)
class ShardsToWrite:
    """shards: split and number of each, of a view that has been planned."""

    dataset: str
    view: str
    shards: tuple[tuple[str, int], ...]
    kind: Literal["shards"] = "shards"

    @property
    def elements(self) -> int:
        return len(self.shards)


Work = PartsToEncode | PartsToDecode | ShardsToWrite


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
