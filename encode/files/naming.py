"""What all kinds of source agree on: which names are images, which are hidden, which folder is a class.

By name, an image ends in one of IMAGE_EXTENSIONS, in any case. A name with no ending, or one that nobody knows
(photo.jpg?width=640, photo.jpg.1), is looked into: it is an image if its first 16 bytes say so. Everything else is
counted: by what it may hold where that may be pictures or labels (see `what_is_left_out`), else as "not images". Hidden
is what has a component that begins with a dot, or that a system leaves behind (Thumbs.db, __MACOSX...).
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal, Protocol

from lvae.manifests.messages import composed, counted
from lvae.manifests.parts.rows import UNLABELLED

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif"}
    | {".heic", ".heif", ".jxl", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf"}  # listed, then rejected with a reason
)
USUAL = frozenset(IMAGE_EXTENSIONS | {extension.upper() for extension in IMAGE_EXTENSIONS})
SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"})
MAGIC_BYTES = 16

ARCHIVE_EXTENSIONS = frozenset(
    {
        ".tar",
        ".tgz",
        ".tbz",
        ".tbz2",
        ".txz",
        ".tzst",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".lz4",
        ".lzma",
        ".zip",
        ".7z",
        ".rar",
    }
    | {".parquet", ".arrow", ".feather", ".npz", ".npy", ".mdb", ".h5", ".hdf5", ".tfrecord", ".tfrecords", ".mat"}
    | {".mds", ".beton", ".rec", ".pkl", ".pickle"}
)
OTHER_PICTURES = frozenset(
    {".svg", ".psd", ".ai", ".eps", ".exr", ".hdr", ".tga", ".ico", ".icns", ".pcx", ".sgi", ".xcf", ".dcm", ".djvu"}
    | {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"}
)
LABEL_EXTENSIONS = frozenset({".cls", ".cls2", ".class", ".label", ".labels", ".index", ".inx", ".id", ".target"})
TABLE_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
LABEL_NAMES = re.compile(r"label|class|annot|categor|target|metadata|truth|synset", re.IGNORECASE)
PLAIN_EXTENSIONS = frozenset(
    {".txt", ".json", ".xml", ".yaml", ".yml", ".html", ".htm", ".md", ".rst", ".pdf", ".log", ".ini", ".cfg", ".toml"}
    | {".py", ".ipynb", ".sh", ".js", ".css", ".c", ".h", ".caption", ".cap", ".tags", ".db", ".sqlite", ".lock"}
    | {".mp4", ".avi", ".mov", ".mkv", ".webm", ".mp3", ".wav", ".flac", ".pt", ".pth", ".ckpt", ".safetensors"}
)
KNOWN = ARCHIVE_EXTENSIONS | OTHER_PICTURES | LABEL_EXTENSIONS | TABLE_EXTENSIONS | PLAIN_EXTENSIONS

HIDDEN = "hidden files"
NOT_IMAGES = "not images"
UNLABELLED_IMAGES = "unlabelled"
LOOPS = "symbolic links that lead round in circles"
BROKEN_LINKS = "broken symbolic links"
LINKS = "links inside archives that lead nowhere"
SPECIAL = "neither files nor folders"
NOT_READ = "archives and tables not read"
PICTURES_NOT_READ = "pictures of formats that are not read"
NOT_UTF8 = "names that are not UTF-8"
LINKED_FOLDERS = "linked folders not looked into"
BESIDE = "images beside what is read"
LABELS_NOT_USED = "files that may hold labels"
NAMED = (
    LINKED_FOLDERS,
    LOOPS,
    NOT_READ,
    PICTURES_NOT_READ,
    LABELS_NOT_USED,
)  # a person is told of them, with an example
LOST = (BESIDE, NOT_UTF8, BROKEN_LINKS, LINKS, SPECIAL)  # the same where they are called images

DATASET_JSON = "dataset.json"
CLASSES_TXT = "classes.txt"
MAX_JSON_BYTES = 1 << 30  # of a dataset.json
MAX_MEMBER_BYTES = 1 << 30  # of one image's file: an uncompressed 16-bit picture of MAX_PIXELS still fits


def is_hidden(name: str) -> bool:
    """Of one component of a path."""
    return name[:1] == "." or name.lower() in SYSTEM_NAMES


def is_image_name(name: str) -> bool | None:
    """True or False by the extension; None where there is none, or an unknown one, and the first bytes decide."""
    dot = name.rfind(".")
    if dot > 0 and name[dot:] in USUAL and name[dot - 1] not in "./":
        return True  # as below, for all but a few names: those are asked about by the million
    extension = posixpath.splitext(name)[1].lower()
    return True if extension in IMAGE_EXTENSIONS else False if extension in KNOWN else None


def what_is_left_out(name: str) -> str:
    """Under what a file is counted that is no image by its name."""
    base, extension = posixpath.splitext(posixpath.basename(name).lower())
    if extension in ARCHIVE_EXTENSIONS:
        return NOT_READ
    if extension in OTHER_PICTURES:
        return PICTURES_NOT_READ
    if extension in LABEL_EXTENSIONS or extension in TABLE_EXTENSIONS:
        return LABELS_NOT_USED
    elsewhere = base + extension == DATASET_JSON and name != DATASET_JSON  # where it is not looked for
    if elsewhere or posixpath.splitext(base)[1] in LABEL_EXTENSIONS:  # as in a.cls.txt
        return LABELS_NOT_USED
    named = extension in (".json", ".txt", ".xml") and LABEL_NAMES.search(base if extension == ".json" else name)
    return LABELS_NOT_USED if named else NOT_IMAGES


def is_utf8(name: str) -> bool:
    """Whether a name from a file system or archive was decodable (rows are UTF-8)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    """A name as text, whatever its bytes are: those that are not UTF-8 as \\xe9, and each backslash doubled then."""
    if is_utf8(name):
        return name
    return name.replace("\\", "\\\\").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def key_of_member(name: str) -> str:
    """A member's name without leading "./" or "/" and doubled slashes: what a folder would call it.

    Nor does it end in null bytes, with which some writers fill a field up. Others are kept, so that no two are one.
    """
    return "/".join(part for part in name.rstrip("\0").split("/") if part not in ("", "."))


SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval)([-_ ]?set)?([-_ ]?\d{1,4})?", re.IGNORECASE
)


class Splits:
    """Notices first-level folders that are called like splits and have the same folders inside."""

    def __init__(self) -> None:
        self._inside: dict[str, set[str]] = {}

    def add(self, folder: str, inside: str) -> None:
        """A class folder, and the folder inside it in which an image lies, "" for none."""
        if SPLIT.fullmatch(folder):
            self._inside.setdefault(folder, set()).add(inside)

    def remark(self, classes: Iterable[str] | None) -> str | None:
        """What to say of these classes, if anything: a class may be called train among others."""
        splits = sorted(self._inside)
        alike = any(
            count > 1
            for name, count in Counter(one for found in self._inside.values() for one in found).items()
            if name
        )
        if not splits or not (alike or set(splits) == set(classes or ())):
            return None
        if len(splits) == 1:
            return f"the only class, {splits[0]}, looks like a split of a dataset, not like a class"
        return f"the classes {' and '.join(splits[:4])} look like splits of a dataset, not like classes"


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
        self._splits, self._wrapped_splits = Splits(), Splits()

    def add(self, key: str) -> None:
        parts = key.split("/", 3)
        if len(parts) > 1:
            self._first.add(parts[0])
            self._splits.add(parts[0], parts[1] if len(parts) > 2 else "")
        if len(parts) < 3:
            self._shallow = True
        elif len(self._first) == 1:
            self._second.add(parts[1])
            self._wrapped_splits.add(parts[1], parts[2] if len(parts) > 3 else "")

    @property
    def wrapped(self) -> bool:
        return len(self._first) == 1 and not self._shallow and len(self._second) > 1

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Sorted; None where no image lies in a folder."""
        return tuple(sorted(self._second if self.wrapped else self._first)) or None

    def warn(self, source: "Labelled") -> None:
        """Say which folders are the classes, where that is not plain."""
        if self.wrapped:
            source.warn("folders", f"all images lie in {min(self._first)}/: its subfolders are the classes")
        warn_of_splits(source, self._wrapped_splits if self.wrapped else self._splits, "Unpack it and give one of them")

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
    def warn(
        self, kind: Literal["unlabelled", "labels not used", "splits", "folders", "left out"], text: str
    ) -> None: ...


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


def warn_of_forms(source: Labelled) -> None:
    """Classes that look alike to people and are two: letters and accents together in one, apart in the other."""
    met: dict[str, str] = {}
    for name in source.classes or ():
        other = met.setdefault(composed(name), name)
        if other != name:
            text = (
                f"the classes {readable(other)!a} and {readable(name)!a} differ only in their Unicode form (NFC, NFD)"
            )
            source.warn("folders", text)
            return


def warn_of_splits(source: Labelled, splits: Splits, advice: str) -> bool:
    """Whether there was something to say."""
    warn_of_forms(source)
    remark = splits.remark(source.classes)
    if remark is not None:
        source.warn("splits", f"{remark}. {advice} where the folders inside are the classes")
    return remark is not None
