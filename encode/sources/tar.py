"""Pictures in tars, read in place.

Order: the tars in the order of the pattern (sorted, for a glob or a folder), members as they lie in them. A tar is
read forwards, a header at a time; what cannot be understood is an error that names file and offset, so that a
damaged or truncated tar never turns into a smaller dataset.

Labels: in WebDataset's layout a sample's members share their name up to the first dot of the file name, and lie next
to each other; its label is the number in `.cls`, or "label" in `.json`. `classes.txt` beside the tars names the
classes, one a line; without it they are called by their numbers. Tars without any label take their classes from the
folders inside, as a folder of pictures does (see `ArchiveFolders`), or from their own names where all are WordNet
numbers (ImageNet's class tars); their headers are then read twice.
"""

import itertools
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from lvae.encode.files import locations as places
from lvae.encode.files.patterns import base_of, is_pattern
from lvae.encode.images import is_image
from lvae.encode.sources import naming as names
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import checked_label, numbered_classes, parse_json
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

BLOCK = tarfile.BLOCKSIZE
MAX_LABEL_BYTES = 1 << 20  # of a .cls or .json
MAX_CLASSES_BYTES = 64 << 20
READ_AHEAD = 8 << 20  # of a tar behind a URL
CLASS_TAR = re.compile(r"n\d{8}\.tar")
JSON_PEEK = 1000  # .json members looked into before tars count as unlabelled
LARGEST_SAMPLE = 4096  # members of one name that are held at a time

DAMAGE = (tarfile.TarError, ValueError, OverflowError, MemoryError, EOFError, RecursionError, IndexError, KeyError)
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name there, its name to people, and where its bytes lie."""

    name: str
    key: str
    offset: int
    length: int


class TarSource(Notes):
    """One tar or several; see the module. `classes` is final once `rows()` is through."""

    kind = "tar"

    def __init__(self, location: str, tars: list[str]):
        """The tars are named relative to the location's `base_of`."""
        super().__init__()
        self.location = places.resolved(location)
        self._base = base_of(self.location)
        self._classes: tuple[str, ...] | None = None
        self._largest = UNLABELLED
        self._tars = tars
        self._single = not is_pattern(self.location) and not places.is_folder(self.location)

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._classes if self._classes is not None else numbered_classes(self._largest)

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        images = 0
        folders = self._folders()
        for row in self._rows_by_sample() if folders is None else self._rows_by_folder(folders):
            images += 1
            yield row
        if not images:
            raise names.no_images(self.location, self.counts)

    def _folders(self) -> names.ArchiveFolders | None:
        """Which folders the tars hold; None as soon as a label is met, which decides for WebDataset's layout."""
        folders = names.ArchiveFolders()
        peeks = JSON_PEEK
        for tar in self._tars:
            with self._opened(tar) as file:
                for member in self._members(tar, file, {}):
                    if member.key.endswith(".cls"):
                        return None
                    if member.key.endswith(".json") and peeks:
                        peeks -= 1
                        if self._is_labelled_json(member, tar, file):
                            return None
                    if is_image_member(member, file, {}):
                        folders.add(member.key)
        return folders

    def _rows_by_folder(self, folders: names.ArchiveFolders) -> Iterator[ImageRow]:
        by_tar = folders.classes is None and all(map(CLASS_TAR.fullmatch, self._tars))
        self._classes = tuple(sorted(map(_class_of, self._tars))) if by_tar else folders.classes
        numbers = {name: number for number, name in enumerate(self._classes or ())}
        for remark in folders.remarks:
            self.warn("folders", remark)
        for tar in self._tars:
            with self._opened(tar, self.seen) as file:
                for member in self._members(tar, file, self.counts):
                    if is_image_member(member, file, self.counts):
                        label = numbers[_class_of(tar)] if by_tar else folders.label(member.key)
                        yield self._row(tar, member, label)
        names.warn_of_unlabelled(self, "lie in no folder")

    def _rows_by_sample(self) -> Iterator[ImageRow]:
        listed = self._classes = _read_classes(places.join(self._base, names.CLASSES_TXT))
        for tar in self._tars:
            with self._opened(tar, self.seen) as file:
                for sample in _samples(self._members(tar, file, self.counts)):
                    others = [member for member in sample if not member.key.endswith((".cls", ".json"))]
                    images = [member for member in others if is_image_member(member, file, self.counts)]
                    labels = self._labels(sample, tar, file, listed) if images else {}
                    for image in images:
                        stem = image.key.rpartition(".")[0]
                        label = labels.get(stem, labels.get(_sample_name(image), UNLABELLED))
                        self._largest = max(self._largest, label)
                        yield self._row(tar, image, label)
        names.warn_of_unlabelled(self, "have no label in .cls or .json")

    def _labels(
        self, sample: list[Member], tar: str, file: IO[bytes], classes: tuple[str, ...] | None
    ) -> dict[str, int]:
        """The labels among a sample's members, by the member's name without its last extension; .cls before .json."""
        labels: dict[str, int] = {}
        for member in sample:
            stem, _, extension = member.key.rpartition(".")
            where = f"{self._path(tar)}: {member.name}"
            if extension == "cls":
                text = _read_label(member, file, where).strip()
                number = int(text) if text.isdigit() and len(text) < 10 else text.decode(errors="replace")
                labels[stem] = checked_label(number, where, classes)
            elif extension == "json" and stem not in labels:
                found = self._label_in_json(member, tar, file)
                if found is not None:
                    labels[stem] = checked_label(found, where, classes)
        return labels

    def _label_in_json(self, member: Member, tar: str, file: IO[bytes]) -> object:
        where = f"{self._path(tar)}: {member.name}"
        found = parse_json(_read_label(member, file, where), where)
        return found.get("label") if isinstance(found, dict) else None

    def _is_labelled_json(self, member: Member, tar: str, file: IO[bytes]) -> bool:
        """Lenient, since a .json may be anything before the layout is known."""
        try:
            return member.length <= MAX_LABEL_BYTES and self._label_in_json(member, tar, file) is not None
        except LvaeError:
            return False

    def _members(self, tar: str, file: IO[bytes], counts: dict[str, int]) -> Iterator[Member]:
        return members(self._path(tar), file, counts)

    def _row(self, tar: str, member: Member, label: int) -> ImageRow:
        names.count_unlabelled(self.counts, label)
        key = member.key if len(self._tars) == 1 else f"{tar}/{member.key}"
        return ImageRow(key, tar, member.offset, member.length, member.name, label)

    def _path(self, tar: str) -> str:
        return self.location if self._single else places.join(self._base, tar)

    def _opened(self, tar: str, seen: places.Seen | None = None) -> IO[bytes]:
        return opened(self._path(tar), tar, seen)


def opened(path: str, name: str, seen: places.Seen | None) -> IO[bytes]:
    """A tar to read forwards. One behind a URL is read right through: a request for each header would take longer."""
    try:
        if seen is not None:
            found = places.status(path)
            seen.add(name, found.size, found.stamp)
        return places.open_file(path, READ_AHEAD)
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({places.why(error)})") from error


def members(path: str, file: IO[bytes], counts: dict[str, int]) -> Iterator[Member]:
    """The regular files of a tar; the rest is counted. Raises LvaeError for what is not a whole tar."""
    seen: set[int] = set()  # hashes, since a tar may hold millions of names
    for found in _headers(path, file):
        key = names.key_of_member(found.name)
        odd = _why_not(found, key)
        if odd is not None:
            counts[odd] = counts.get(odd, 0) + 1
        elif not found.isdir():
            if hash(key) in seen:
                raise LvaeError(path, f"{key!r} stands twice, again at byte {found.offset}", "Names must be unique.")
            seen.add(hash(key))
            yield Member(found.name, key, found.offset_data, found.size)


def _class_of(tar: str) -> str:
    return tar.rpartition("/")[2].removesuffix(".tar")


def refuse_compressed(path: str, first_bytes: bytes) -> None:
    """Bytes inside a compressed tar cannot be read in place."""
    for magic, command in COMPRESSED.items():
        if first_bytes.startswith(magic):
            raise LvaeError(
                path,
                "is compressed, and images are read in place",
                f"Run '{command}' on it, or unpack it to a folder.",
            )


def _headers(path: str, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Every header of a tar, in order, checked to leave no gap up to the closing block."""
    size = places.size_of(file)
    refuse_compressed(path, file.read(6))
    file.seek(0)
    offset = 0
    try:
        archive = tarfile.open(  # noqa: SIM115  the file is the caller's
            fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape"
        )
        while (header := archive.next()) is not None:
            if header.size < 0 or archive.offset <= offset or header.offset_data < 0:
                raise LvaeError(path, f"damaged at byte {offset} (a size that makes no sense)")
            if header.isreg() and not header.issparse() and header.offset_data + header.size > size:
                raise LvaeError(path, f"truncated: {header.name!r} at byte {offset} goes on after the end of the file")
            offset = archive.offset
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            yield header
        _check_end(path, file, offset)
    except DAMAGE as error:
        raise LvaeError(path, f"damaged or truncated at byte {offset} ({error})") from error
    except OSError as error:
        raise LvaeError(path, f"cannot be read at byte {offset} ({places.why(error)})") from error


def _check_end(path: str, file: IO[bytes], offset: int) -> None:
    """tarfile takes any block that it does not understand for the end. The end is zeros, and nothing follows."""
    file.seek(offset)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise LvaeError(path, f"truncated at byte {offset}: the closing block is missing")
    if any(block):
        raise LvaeError(path, f"damaged at byte {offset}: neither a member nor the closing block")
    while block := file.read(1 << 16):
        if any(block):
            raise LvaeError(path, f"goes on after its end at byte {offset}; were several tars joined by cat?")


def _why_not(found: tarfile.TarInfo, key: str) -> str | None:
    """Under what a member is counted that is no row; None for regular files and folders."""
    if found.isdir():
        return None
    if any(map(names.is_hidden, key.split("/"))):
        return names.HIDDEN
    if found.issym() or found.islnk():
        return names.LINKS
    if not found.isreg() or found.issparse():
        return names.SPECIAL
    return None if key and names.is_utf8(found.name) else names.BAD_NAMES


def is_image_member(member: Member, file: IO[bytes], counts: dict[str, int]) -> bool:
    by_name = names.is_image_name(member.key)
    if by_name is None:
        file.seek(member.offset)
        by_name = is_image(file.read(min(member.length, names.MAGIC_BYTES)))
    if not by_name:
        counts[names.NOT_IMAGES] = counts.get(names.NOT_IMAGES, 0) + 1
    return by_name


def _sample_name(member: Member) -> str:
    """WebDataset's key: up to the first dot of the file name."""
    folder, slash, name = member.key.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _samples(members: Iterator[Member]) -> Iterator[list[Member]]:
    for _, same_name in itertools.groupby(members, _sample_name):
        while sample := list(itertools.islice(same_name, LARGEST_SAMPLE)):
            yield sample


def _read_label(member: Member, file: IO[bytes], where: str) -> bytes:
    if member.length > MAX_LABEL_BYTES:
        raise LvaeError(where, f"{member.length} bytes are too many for a label")
    file.seek(member.offset)
    return file.read(member.length)


def _read_classes(path: str) -> tuple[str, ...] | None:
    """The class names of a classes.txt, one a line; None where there is no such file."""
    try:
        lines = places.read_up_to(path, MAX_CLASSES_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise LvaeError(path, "not UTF-8 text") from error
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({places.why(error)})") from error
    classes = tuple(line.strip() for line in lines)
    while classes and not classes[-1]:
        classes = classes[:-1]
    met: set[str] = set()
    for number, name in enumerate(classes, 1):
        if not name or name in met:
            raise LvaeError(path, f"line {number} is {('empty' if not name else f'{name!r} again')}")
        met.add(name)
    return classes or None
