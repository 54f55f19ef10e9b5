"""Images that were smaller than their crop: counted by part, under timings/, for a warning; no part of a dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import PARTS_PER_FOLDER
from lvae.manifests.storage.folder import Folder

LOOKED_AT = 4096  # parts: of larger datasets the first ones tell enough


@dataclass(frozen=True)
class Enlarged:
    """So many images of a part. smallest: the shorter side of the smallest one, in pixels."""

    count: int
    smallest: int


def write_enlarged(folder: Folder, part: int, enlarged: Enlarged) -> None:
    folder.write(_name(part), records.dumps(enlarged))


def tell_of_enlarged(folder: Folder, plan: Plan, say: Callable[[str], None]) -> None:
    """A warning where images had to be enlarged to fill the crop."""
    parts = min(plan.listing.parts, LOOKED_AT)
    found = [one for one in folder.each(partial(_read, folder), range(parts)) if one is not None]
    if not found:
        return
    size, smallest = plan.encoded().image.size, min(one.smallest for one in found)
    count = sum(one.count for one in found)
    images = counted(plan.listing.images, "image")
    some = "" if parts == plan.listing.parts else f" (in the first {parts} parts)"
    verb = "is" if count == 1 else "are"
    say(
        f"warning: {count} of {images}{some} {verb} smaller than {size} px: enlarged up to {size / smallest:.1f} x. "
        f"A smaller --size into another DATASET fits better; --min-size {size} leaves such images out"
    )


def _read(folder: Folder, part: int) -> Enlarged | None:
    data = folder.read_if_there(_name(part))
    try:
        return None if data is None else records.parse(Enlarged, data, _name(part))
    except LvaeError:
        return None  # a warning is all that it is for


def _name(part: int) -> str:
    return f"timings/{part // PARTS_PER_FOLDER:06d}/part-{part:06d}.enlarged.json"
