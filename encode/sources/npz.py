"""Pictures in numpy arrays: .npy, or `arr_0` or `images` of an .npz, uint8 (N, H, W, 3), (N, H, W, 1) or (N, H, W).

Labels are `arr_1` or `labels` of the .npz: N whole numbers (of any type, NaN for none) or names; a .npy has none. Keys
are the pictures' numbers. Pictures are handed out as PNM files, which lose nothing. Arrays in a .npy, or stored in an
.npz (numpy.savez), are read in place. A compressed one (numpy.savez_compressed) can only be inflated from its start:
every worker does so about once, holding 64 MiB of it at a time.
"""

import math
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from tokenize import TokenError
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import no_images
from lvae.encode.files.locations import Watched
from lvae.encode.images import MAX_PIXELS, ImageRejected
from lvae.encode.sources.base import Notes
from lvae.encode.sources.label_values import ClassNumbers, label_at
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.reading.sequential import Forwards
from lvae.encode.sources.zip import DAMAGE, data_offset, open_archive
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import raise_outage

IMAGES = ("arr_0", "images")
LABELS = ("arr_1", "labels")
CHUNK = 1 << 20


class Array(NamedTuple):
    """offset: of the first number, from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def items(self) -> int:
        return math.prod(self.shape)


class Pictures(NamedTuple):
    """An array of pictures: its member in the .npz ("" in a .npy), and where its numbers lie, or -1 (compressed)."""

    member: str
    images: int
    height: int
    width: int
    channels: int
    offset: int

    @property
    def header(self) -> bytes:
        return b"P%d\n%d %d\n255\n" % (6 if self.channels == 3 else 5, self.width, self.height)

    @property
    def bytes(self) -> int:
        """Of one picture, without a header."""
        return self.height * self.width * self.channels


class NpzSource(Notes):
    """See the module."""

    def __init__(self, location: str):
        super().__init__()
        self.location = locations.resolve(location)
        self.kind = kind_of(self.location)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        container = locations.name_of(self.location)
        try:
            found = locations.status(self.location)
            self.seen.add(container, found.size, found.stamp)
            with locations.Watched(locations.open_file(self.location)) as file:
                pictures = look(file, self.location)
                has_labels = self.reads_labels and self.kind == "npz"
                labels = _read_labels(file, self.location, pictures.images) if has_labels else None
                others = _other_arrays(file, self.location, pictures.member) if has_labels and labels is None else []
        except OSError as error:
            raise_outage(error)
            raise LvaeError(self.location, f"cannot be read ({locations.explain(error)})") from error
        if not pictures.images:
            raise no_images(self.location, self.counts)
        if pictures.offset < 0:
            self.warn(
                "slow",
                f"{container} is compressed: every worker inflates it from the start. numpy.savez is read in place",
            )
        numbers = ClassNumbers()
        found_labels = [] if labels is None else [label_at(one, self.location) for one in labels.tolist()]
        for one in found_labels:
            numbers.add(one, f"{self.location}: labels")
        self.classes = numbers.settle()
        length = len(pictures.header) + pictures.bytes
        for index in range(pictures.images):
            label = numbers.number(found_labels[index]) if found_labels else UNLABELLED
            naming.count_unlabelled(self.counts, label)
            yield ImageRow(f"{index:06}", container, -1, length, str(index), label)
        naming.warn_of_unlabelled(self, f"have label -1 in {container}")
        if others:
            text = f"{container} has no {' or '.join(LABELS)}, but {', '.join(others):.100}, which may hold labels"
            self.warn("labels not used", f"{text}: call it labels, or give --labels FILE")


class NpzReader:
    """Reads what an NpzSource listed. The array is looked up once a process."""

    def __init__(self, location: str):
        self.location = locations.resolve(location)
        self._containers = Containers("", self.location)
        self._stream = Forwards(self._inflate)
        self._lock = threading.Lock()
        self._pictures: Pictures | None = None

    def __reduce__(self) -> tuple[type["NpzReader"], tuple[str]]:
        return type(self), (self.location,)

    def read(self, row: ImageRow) -> bytes:
        with self._lock:
            if self._pictures is None:
                with locations.Watched(locations.open_file(self.location)) as file:
                    self._pictures = look(file, self.location)
            pictures = self._pictures
        index, length = int(row.member), len(pictures.header) + pictures.bytes
        if not 0 <= index < pictures.images or row.length != length:
            raise LvaeError(self.location, "not as it was when it was listed", "Scan the source again.")
        if pictures.offset >= 0:
            offset = pictures.offset + index * pictures.bytes
            return pictures.header + self._containers.read_at(row.container, offset, pictures.bytes)
        try:
            return pictures.header + (self._stream.read(pictures, index) or b"")
        except (*DAMAGE, RuntimeError) as error:  # IndexError: it ends too early
            raise ImageRejected("damaged in its .npz") from error

    def close(self) -> None:
        self._containers.close()
        self._stream.close()

    def _inflate(self, pictures: Pictures) -> Iterator[bytes]:
        with (
            locations.Watched(locations.open_file(self.location)) as file,
            open_archive(file, self.location) as archive,
            archive.open(pictures.member) as member,
        ):
            read_header(member, f"{self.location}: {pictures.member}")
            for _ in range(pictures.images):
                yield _read_exactly(member, pictures.bytes)


def kind_of(location: str) -> str:
    return "npy" if locations.first_bytes(location, len(MAGIC)) == MAGIC else "npz"


def look(file: locations.Watched, location: str) -> Pictures:
    """Where the pictures of an open file are, with everything checked that headers claim. Raises LvaeError."""
    size = locations.size_of(file)
    file.seek(0)
    if file.read(len(MAGIC)) == MAGIC:
        file.seek(0)
        array = read_header(file, location)
        return _describe_pictures(array, "", size, array.offset, location)
    try:
        with open_archive(file, location) as archive:
            info = _member(archive, IMAGES, location)
            where = f"{location}: {info.filename}"
            with archive.open(info) as member:
                array = read_header(member, where)
            with closing(Containers("", location)) as containers:
                offset = data_offset(containers, info, size, location)
            return _describe_pictures(
                array, info.filename, info.file_size, -1 if offset < 0 else offset + array.offset, where
            )
    except (*DAMAGE, RuntimeError, MemoryError) as error:
        raise LvaeError(location, f"not a whole .npz ({error})") from error


def _member(archive: zipfile.ZipFile, wanted: tuple[str, ...], location: str) -> zipfile.ZipInfo:
    infos = {info.filename: info for info in archive.infolist()}
    found = [infos[f"{name}.npy"] for name in wanted if f"{name}.npy" in infos]
    if not found:
        inside = ", ".join(sorted(repr(name.removesuffix(".npy")) for name in infos))
        raise LvaeError(location, f"has no {' or '.join(wanted)}, but {inside or 'nothing':.200}")
    if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise LvaeError(location, f"{found[0].filename} is neither stored nor deflated", "Save it with numpy.savez.")
    return found[0]


def _describe_pictures(array: Array, member: str, file_bytes: int, offset: int, where: str) -> Pictures:
    shape, shown = array.shape, "x".join(map(str, array.shape))
    if array.dtype not in ("|u1", "u1", "<u1", ">u1", "=u1"):
        raise LvaeError(where, f"holds {array.dtype!r:.40}", "Pictures are uint8, 0 to 255: numpy's '|u1'.")
    if len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3):
        raise LvaeError(where, f"of shape {shown}, channels first", "Save images.transpose(0, 2, 3, 1) instead.")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise LvaeError(where, f"of shape {shown:.100}", "Pictures are (N, H, W, 3), (N, H, W, 1) or (N, H, W).")
    count, height, width = shape[:3]
    if not 0 < height * width <= MAX_PIXELS:
        raise LvaeError(where, f"of shape {shown:.100}", f"Pictures have 1 to {MAX_PIXELS} pixels.")
    if file_bytes != array.offset + array.items:
        raise LvaeError(where, f"damaged: {file_bytes} bytes, but its header promises {array.offset + array.items}")
    return Pictures(member, count, height, width, shape[3] if len(shape) == 4 else 1, offset)


def _read_labels(file: locations.Watched, location: str, count: int) -> NDArray[np.generic] | None:
    """The labels beside the pictures of an .npz; None where there are none."""
    file.seek(0)
    try:
        with open_archive(file, location) as archive:
            if not any(f"{name}.npy" in archive.namelist() for name in LABELS):
                return None
            info = _member(archive, LABELS, location)
            where = f"{location}: {info.filename}"
            with archive.open(info) as member:
                array = read_header(member, where)
                if LABEL.fullmatch(array.dtype) is None or array.shape not in ((count,), (count, 1)):
                    shown = "x".join(map(str, array.shape))
                    raise LvaeError(
                        where, f"{array.dtype!r:.40} of shape {shown:.60}, not {count} labels", "Give --labels FILE."
                    )
                dtype = np.dtype(array.dtype)
                return np.frombuffer(_read_exactly(member, count * dtype.itemsize), dtype)
    except (*DAMAGE, RuntimeError, MemoryError) as error:
        raise LvaeError(location, f"not a whole .npz ({error})") from error


def _other_arrays(file: locations.Watched, location: str, pictures: str) -> list[str]:
    """The names of what else is in an .npz."""
    file.seek(0)
    with open_archive(file, location) as archive:
        return [naming.readable(name.removesuffix(".npy")) for name in archive.namelist() if name != pictures]


def _read_exactly(file: IO[bytes], count: int) -> bytes:
    """So many bytes of a stream, however many its directory promised. Raises EOFError where it ends before."""
    data = bytearray()
    while len(data) < count:
        piece = file.read(min(CHUNK, count - len(data)))
        if not piece:
            raise EOFError("it ends too early")
        data += piece
    return bytes(data)


MAGIC = b"\x93NUMPY"


MAX_HEADER_BYTES = 4096


LABEL = re.compile(r"[<>|=]?([iu][1248]|f[248]|b1|[US][1-9]\d{0,2})")


BROKEN = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError, TokenError, Warning)
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_header(file: IO[bytes] | Watched, where: str) -> Array:
    """From the file's position, which is its start. Nothing is unpickled, nor memory taken for what it promises."""
    try:
        version = npy.read_magic(file)
    except ValueError as error:
        raise LvaeError(where, "not a .npy file") from error
    if version not in READERS:
        raise LvaeError(where, f"a .npy file of version {version[0]}, which no array of numbers needs")
    try:
        shape, fortran, dtype = READERS[version](file, max_header_size=MAX_HEADER_BYTES)
    except BROKEN as error:
        raise LvaeError(where, "its header is damaged, or too long for an array of numbers") from error
    if not all(type(side) is int and side >= 0 for side in shape):
        raise LvaeError(where, "its header is damaged")
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise LvaeError(where, "holds objects or records, not an array of numbers; nothing is unpickled")
    if fortran and len(shape) > 1:
        raise LvaeError(where, "lies in Fortran's order", "Save numpy.ascontiguousarray(array) instead.")
    return Array(dtype.str, shape, file.tell())
