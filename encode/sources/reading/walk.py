"""The images of a folder, however deep, here or behind a URL: depth first, the entries of a folder by name.

By name means by Unicode code point, whatever the locale. A folder behind a URL has no links. A web server lists no
sizes, so that it is asked for each.

A name is an image whatever it shares its bytes with: symbolic links are followed wherever they lead, except round in
circles (to a folder in which the link lies, or around the source), which is counted.
"""

import itertools
import os
import stat
from collections.abc import Iterator

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut
from lvae.encode.files.remote import Entry
from lvae.encode.images import is_image
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.retry import raise_outage

MAX_LINKED_FOLDERS = 100_000

Found = tuple[str, int, str | int]  # key, length in bytes, what changes when the file does
Identity = tuple[int, int]  # of a folder: device and number


def walk(folder: str, left_out: LeftOut) -> "Walk | RemoteWalk":
    """Iterates over a folder's images, in order, counting what else is there."""
    return RemoteWalk(folder, left_out) if locations.is_url(folder) else Walk(folder, left_out)


class Walk:
    """Iterates over (key, length in bytes, time of change) of a local folder's images.

    Keys are names as the file system gives them: those that are not UTF-8 hold surrogates.
    """

    def __init__(self, root: str, left_out: LeftOut):
        self._root, self._left_out = root, left_out
        self._real_root = os.path.realpath(root)
        self._linked_folders = 0

    def __iter__(self) -> Iterator[Found]:
        return self._folder(self._root, "", None)

    def class_folders(self) -> Iterator[str]:
        """The first-level folders that hold an image, however deep, in order. Each is left at its first image."""
        for name, linked in _folders_in(self._root):
            path = f"{self._root}/{name}"
            if naming.is_hidden(name) or not os.path.isdir(path):  # noqa: PTH112
                continue
            if linked:
                holds_one = next(self._linked_folder(path, "", os.stat(path), None), None) is not None  # noqa: PTH116
            else:
                holds_one = _begins_with_an_image(path) or next(self._folder(path, "", None), None) is not None
            if holds_one:
                yield name

    def _folder(self, folder: str, prefix: str, above: frozenset[Identity] | None) -> Iterator[Found]:
        """`above`: the folders on the way, from the first one that a link leads to; None where no link has been met."""
        with _Folder(folder) as entries:
            for name in sorted(entries.names):
                kind = entries.names[name]
                if naming.is_hidden(name):
                    self._left_out.add(name, naming.HIDDEN)
                elif kind == FILE:
                    if _is_image_file(folder, name):
                        status = entries.status(name)
                        yield prefix + name, status.st_size, status.st_mtime_ns
                    else:
                        self._left_out.add(prefix + name)
                elif kind == FOLDER:
                    path = f"{folder}/{name}"
                    if above is None:
                        yield from self._folder(path, f"{prefix}{name}/", None)
                    else:
                        yield from self._linked_folder(path, f"{prefix}{name}/", entries.status(name), above)
                else:
                    yield from self._look_at(entries, name, prefix, kind == LINK, above)

    def _look_at(
        self, entries: "_Folder", name: str, prefix: str, is_link: bool, above: frozenset[Identity] | None
    ) -> Iterator[Found]:
        """What is a link, or no usual file."""
        path = f"{entries.path}/{name}"
        try:
            status = os.stat(path)  # noqa: PTH116  a Path for each of a million files is slow, and interns its name
        except OSError as error:
            raise_outage(error)
            if not is_link:
                raise LvaeError(path, f"cannot be looked at ({error.strerror})") from error
            self._left_out.add(prefix + name, naming.BROKEN_LINKS)  # or no permission on the way, or a link to itself
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._linked_folder(path, f"{prefix}{name}/", status, above)
        elif not stat.S_ISREG(status.st_mode):
            self._left_out.add(prefix + name, naming.SPECIAL)
        elif _is_image_file(entries.path, name):
            yield prefix + name, status.st_size, status.st_mtime_ns
        else:
            self._left_out.add(prefix + name)

    def _linked_folder(
        self, path: str, prefix: str, status: os.stat_result, above: frozenset[Identity] | None
    ) -> Iterator[Found]:
        """A folder to which a link leads, or that lies below one."""
        identity = status.st_dev, status.st_ino
        around = self._folders_around(path) if above is None else above
        real = os.path.realpath(path)
        if identity in around or f"{self._real_root.rstrip('/')}/".startswith(real.rstrip("/") + "/"):
            self._left_out.add(prefix, naming.LOOPS)
            return
        self._linked_folders += 1
        if self._linked_folders > MAX_LINKED_FOLDERS:
            raise LvaeError(path, f"symbolic links lead to more than {MAX_LINKED_FOLDERS} folders")
        yield from self._folder(path, prefix, around | {identity})

    def _folders_around(self, path: str) -> frozenset[Identity]:
        """Those in which a link lies, up to the source."""
        found, folder = set(), os.path.dirname(path)  # noqa: PTH120
        while len(folder) >= len(self._root):
            status = os.stat(folder)  # noqa: PTH116
            found.add((status.st_dev, status.st_ino))
            folder = os.path.dirname(folder) if folder != "/" else ""  # noqa: PTH120
        return frozenset(found)


class RemoteWalk:
    """Iterates over (key, length in bytes, ETag or time of change) of the images in a URL's folder."""

    def __init__(self, root: str, left_out: LeftOut):
        self._root, self._left_out = root, left_out

    def __iter__(self) -> Iterator[Found]:
        return self._folder(self._root, "")

    def class_folders(self) -> Iterator[str]:
        """As of Walk."""
        for entry in self._entries(self._root):
            if entry.status.is_folder and not naming.is_hidden(entry.name) and naming.is_utf8(entry.name):
                below = RemoteWalk(locations.join(self._root, f"{entry.name}/"), LeftOut({}))
                if next(iter(below), None) is not None:
                    yield entry.name

    def _folder(self, folder: str, prefix: str) -> Iterator[Found]:
        def look_at(entry: Entry) -> Entry:
            """With its size, where the listing had none; asked for several at a time."""
            if entry.status.is_folder or entry.status.size is not None or naming.is_hidden(entry.name):
                return entry
            if naming.is_image_name(entry.name) is False:
                return entry
            return Entry(entry.name, locations.status(locations.join(folder, entry.name)))

        listing = self._entries(folder)
        sizes_known = all(entry.status.size is not None for entry in listing if not entry.status.is_folder)
        for entry in listing if sizes_known else concurrently(look_at, listing):
            location = locations.join(folder, entry.name)
            if naming.is_hidden(entry.name) or not naming.is_utf8(entry.name):
                self._left_out.add(entry.name, naming.HIDDEN if naming.is_hidden(entry.name) else naming.NOT_UTF8)
            elif entry.status.is_folder:
                yield from self._folder(f"{location}/", f"{prefix}{entry.name}/")
            elif not _is_image_behind_url(location, entry.name):
                self._left_out.add(prefix + entry.name)
            elif entry.status.size is None:
                raise LvaeError(location, "the server does not tell its size")
            else:
                yield prefix + entry.name, entry.status.size, entry.status.stamp

    def _entries(self, folder: str) -> list[Entry]:
        try:
            return locations.entries(folder)
        except OSError as error:
            raise_outage(error)
            raise LvaeError(folder, f"the folder cannot be read ({locations.explain(error)})") from error


def holds_images(folder: str) -> bool:
    """Whether any image lies in a folder, however deep; stops at the first."""
    return next(iter(walk(folder, LeftOut({}))), None) is not None


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
            raise_outage(error)
            raise LvaeError(path, f"the folder cannot be read ({error.strerror})") from error

    def __enter__(self) -> "_Folder":
        try:
            with os.scandir(self._descriptor) as entries:
                self.names = {entry.name: _kind_of(entry) for entry in entries}
        except OSError as error:
            os.close(self._descriptor)
            raise_outage(error)
            raise LvaeError(self.path, f"the folder cannot be read ({error.strerror})") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def status(self, name: str) -> os.stat_result:
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError as error:
            raise_outage(error)
            raise LvaeError(f"{self.path}/{name}", f"cannot be looked at ({error.strerror})") from error


def _folders_in(folder: str) -> list[tuple[str, bool]]:
    """Names of what may be folders below one, sorted, and whether each is a link. Names of files are let go."""
    with _Folder(folder) as entries:
        return sorted((name, kind == LINK) for name, kind in entries.names.items() if kind != FILE)


def _begins_with_an_image(folder: str) -> bool:
    """Whether one of the first things in a folder, as they come, is called an image: as a rule one is."""
    try:
        with os.scandir(folder) as entries:
            few = itertools.islice(entries, 16)
            return any(
                _kind_of(entry) == FILE
                and not naming.is_hidden(entry.name)
                and naming.is_image_name(entry.name) is True
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
    by_name = naming.is_image_name(name)
    if by_name is not None:
        return by_name
    try:
        return is_image(locations.first_bytes(location, naming.MAGIC_BYTES))
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be read ({locations.explain(error)})") from error


def _is_image_file(folder: str, name: str) -> bool:
    by_name = naming.is_image_name(name)
    if by_name is not None:
        return by_name
    path = f"{folder}/{name}"
    try:
        with open(path, "rb") as file:
            return is_image(file.read(naming.MAGIC_BYTES))
    except OSError as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read ({error.strerror})") from error
