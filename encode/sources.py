"""Where images come from: a SOURCE is a folder, a zip, tars or seeded noise, told apart by looking.

    source = open_source("photos/")
    rows = list(source.rows())                           # what there is, in a stable order
    reader = open_reader(source.kind, source.location)   # here or in another process
    reader.read(rows[0])                                 # -> the bytes of a file, for images.open_image

A broken image is listed like any other: it is rejected when it is opened. Only what is no image by its name (see
sources_names.py) is not listed, but counted.
"""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lvae.encode import sources_names as names
from lvae.encode.sources_containers import Containers
from lvae.encode.sources_folder import FolderReader, FolderSource, holds_images
from lvae.encode.sources_labels import Labels, apply_labels, read_labels
from lvae.encode.sources_patterns import base_of, expand, is_pattern
from lvae.encode.sources_synthetic import PREFIX, SyntheticReader, SyntheticSource
from lvae.encode.sources_tar import TarSource, refuse_compressed
from lvae.encode.sources_zip import ZipReader, ZipSource
from lvae.manifests.errors import LvaeError
from lvae.manifests.rows import ImageRow

__all__ = ["Labels", "Reader", "Source", "apply_labels", "file_of", "open_reader", "open_source", "read_labels"]

KINDS = "a folder of images, a .zip, a .tar, a pattern of tars or synthetic:N"


class Source(Protocol):
    """What a SOURCE holds.

    kind: "folder", "tar", "zip" or "synthetic".
    location: the SOURCE as an absolute path or pattern, for `open_reader` and `open_source` elsewhere on this machine.
    classes: their names, or None. Final once `rows()` is through, as are `counts` and `warnings`.
    counts: what was found beside images, such as "hidden files", "not images", "unlabelled".
    warnings: lines for a person.
    """

    @property
    def kind(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def warnings(self) -> list[str]: ...

    def rows(self) -> Iterator[ImageRow]:
        """The images, in the same order every time. Raises LvaeError for what is damaged, and where there are none."""


class Reader(Protocol):
    """Hands out the bytes of listed images. Any number of threads may read; it can be pickled."""

    def read(self, row: ImageRow) -> bytes:
        """The bytes of one image's file.

        Raises OSError where the storage fails (try again), ImageRejected where this one member is at fault, and
        LvaeError where the source is not what it was when listed.
        """

    def close(self) -> None: ...


def open_source(source: str) -> Source:
    """Look what a SOURCE is. Nothing is listed yet."""
    if source.startswith(PREFIX):
        return SyntheticSource(source)
    if "://" in source:
        raise LvaeError(f"{source}: URLs are not read yet. Copy the images here, or mount them.")
    if is_pattern(source):
        tars = expand(source)
        for tar in tars:
            _refuse_all_but_tars(str(Path(base_of(source), tar)))
        return TarSource(source, tars)
    if Path(source).is_dir():
        tars = _tars_in(source)
        return TarSource(source, tars) if tars and not holds_images(source) else FolderSource(source)
    if not Path(source).exists():
        raise LvaeError(f"{source}: no such file or folder. A source is {KINDS}.")
    if _is_zip(source):
        return ZipSource(source)
    _refuse_all_but_tars(source)
    return TarSource(source, [Path(source).name])


def open_reader(kind: str, location: str) -> Reader:
    """A reader of what a source of this kind and location listed."""
    match kind:
        case "folder":
            return FolderReader(location)
        case "tar":
            return Containers(base_of(location))
        case "zip":
            return ZipReader(location)
        case "synthetic":
            return SyntheticReader(location)
    raise LvaeError(f"source kind {kind!r} is none of folder, tar, zip, synthetic.")


def file_of(kind: str, location: str, row: ImageRow) -> Path | None:
    """The file that holds a row's bytes; None where there is none."""
    if kind == "synthetic":
        return None
    return Path(location, row.key) if kind == "folder" else Path(base_of(location), row.container)


def _tars_in(folder: str) -> list[str]:
    try:
        found = sorted(path.name for path in Path(folder).iterdir())
    except OSError as error:
        raise LvaeError(f"{folder}: the folder cannot be read ({error.strerror}).") from error
    return [name for name in found if name.lower().endswith(".tar") and not names.is_hidden(name)]


def _is_zip(path: str) -> bool:
    return _first_bytes(path).startswith((b"PK\x03\x04", b"PK\x05\x06")) or (
        path.lower().endswith(".zip") or zipfile.is_zipfile(path)
    )


def _refuse_all_but_tars(path: str) -> None:
    head = _first_bytes(path)
    refuse_compressed(path, head)
    if path.lower().endswith(".tar"):
        return
    try:
        is_tar = tarfile.is_tarfile(path)
    except (OSError, ValueError, OverflowError, MemoryError, RecursionError):
        is_tar = False
    if not is_tar:
        raise LvaeError(f"{path}: not a source. A source is {KINDS}.")


def _first_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(names.MAGIC_BYTES)
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror}).") from error
