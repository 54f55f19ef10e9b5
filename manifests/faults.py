"""What can be wrong with a dataset, as verification says it."""

from dataclasses import dataclass

from lvae.manifests.errors import LvaeError


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
