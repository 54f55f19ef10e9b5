"""A folder of pictures, in folders by class or not; see `lvae.encode.sources.reading.walk` for the order and for links.

Classes: the first-level subfolders that hold an image, sorted; what lies deeper belongs to them. A `dataset.json` at
the top (NVIDIA's layout) takes their place. Without subfolders there are no classes.

A name that is not UTF-8 is written with its odd bytes as \\xe9; `member` then keeps it percent-encoded.
"""

import os
import urllib.parse
from collections.abc import Iterator

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut, no_images
from lvae.encode.images import ImageRejected
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import NamedLabels, parse_dataset_json
from lvae.encode.sources.reading.walk import walk
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import raise_outage


class FolderSource(Notes):
    """See the module. `classes` are known with the first row, so that a listing may end early."""

    kind = "folder"

    def __init__(self, folder: str):
        super().__init__()
        self.location = locations.resolve(folder)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        self.classes, images, left_out = None, 0, LeftOut(self.counts)
        self._odd_names, self._odd_name = 0, ""
        for row in self._choose_rows(left_out):
            images += 1
            yield row
        if not images:
            raise no_images(self.location, self.counts, left_out.hint)
        left_out.warn(self, files_beside=True)
        if self._odd_names:
            names = counted(self._odd_names, "name")
            self.warn("names", f"{names} not UTF-8: written with \\x, {self._odd_name} for one")

    def _choose_rows(self, left_out: LeftOut) -> Iterator[ImageRow]:
        where = locations.join(self.location, naming.DATASET_JSON)
        text = _read_if_there(where) if self.reads_labels else None
        labels = None if text is None else parse_dataset_json(text, where)
        if labels is not None:
            return self._rows_by_list(NamedLabels(labels, where), left_out)
        return self._rows_by_folder(self.reads_labels and text is None, left_out)

    def _rows_by_folder(self, by_class: bool, left_out: LeftOut) -> Iterator[ImageRow]:
        folders = tuple(walk(self.location, LeftOut({})).class_folders()) if by_class else ()
        self.classes = tuple(map(naming.readable, folders)) or None
        numbers = {f"{name}/": number for number, name in enumerate(folders)}
        splits, inside = naming.Splits(), set[str]()
        folder, label, look_inside = "", UNLABELLED, False
        for key, length, stamp in walk(self.location, left_out):
            self.seen.add(key, length, stamp)
            if not (folder and key.startswith(folder)):
                folder = key[: key.find("/") + 1]
                label = numbers.get(folder, UNLABELLED)
                look_inside = len(folders) == 1 or naming.SPLIT.fullmatch(folder[:-1]) is not None
            if look_inside and label != UNLABELLED:
                below = key[len(folder) :]
                splits.add(folder[:-1], below[: max(below.find("/"), 0)])
                inside.add(below[: max(below.find("/"), 0)])
            yield self._row(key, length, label)
        naming.warn_of_unlabelled(self, f"lie beside the class folders of {self.location}")
        first = locations.join(self.location, min(folders, default=""))
        told = naming.warn_of_splits(self, splits, f"Give one of them, such as {first},")
        if not told and len(folders) == 1 and len(inside) > 1 and "" not in inside:
            self.warn("folders", f"all images lie in {first}, the only class. Give it where the classes lie in it")

    def _rows_by_list(self, labels: NamedLabels, left_out: LeftOut) -> Iterator[ImageRow]:
        self.classes = labels.classes
        for key, length, stamp in walk(self.location, left_out):
            self.seen.add(key, length, stamp)
            yield self._row(key, length, labels.label(key))
        labels.finish(key for key, _, _ in walk(self.location, LeftOut({})))
        naming.warn_of_unlabelled(self, f"are not in {naming.DATASET_JSON}")

    def _row(self, key: str, length: int, label: int) -> ImageRow:
        if label == UNLABELLED:
            naming.count_unlabelled(self.counts, label)
        if key.isascii() or naming.is_utf8(key):
            return ImageRow(key, "", 0, length, "", label)
        self._odd_names, self._odd_name = self._odd_names + 1, self._odd_name or naming.readable(key)
        return ImageRow(naming.readable(key), "", 0, length, urllib.parse.quote(os.fsencode(key)), label)


class FolderReader:
    """Reads the files that a FolderSource listed."""

    def __init__(self, location: str):
        self.location = location

    def read(self, row: ImageRow) -> bytes:
        if row.length > naming.MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {naming.MAX_MEMBER_BYTES >> 20} MiB")
        if locations.is_url(self.location):
            data = locations.read_range(locations.join(self.location, row.key), 0, row.length + 1)
        else:
            name = os.fsdecode(urllib.parse.unquote_to_bytes(row.member)) if row.member else row.key
            with open(f"{self.location}/{name}", "rb") as file:
                data = file.read(row.length + 1)
        if len(data) != row.length:
            raise LvaeError(row.key, "not as long as when it was listed", "Scan the source again into a new folder.")
        return data

    def close(self) -> None:
        """Nothing is kept open."""


def _read_if_there(location: str) -> bytes | None:
    try:
        return locations.read_up_to(location, naming.MAX_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be read ({locations.explain(error)})") from error
