"""A folder of pictures, in folders by class or not.

Order: depth first, the entries of a folder by name (by Unicode code point, whatever the locale).

Classes: the first-level subfolders that hold an image, sorted; what lies deeper belongs to them. A `dataset.json` at
the top (NVIDIA's layout) takes their place. Without subfolders there are no classes.

A folder behind a URL is walked alike; it has no links. A web server lists no sizes, so that it is asked for each.

Symbolic links are followed once. A link to something that is listed anyway is not followed, nor is a second link to
the same place; both are counted. So loops end.
"""

import itertools
import os
import stat
from collections.abc import Iterator

from lvae.encode.files import locations as places
from lvae.encode.files.remote import Entry
from lvae.encode.images import ImageRejected, is_image
from lvae.encode.sources import naming as names
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import NamedLabels, parse_dataset_json
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

Found = tuple[str, int, str | int]  # key, length in bytes, what changes when the file does


class FolderSource(Notes):
    """See the module. `classes` are known with the first row, so that a listing may end early."""

    kind = "folder"

    def __init__(self, folder: str):
        super().__init__()
        self.location = places.resolved(folder)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        where = places.join(self.location, names.DATASET_JSON)
        text = _read_if_there(where)
        labels = None if text is None else parse_dataset_json(text, where)
        images = 0
        if labels is not None:
            for row in self._rows_by_list(NamedLabels(labels, where)):
                images += 1
                yield row
        else:
            for row in self._rows_by_folder(by_class=text is None):
                images += 1
                yield row
        if not images:
            raise names.no_images(self.location, self.counts)

    def _rows_by_folder(self, by_class: bool) -> Iterator[ImageRow]:
        self.classes = (tuple(walk(self.location, {}).class_folders()) or None) if by_class else None
        numbers = {f"{name}/": number for number, name in enumerate(self.classes or ())}
        folder, label = "", UNLABELLED
        for key, length, stamp in walk(self.location, self.counts):
            self.seen.add(key, length, stamp)
            if not (folder and key.startswith(folder)):
                folder = key[: key.find("/") + 1]
                label = numbers.get(folder, UNLABELLED)
            yield self._row(key, length, label)
        names.warn_of_unlabelled(self, f"lie beside the class folders of {self.location}")

    def _rows_by_list(self, labels: NamedLabels) -> Iterator[ImageRow]:
        self.classes = labels.classes
        for key, length, stamp in walk(self.location, self.counts):
            self.seen.add(key, length, stamp)
            yield self._row(key, length, labels.label(key))
        labels.finish(key for key, _, _ in walk(self.location, {}))
        names.warn_of_unlabelled(self, f"are not in {names.DATASET_JSON}")

    def _row(self, key: str, length: int, label: int) -> ImageRow:
        if label == UNLABELLED:
            names.count_unlabelled(self.counts, label)
        return ImageRow(key, "", 0, length, "", label)


def walk(folder: str, counts: dict[str, int]) -> "Walk | RemoteWalk":
    """Iterates over a folder's images, in order, counting what else is there."""
    return RemoteWalk(folder, counts) if places.is_url(folder) else Walk(folder, counts)


class Walk:
    """Iterates over (key, length in bytes, time of change) of a local folder's images."""

    def __init__(self, root: str, counts: dict[str, int]):
        self._root, self._counts = root, counts
        self._real_root = os.path.realpath(root)
        self._linked: set[tuple[int, int]] = set()  # what symbolic links have led to

    def __iter__(self) -> Iterator[Found]:
        return self._folder(self._root, "", linked=False)

    def class_folders(self) -> Iterator[str]:
        """The first-level folders that hold an image, however deep, in order. Each is left at its first image."""
        for name, linked in _folders_in(self._root):
            path = f"{self._root}/{name}"
            if names.is_hidden(name) or not names.is_utf8(name) or not os.path.isdir(path):  # noqa: PTH112
                continue
            if linked and not self._is_new(path, os.stat(path)):  # noqa: PTH116
                continue
            if (not linked and _begins_with_an_image(path)) or next(self._folder(path, "", linked), None) is not None:
                yield name

    def _folder(self, folder: str, prefix: str, linked: bool) -> Iterator[Found]:
        with _Folder(folder) as opened:
            for name in sorted(opened.names):
                kind = opened.names[name]
                if names.is_hidden(name):
                    self._count(names.HIDDEN)
                elif not names.is_utf8(name):
                    self._count(names.BAD_NAMES)
                elif kind == FILE and not linked:
                    if _is_image_file(folder, name):
                        status = opened.status(name)
                        yield prefix + name, status.st_size, status.st_mtime_ns
                    else:
                        self._count(names.NOT_IMAGES)
                elif kind == FOLDER and not linked:
                    yield from self._folder(f"{folder}/{name}", f"{prefix}{name}/", linked)
                else:
                    yield from self._looked_at(opened, name, prefix, kind == LINK)

    def _looked_at(self, opened: "_Folder", name: str, prefix: str, is_link: bool) -> Iterator[Found]:
        """What is a link, lies behind one, or is no usual file."""
        path = f"{opened.path}/{name}"
        try:
            status = os.stat(path)  # noqa: PTH116  a Path for each of a million files is slow, and interns its name
        except OSError as error:
            if not is_link:
                raise LvaeError(path, f"cannot be looked at ({error.strerror})") from error
            self._count(names.BROKEN_LINKS)  # nothing there, no permission on the way, or a link to itself
            return
        if stat.S_ISDIR(status.st_mode):
            if self._is_new(path, status):
                yield from self._folder(path, f"{prefix}{name}/", linked=True)
        elif not stat.S_ISREG(status.st_mode):
            self._count(names.SPECIAL)
        elif not _is_image_file(opened.path, name):
            self._count(names.NOT_IMAGES)
        elif self._is_new(path, status):
            yield prefix + name, status.st_size, status.st_mtime_ns

    def _is_new(self, path: str, status: os.stat_result) -> bool:
        """Whether a link, or what lies behind one, is the first way to a file or folder."""
        identity = (status.st_dev, status.st_ino)
        if identity in self._linked or self._is_listed_anyway(path, status):
            self._count(names.MET_TWICE)
            return False
        self._linked.add(identity)
        return True

    def _is_listed_anyway(self, path: str, status: os.stat_result) -> bool:
        target, root = os.path.realpath(path), self._real_root.rstrip("/")
        if f"{root}/".startswith(target.rstrip("/") + "/"):
            return True  # the source itself, or a folder around it: following it would go round in circles
        if not target.startswith(root + "/"):
            return False
        inside = target[len(root) + 1 :].split("/")
        if any(map(names.is_hidden, inside)):
            return False
        return stat.S_ISDIR(status.st_mode) or _is_image_file(os.path.dirname(target), inside[-1])  # noqa: PTH120

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1


class FolderReader:
    """Reads the files that a FolderSource listed."""

    def __init__(self, location: str):
        self.location = location

    def read(self, row: ImageRow) -> bytes:
        if row.length > names.MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {names.MAX_MEMBER_BYTES >> 20} MiB")
        if places.is_url(self.location):
            data = places.read_range(places.join(self.location, row.key), 0, row.length + 1)
        else:
            with open(f"{self.location}/{row.key}", "rb") as file:
                data = file.read(row.length + 1)
        if len(data) != row.length:
            raise LvaeError(row.key, "not as long as when it was listed", "Scan the source again into a new folder.")
        return data

    def close(self) -> None:
        """Nothing is kept open."""


class RemoteWalk:
    """Iterates over (key, length in bytes, ETag or time of change) of the images in a URL's folder."""

    def __init__(self, root: str, counts: dict[str, int]):
        self._root, self._counts = root, counts

    def __iter__(self) -> Iterator[Found]:
        return self._folder(self._root, "")

    def class_folders(self) -> Iterator[str]:
        """As of Walk."""
        for entry in self._entries(self._root):
            if entry.status.is_folder and not names.is_hidden(entry.name) and names.is_utf8(entry.name):
                below = RemoteWalk(places.join(self._root, f"{entry.name}/"), {})
                if next(iter(below), None) is not None:
                    yield entry.name

    def _folder(self, folder: str, prefix: str) -> Iterator[Found]:
        def looked_at(entry: Entry) -> Entry:
            """With its size, where the listing had none; asked for several at a time."""
            if entry.status.is_folder or entry.status.size is not None or names.is_hidden(entry.name):
                return entry
            if names.is_image_name(entry.name) is False:
                return entry
            return Entry(entry.name, places.status(places.join(folder, entry.name)))

        listing = self._entries(folder)
        sizes_known = all(entry.status.size is not None for entry in listing if not entry.status.is_folder)
        for entry in listing if sizes_known else concurrently(looked_at, listing):
            location = places.join(folder, entry.name)
            if names.is_hidden(entry.name) or not names.is_utf8(entry.name):
                self._count(names.HIDDEN if names.is_hidden(entry.name) else names.BAD_NAMES)
            elif entry.status.is_folder:
                yield from self._folder(f"{location}/", f"{prefix}{entry.name}/")
            elif not _is_image_behind_url(location, entry.name):
                self._count(names.NOT_IMAGES)
            elif entry.status.size is None:
                raise LvaeError(location, "the server does not tell its size")
            else:
                yield prefix + entry.name, entry.status.size, entry.status.stamp

    def _entries(self, folder: str) -> list[Entry]:
        try:
            return places.entries(folder)
        except OSError as error:
            raise LvaeError(folder, f"the folder cannot be read ({places.why(error)})") from error

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1


def holds_images(folder: str) -> bool:
    """Whether any image lies in a folder, however deep; stops at the first."""
    return next(iter(walk(folder, {})), None) is not None


FILE, FOLDER, LINK, OTHER = range(4)


class _Folder:
    """A folder of maybe millions of files: its names, and of what kind each is. Files are looked at from within, which
    spares the way there."""

    def __init__(self, path: str):
        self.path = path
        self.names: dict[str, int] = {}
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise LvaeError(path, f"the folder cannot be read ({error.strerror})") from error

    def __enter__(self) -> "_Folder":
        try:
            with os.scandir(self._descriptor) as entries:
                self.names = {entry.name: _kind_of(entry) for entry in entries}
        except OSError as error:
            os.close(self._descriptor)
            raise LvaeError(self.path, f"the folder cannot be read ({error.strerror})") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def status(self, name: str) -> os.stat_result:
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError as error:
            raise LvaeError(f"{self.path}/{name}", f"cannot be looked at ({error.strerror})") from error


def _folders_in(folder: str) -> list[tuple[str, bool]]:
    """Names of what may be folders below one, sorted, and whether each is a link. Names of files are let go."""
    with _Folder(folder) as opened:
        return sorted((name, kind == LINK) for name, kind in opened.names.items() if kind != FILE)


def _begins_with_an_image(folder: str) -> bool:
    """Whether one of the first things in a folder, as they come, is called an image: as a rule one is."""
    try:
        with os.scandir(folder) as entries:
            few = itertools.islice(entries, 16)
            return any(
                _kind_of(entry) == FILE
                and not names.is_hidden(entry.name)
                and names.is_utf8(entry.name)
                and names.is_image_name(entry.name) is True
                for entry in few
            )
    except OSError:
        return False  # the walk says what is wrong with it


def _kind_of(entry: "os.DirEntry[str]") -> int:
    """As the folder says, without a look at the file."""
    if entry.is_file(follow_symlinks=False):
        return FILE
    if entry.is_dir(follow_symlinks=False):
        return FOLDER
    return LINK if entry.is_symlink() else OTHER


def _is_image_behind_url(location: str, name: str) -> bool:
    by_name = names.is_image_name(name)
    if by_name is not None:
        return by_name
    try:
        return is_image(places.first_bytes(location, names.MAGIC_BYTES))
    except OSError as error:
        raise LvaeError(location, f"cannot be read ({places.why(error)})") from error


def _is_image_file(folder: str, name: str) -> bool:
    by_name = names.is_image_name(name)
    if by_name is not None:
        return by_name
    path = f"{folder}/{name}"
    try:
        with open(path, "rb") as file:
            return is_image(file.read(names.MAGIC_BYTES))
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror})") from error


def _read_if_there(location: str) -> bytes | None:
    try:
        return places.read_up_to(location, names.MAX_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LvaeError(location, f"cannot be read ({places.why(error)})") from error
