"""Pictures in tars, read in place.

Order: the tars in the order of the pattern (sorted, for a glob or a folder), members as they lie in them.

Labels: in WebDataset's layout a sample's members share their name up to the first dot of the file name, wherever they
lie in a tar; its label is the number or name in `.cls`, or "label" in `.json`. `classes.txt` beside the tars names the
classes, one a line; without it numbers are classes called by their numbers, and names are classes in sorted order.
Tars without any label take their classes from the folders inside, as a folder of pictures does (see `ArchiveFolders`),
or from their own names where all are WordNet numbers (ImageNet's class tars). Headers are read twice: which layout it
is, and which names there are, is known once all have been seen; where the first tar has numbers, that settles it.
"""

import re
from collections.abc import Iterator
from typing import IO

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut, no_images
from lvae.encode.files.patterns import base_of, is_pattern
from lvae.encode.sources.base import Notes
from lvae.encode.sources.label_values import name_numbers
from lvae.encode.sources.reading.tar_members import Member, is_image_member, open_tar, read_members
from lvae.encode.sources.side_files import SideFiles
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import raise_outage

MAX_CLASSES_BYTES = 64 << 20
CLASS_TAR = re.compile(r"n\d{8}\.tar")


class TarSource(Notes):
    """One tar or several; see the module. `classes` is final once `rows()` is through."""

    kind = "tar"

    def __init__(self, location: str, tars: list[str]):
        """The tars are named relative to the location's `base_of`."""
        super().__init__()
        self.location = locations.resolve(location)
        self._base = base_of(self.location)
        self._classes: tuple[str, ...] | None = None
        self._largest = UNLABELLED
        self._tars = tars
        self._single = not is_pattern(self.location) and not locations.is_folder(self.location)

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._classes if self._classes is not None else name_numbers(self._largest)

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        self._classes, self._largest, images = None, UNLABELLED, 0
        left_out = LeftOut(self.counts)
        for row in self._choose_rows(left_out):
            images += 1
            yield row
        if locations.is_folder(self.location):
            self.account_for_rest(self.location, [*self._tars, naming.CLASSES_TXT], left_out)
        if not images:
            raise no_images(self.location, self.counts, left_out.hint)
        left_out.warn(self)

    def _choose_rows(self, left_out: LeftOut) -> Iterator[ImageRow]:
        if not self.reads_labels:
            return self._rows_by_folder(None, left_out)
        self._classes = _read_classes(locations.join(self._base, naming.CLASSES_TXT))
        folders, side_files = naming.ArchiveFolders(), SideFiles(self._classes)
        by_sample = self._look(folders, side_files)
        if not by_sample:
            return self._rows_by_folder(folders, left_out, side_files)
        if not side_files.has_numbers:
            self._classes = side_files.settle()
        side_files.begin_again()
        return self._rows_by_sample(side_files, left_out)

    def _look(self, folders: naming.ArchiveFolders, side_files: SideFiles) -> bool:
        """Whether images have labels beside them: then those have been added, as far as needed to number them.

        Else `folders` has seen all images.
        """
        joined, nothing = 0, LeftOut({})
        for tar in self._tars:
            with self._open(tar) as file:
                labels, stems = side_files.of_tar(self._path(tar), file), set[int]()
                for member in read_members(self._path(tar), file, nothing):
                    if not labels.add(member) and is_image_member(member, file, nothing):
                        folders.add(member.key)
                        stems.update(map(hash, _stems(member.key)))
            joined += labels.join(stems)
            if side_files.has_numbers:
                break
        return joined > 0

    def _rows_by_folder(
        self, folders: naming.ArchiveFolders | None, left_out: LeftOut, side_files: SideFiles | None = None
    ) -> Iterator[ImageRow]:
        """Without `folders` all are unlabelled."""
        by_tar = folders is not None and folders.classes is None and all(map(CLASS_TAR.fullmatch, self._tars))
        if folders is not None:
            self._classes = tuple(sorted(map(_class_of_tar, self._tars))) if by_tar else folders.classes
            folders.warn(self)
        numbers = {name: number for number, name in enumerate(self._classes or ())}
        for tar in self._tars:
            with self._open(tar, self.seen) as file:
                for member in read_members(self._path(tar), file, left_out):
                    if is_image_member(member, file, left_out):
                        label = UNLABELLED if folders is None else folders.label(member.key)
                        yield self._row(tar, member, numbers[_class_of_tar(tar)] if by_tar else label)
        if side_files is not None:
            side_files.warn(self)
            naming.warn_of_unlabelled(self, "lie in no folder")

    def _rows_by_sample(self, side_files: SideFiles, left_out: LeftOut) -> Iterator[ImageRow]:
        for tar in self._tars:
            with self._open(tar, self.seen) as file:
                labels = side_files.of_tar(self._path(tar), file)
                members = read_members(self._path(tar), file, left_out)
                images = [one for one in members if not labels.add(one) and is_image_member(one, file, left_out)]
            for image in images:
                label = labels.number(_stems(image.key))
                self._largest = max(self._largest, label)
                yield self._row(tar, image, label)
        side_files.warn(self)
        naming.warn_of_unlabelled(self, "have no label in .cls or .json")

    def _row(self, tar: str, member: Member, label: int) -> ImageRow:
        naming.count_unlabelled(self.counts, label)
        key = member.key if len(self._tars) == 1 else f"{tar}/{member.key}"
        return ImageRow(key, tar, member.offset, member.length, naming.readable(member.name), label)

    def _path(self, tar: str) -> str:
        return self.location if self._single else locations.join(self._base, tar)

    def _open(self, tar: str, seen: locations.Seen | None = None) -> IO[bytes]:
        return open_tar(self._path(tar), tar, seen)


def _class_of_tar(tar: str) -> str:
    return tar.rpartition("/")[2].removesuffix(".tar")


def _stems(key: str) -> tuple[str, str]:
    """By which names an image finds its label: without its last extension, or WebDataset's, up to the first dot."""
    folder, slash, name = key.rpartition("/")
    return key.rpartition(".")[0] if "." in name else key, folder + slash + name.partition(".")[0]


def _read_classes(path: str) -> tuple[str, ...] | None:
    """The class names of a classes.txt, one a line; None where there is no such file."""
    try:
        lines = locations.read_up_to(path, MAX_CLASSES_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise LvaeError(path, "not UTF-8 text", "Save it as UTF-8.") from error
    except OSError as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read ({locations.explain(error)})") from error
    classes = tuple(line.strip() for line in lines)
    while classes and not classes[-1]:
        classes = classes[:-1]
    met: set[str] = set()
    for number, name in enumerate(classes, 1):
        if "\0" in name:
            raise LvaeError(path, f"line {number} holds a null byte", "Save the file as UTF-8.")
        if not name or name in met:
            raise LvaeError(path, f"line {number} is {('empty' if not name else f'{name!r} again')}")
        met.add(name)
    return classes or None
