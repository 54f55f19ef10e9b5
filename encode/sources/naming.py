"""What all kinds of source agree on: which names are images, which are hidden, which folder is a class.

By name, an image ends in one of IMAGE_EXTENSIONS, in any case. A name without any extension is looked into: it is an
image if its first 16 bytes say so. Everything else is counted under "not images". Hidden is what has a component that
begins with a dot, or that a system leaves behind (Thumbs.db, __MACOSX...).
"""

import posixpath
from typing import Literal, Protocol

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif"}
    | {
        ".heic",
        ".heif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".j2c",
        ".jpx",
        ".jpf",
    }  # pictures, so they are listed; then rejected with a reason
)
USUAL = frozenset(IMAGE_EXTENSIONS | {extension.upper() for extension in IMAGE_EXTENSIONS})
SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"})
MAGIC_BYTES = 16

HIDDEN = "hidden files"
NOT_IMAGES = "not images"
UNLABELLED_IMAGES = "unlabelled"
MET_TWICE = "symbolic links met twice"
BROKEN_LINKS = "broken symbolic links"
LINKS = "links inside archives"
SPECIAL = "neither files nor folders"
BAD_NAMES = "names that are not UTF-8"

DATASET_JSON = "dataset.json"
CLASSES_TXT = "classes.txt"
MAX_JSON_BYTES = 1 << 30  # of a dataset.json
MAX_MEMBER_BYTES = 1 << 30  # of one image's file: an uncompressed 16-bit picture of MAX_PIXELS still fits


def is_hidden(name: str) -> bool:
    """Of one component of a path."""
    return name[:1] == "." or name.lower() in SYSTEM_NAMES


def is_image_name(name: str) -> bool | None:
    """True or False by the extension; None where there is none, and the first bytes decide."""
    dot = name.rfind(".")
    if dot > 0 and name[dot:] in USUAL and name[dot - 1] not in "./":
        return True  # as below, for all but a few names: those are asked about by the million
    extension = posixpath.splitext(name)[1].lower()
    return extension in IMAGE_EXTENSIONS if extension else None


def is_utf8(name: str) -> bool:
    """Whether a name from a file system or archive was decodable (rows are UTF-8)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def key_of_member(name: str) -> str:
    """A member's name without leading "./" or "/" and doubled slashes: what a folder would call it."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


class ArchiveFolders:
    """Gathers which folders of an archive hold images, then says which are the classes.

    The first-level folders are. But where everything lies in one folder with several folders inside (`photos.zip`
    made of the folder `photos`), that one is only a wrapping, and the classes are its subfolders.
    """

    def __init__(self) -> None:
        self._first: set[str] = set()
        self._second: set[str] = set()
        self._shallow = False  # an image lies at the top, or directly in a first-level folder
        self._numbers: dict[str, int] | None = None

    def add(self, key: str) -> None:
        parts = key.split("/", 2)
        if len(parts) > 1:
            self._first.add(parts[0])
        if len(parts) < 3:
            self._shallow = True
        elif len(self._first) == 1:
            self._second.add(parts[1])

    @property
    def wrapped(self) -> bool:
        return len(self._first) == 1 and not self._shallow and len(self._second) > 1

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Sorted; None where no image lies in a folder."""
        return tuple(sorted(self._second if self.wrapped else self._first)) or None

    @property
    def remarks(self) -> list[str]:
        return [f"all images lie in {min(self._first)}/: its subfolders are the classes"] if self.wrapped else []

    def label(self, key: str) -> int:
        """The class of a key that was added; UNLABELLED where it lies in no folder. Add all first."""
        if self._numbers is None:
            self._numbers = {name: number for number, name in enumerate(self.classes or ())}
        folders = key.split("/", 2)[:-1]
        return self._numbers[folders[1 if self.wrapped else 0]] if folders else UNLABELLED


class Labelled(Protocol):
    """The part of a source that the labels of its images touch."""

    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    def warn(self, kind: Literal["unlabelled"], text: str) -> None: ...


ONE = {"lie": "lies", "are": "is", "have": "has"}  # verbs of one image


def count_unlabelled(counts: dict[str, int], label: int) -> None:
    if label == UNLABELLED:
        counts[UNLABELLED_IMAGES] = counts.get(UNLABELLED_IMAGES, 0) + 1


def warn_of_unlabelled(source: Labelled, why: str) -> None:
    """Once all rows are through. Where there are no classes at all, nothing is missing. `why` begins with a verb."""
    unlabelled = source.counts.get(UNLABELLED_IMAGES, 0)
    if unlabelled and source.classes:
        verb, space, rest = why.partition(" ")
        why = f"{ONE.get(verb, verb) if unlabelled == 1 else verb}{space}{rest}"
        source.warn("unlabelled", f"{counted(unlabelled, 'image')} {why}: unlabelled")


def no_images(source: str, counts: dict[str, int], hint: str = "") -> LvaeError:
    """What to say of a source in which nothing is an image."""
    found = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return LvaeError(source, f"no images found ({found or 'it is empty'}).{hint and ' ' + hint}")
