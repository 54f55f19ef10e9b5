"""What a submission does, as the command writes it down for it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PartsToEncode:
    """dataset: its address, as workers find it. devices: as the command line says them."""

    dataset: str
    parts: tuple[int, ...]
    devices: tuple[str, ...]
    kind: Literal["encode"] = "encode"


@dataclass(frozen=True)
class PartsToDecode:
    """dataset: the folder of the parts, which says what they are made of."""

    dataset: str
    parts: tuple[int, ...]
    devices: tuple[str, ...]
    kind: Literal["decode"] = "decode"


@dataclass(frozen=True)
class ShardsToWrite:
    """shards: split and number of each, of a view that has been planned."""

    dataset: str
    view: str
    shards: tuple[tuple[str, int], ...]
    kind: Literal["shards"] = "shards"


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
