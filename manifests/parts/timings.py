"""How long parts took: timings/, beside the dataset and no part of it. Advice for people, never truth."""

from collections.abc import Iterable
from dataclasses import dataclass

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.receipts import PARTS_PER_FOLDER
from lvae.manifests.storage.folder import Folder

RECENT_SECONDS = 600.0  # before the last part's end: what a rate is made of, so that a pause of days does not count


@dataclass(frozen=True)
class Timing:
    """One finished part. seconds: from its first image to its receipt; ended: by the worker's clock, Unix time."""

    part: int
    images: int
    seconds: float
    ended: float


def timing_name(part: int) -> str:
    return f"timings/{part // PARTS_PER_FOLDER:06d}/part-{part:06d}.json"


def write_timing(folder: Folder, timing: Timing) -> None:
    folder.write(timing_name(timing.part), records.dumps(timing))


def read_timing(folder: Folder, part: int) -> Timing | None:
    """None where there is none, or where it says nothing that can be read."""
    data = folder.read_if_there(timing_name(part))
    try:
        return None if data is None else records.parse(Timing, data, timing_name(part))
    except LvaeError:
        return None


def images_per_second(timings: Iterable[Timing]) -> float | None:
    """The recent rate of all workers together; None where nothing is known."""
    found = list(timings)
    last = max((timing.ended for timing in found), default=0.0)
    recent = [timing for timing in found if timing.ended >= last - RECENT_SECONDS]
    seconds = last - min((timing.ended - timing.seconds for timing in recent), default=0.0)
    return sum(timing.images for timing in recent) / seconds if recent and seconds > 0 else None
