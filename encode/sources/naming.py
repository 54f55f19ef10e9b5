"""What all kinds of source agree on: which names are images, which are hidden, which folder is a class.

By name, an image ends in one of IMAGE_EXTENSIONS, in any case. A name without any extension is looked into: it is an
image if its first 16 bytes say so. Everything else is counted under "not images". Hidden is what has a component that
begins with a dot, or that a system leaves behind (Thumbs.db, __MACOSX...).
"""

import json
import posixpath
from collections.abc import Iterable
from typing import Any, Protocol

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
MAX_LABEL = 999_999
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


def checked_label(label: Any, where: str, classes: tuple[str, ...] | None) -> int:
    """An integer label that is in range, or an LvaeError that begins with `where`."""
    if isinstance(label, bool) or not isinstance(label, int):
        raise LvaeError(f"{where}: the label {label!r:.60} is not a whole number.")
    if not 0 <= label <= MAX_LABEL:
        raise LvaeError(f"{where}: the label {label} is out of range. Labels are 0 to {MAX_LABEL}.")
    if classes is not None and label >= len(classes):
        raise LvaeError(f"{where}: the label {label} is out of range: {CLASSES_TXT} names {len(classes)} classes.")
    return label


def numbered_classes(largest: int) -> tuple[str, ...] | None:
    """Names for labels that came as bare numbers: "0" to the largest; None where it is -1."""
    return tuple(map(str, range(largest + 1))) or None


def parse_json(text: bytes | str, where: str) -> Any:
    """Strict JSON: no duplicate keys, no NaN; an LvaeError in one line for anything else."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise LvaeError(f"{where}: not JSON, {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except UnicodeDecodeError as error:
        raise LvaeError(f"{where}: not UTF-8 text.") from error
    except RecursionError as error:
        raise LvaeError(f"{where}: nested too deeply.") from error
    except ValueError as error:  # duplicates, NaN, numbers of thousands of digits
        raise LvaeError(f"{where}: {error!s:.100}.") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{again!r:.60} stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def parse_dataset_json(text: bytes | str, where: str) -> dict[str, int] | None:
    """NVIDIA's layout, {"labels": [["path", 3], ...]} or null -> labels by path, or None."""
    found = parse_json(text, where)
    if not isinstance(found, dict) or "labels" not in found:
        raise LvaeError(f'{where}: no "labels". NVIDIA\'s layout is {{"labels": [["path", 3], ...]}} or null.')
    return parse_label_pairs(found["labels"], where)


def parse_label_pairs(pairs: Any, where: str) -> dict[str, int] | None:
    if pairs is None:
        return None
    if not isinstance(pairs, list):
        raise LvaeError(f'{where}: "labels" is neither a list nor null.')
    labels: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        here = f"{where}: labels[{number}]"
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise LvaeError(f'{here} is {json.dumps(pair):.60}. It has to be ["path", number].')
        key = key_of_member(pair[0].replace("\\", "/"))
        label = checked_label(pair[1], f"{here} ({key})", None)
        if labels.setdefault(key, label) != label:
            raise LvaeError(f"{here}: {key} has two labels, {labels[key]} and {label}.")
    return labels


class NamedLabels:
    """Labels of a dataset.json, handed out by key; what it names and nobody asked for is an error in the end."""

    def __init__(self, labels: dict[str, int], where: str):
        self._labels, self._where = labels, where
        self._used = 0
        self.classes = numbered_classes(max(labels.values(), default=-1))

    def label(self, key: str) -> int:
        if key not in self._labels:
            return UNLABELLED
        self._used += 1
        return self._labels[key]

    def finish(self, is_there: Iterable[str]) -> None:
        """Raise if an entry was never asked for; `is_there` is walked only then, for an example."""
        if self._used == len(self._labels):
            return
        missing = set(self._labels).difference(is_there)
        raise LvaeError(
            f"{self._where}: names {counted(len(missing), 'image')} not there, {min(missing)!r} for one. Take them out."
        )


class Labelled(Protocol):
    """The part of a source that the labels of its images touch."""

    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def warnings(self) -> list[str]: ...


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
        source.warnings.append(f"{counted(unlabelled, 'image')} {why}: unlabelled")


def no_images(source: str, counts: dict[str, int], hint: str = "") -> LvaeError:
    """What to say of a source in which nothing is an image."""
    found = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return LvaeError(f"{source}: no images found ({found or 'it is empty'}).{hint and ' ' + hint}")
