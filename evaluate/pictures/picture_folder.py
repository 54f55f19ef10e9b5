"""A folder of decoded pictures: whose they are, so that nobody else's are replaced and none of before is left.

OUT/000000.png, numbered by position, and OUT/.decoded.json, which says what they were decoded from.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import TEMPORARY, Folder
from lvae.manifests.storage.places.marks import is_marked

RECORD = ".decoded.json"
PICTURE = re.compile(r"\d{6,}\.png")


@dataclass(frozen=True)
class PictureFolder:
    """dataset: the id of what was decoded."""

    format: Literal["latent-vae-decoded"]
    version: Literal[1]
    dataset: str
    split: str

    @classmethod
    def of(cls, dataset: Dataset) -> "PictureFolder":
        return cls("latent-vae-decoded", 1, dataset.manifest.id, dataset.name)


def picture_name(position: int) -> str:
    return f"{position:06d}.png"


def check_pictures(out: Path, made: PictureFolder) -> None:
    """LvaeError where a folder holds anything but pictures that were decoded from the same latents."""
    there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    strange = next((name for name in there if not PICTURE.fullmatch(name) and not name.startswith(".")), None)
    if strange is None:
        pictures = (name for name in there if PICTURE.fullmatch(name))
        strange = next((name for name in pictures if not is_marked(out / name)), None)
    if strange is not None:
        problem = f"holds something else than decoded pictures ({strange!r:.80})"
        raise LvaeError(out, problem, "Name another folder.")
    data = Folder(out).read_if_there(RECORD) if there else None
    if data is not None and records.parse(PictureFolder, data, f"{out}/{RECORD}") != made:
        raise LvaeError(out, "holds pictures that were decoded from other latents", "Name another folder.")


def begin_pictures(out: Path, made: PictureFolder, positions: Iterable[int]) -> None:
    """Make a folder ready: pictures of before that are not asked for now go."""
    check_pictures(out, made)
    folder = Folder(out)
    folder.write(RECORD, records.dumps(made))
    folder.remove(TEMPORARY)
    wanted = {picture_name(position) for position in positions}
    for name in [path.name for path in out.iterdir()]:
        if PICTURE.fullmatch(name) and name not in wanted:
            (out / name).unlink()
