"""ImageNet's ILSVRC2012_img_train.tar: a tar of tars, one a class; pictures are read in place inside both.

Classes are the inner tars by name, sorted. Rows and keys are called as if all were unpacked: the member
n01440764.tar/n01440764_10026.JPEG is n01440764/n01440764_10026.JPEG to people. Order: as they lie.
"""

import io
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut, no_images
from lvae.encode.sources.base import Notes
from lvae.encode.sources.reading.tar_members import Member, is_image_member, open_tar, read_members
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import ImageRow

BESIDE = "images beside the class tars"


class NestedTarSource(Notes):
    """See the module. Read by the reader of tars."""

    kind = "tar"

    def __init__(self, location: str):
        super().__init__()
        self.location = locations.resolve(location)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        images, left_out = 0, LeftOut(self.counts)
        container = locations.name_of(self.location)
        with open_tar(self.location, container, self.seen) as file:
            inner = self._inner(file, left_out)
            self.classes = tuple(sorted(map(class_of_tar, inner)))
            numbers = {name: number for number, name in enumerate(self.classes)}
            if len(numbers) < len(inner):
                raise LvaeError(self.location, "two of its tars are called alike, so that classes would be")
            for tar in inner:
                for member in self._images(tar, file, left_out):
                    images += 1
                    key = f"{class_of_tar(tar)}/{member.key}"
                    offset, name = tar.offset + member.offset, naming.readable(f"{tar.name}/{member.name}")
                    yield ImageRow(key, container, offset, member.length, name, numbers[class_of_tar(tar)])
        if not images:
            raise no_images(self.location, self.counts, left_out.hint)
        if beside := self.counts.get(BESIDE, 0):
            self.warn("left out", f"{counted(beside, 'image')} beside the class tars of {self.location}: left out")
        left_out.warn(self)

    def _inner(self, file: IO[bytes], left_out: LeftOut) -> list[Member]:
        inner = []
        for member in read_members(self.location, file, left_out):
            if is_tar_name(member.key):
                inner.append(member)
            elif is_image_member(member, file, left_out):
                self.count(BESIDE)
        return inner

    def _images(self, tar: Member, file: IO[bytes], left_out: LeftOut) -> Iterator[Member]:
        part = io.BufferedReader(Part(file, tar.offset, tar.length), tarfile.BLOCKSIZE)
        for member in read_members(f"{self.location}: {tar.name}", part, left_out):
            if is_image_member(member, part, left_out):
                yield member


def is_tar_name(key: str) -> bool:
    return key.lower().endswith(".tar")


def class_of_tar(tar: Member) -> str:
    return tar.key[: -len(".tar")].replace("/", "-")


def is_nested(path: str) -> bool:
    """Whether the first file of a tar is itself a tar, by name. What is damaged is not, and refused when it is read."""
    try:
        with open_tar(path, "", None) as file:
            first = next(read_members(path, file, LeftOut({})), None)
    except LvaeError:
        return False
    return first is not None and is_tar_name(first.key)


class Part(io.RawIOBase):
    """Some bytes of a file as a file of its own; the other is moved about."""

    def __init__(self, file: IO[bytes], offset: int, length: int):
        super().__init__()
        self._file, self._offset, self._length, self._position = file, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self._length - self._position))
        self._file.seek(self._offset + self._position)
        data = self._file.read(length)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
