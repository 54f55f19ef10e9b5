"""Where images come from: a SOURCE is a folder, an archive, arrays, a list or seeded noise, told apart by looking.

    source = open_source("photos/")
    rows = list(source.rows())                           # what there is, in a stable order
    reader = open_reader(source.kind, source.location)   # here or in another process
    reader.read(rows[0])                                 # -> the bytes of a file, for images.open_image

A broken image is listed like any other: it is rejected when it is opened. Only what is no image by its name (see
naming.py) is not listed, but counted. A URL of fsspec stands wherever a path does; one of a folder ends in a
slash.
"""

import tarfile
import zipfile
from typing import IO, cast

from lvae.encode.files import locations, naming
from lvae.encode.files.addresses import PublicOnly
from lvae.encode.files.patterns import base_of, expand, is_pattern
from lvae.encode.sources.base import Reader, Source
from lvae.encode.sources.folder import FolderReader, FolderSource
from lvae.encode.sources.labels import Labels, apply_labels, read_labels
from lvae.encode.sources.list import ENDINGS, ListReader, ListSource
from lvae.encode.sources.lmdb import DATA, MAGIC, MAGIC_AT, LmdbSource
from lvae.encode.sources.nested_tar import NestedTarSource, is_nested
from lvae.encode.sources.npz import NpzReader, NpzSource
from lvae.encode.sources.parquet import ParquetReader, ParquetSource
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.reading.tar_members import refuse_compressed
from lvae.encode.sources.reading.walk import holds_images
from lvae.encode.sources.synthetic import PREFIX, SyntheticReader, SyntheticSource
from lvae.encode.sources.tar import TarSource
from lvae.encode.sources.zip import ZipReader, ZipSource
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.retry import raise_outage

__all__ = ["Labels", "Reader", "Source", "apply_labels", "open_reader", "open_source", "read_labels"]

KINDS = (
    "a folder of images; a .zip; a .tar, a pattern or folder of tars, ImageNet's tar of tars; an LSUN lmdb folder; "
    "a .parquet, a pattern or folder of them; a .npz or .npy; a .csv, .jsonl or .txt list; or synthetic:N"
)
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
PARQUET_MAGIC = b"PAR1"
NPY_MAGIC = b"\x93NUMPY"
SAVED, SAVED_DICT = {"state.json", "dataset_info.json"}, "dataset_dict.json"  # Hugging Face's save_to_disk


def open_source(source: str) -> Source:
    """Look what a SOURCE is. Nothing is listed yet. Raises LvaeError for what is none."""
    if source.startswith(PREFIX):
        return SyntheticSource(source)
    location = locations.resolve(source)
    try:
        if is_pattern(location):
            return _pattern(location)
        found = locations.status(location) if not location.endswith("/") or not locations.is_url(location) else None
    except (FileNotFoundError, NotADirectoryError) as error:
        problem = "no such file or folder" if error.errno else locations.explain(error)  # a pipe, a device
        raise LvaeError(source, problem, f"A source is {KINDS}.") from error
    except OSError as error:
        raise_outage(error)
        raise LvaeError(source, f"cannot be looked at ({locations.explain(error)})") from error
    if found is None or found.is_folder:
        return _folder(f"{location.rstrip('/')}/" if locations.is_url(location) else location)
    return _file(location)


def _pattern(location: str) -> Source:
    files = _refuse_odd_names(location, expand(location))
    if all(name.lower().endswith(".parquet") for name in files):
        return ParquetSource(location, files)
    for name in files:
        _refuse_all_but_tars(locations.join(base_of(location), name))
    return TarSource(location, files)


def _folder(location: str) -> Source:
    try:
        found = [name for name in locations.names_in(location) if not naming.is_hidden(name)]
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"the folder cannot be read ({locations.explain(error)})") from error
    if DATA in found:
        return LmdbSource(location)
    tars = [name for name in found if name.lower().endswith(".tar")]
    tables = [name for name in found if name.lower().endswith(".parquet")]
    if not (tars or tables) or holds_images(location):
        if SAVED.issubset(found) or SAVED_DICT in found:
            _refuse_saved(location)
        return FolderSource(location)
    _refuse_odd_names(location, [*tars, *tables])
    if tars and tables:
        raise LvaeError(location, "holds tars and Parquet files", "Name those meant by a pattern.")
    return TarSource(location, tars) if tars else ParquetSource(location, tables)


def _refuse_odd_names(location: str, files: list[str]) -> list[str]:
    """Images are found again by the name of their file."""
    for name in files:
        if not naming.is_utf8(name):
            raise LvaeError(locations.join(location, name), "its name is not UTF-8", "Rename it.")
    return files


def _file(location: str) -> Source:
    head, path = _first_bytes(location), locations.plain_path(location).lower()
    if head.startswith(NPY_MAGIC) or path.endswith((".npz", ".npy")):
        return NpzSource(location)
    if head.startswith(ZIP_MAGIC) or path.endswith(".zip"):
        return ZipSource(location)
    if head[MAGIC_AT:] == MAGIC:
        return LmdbSource(location)
    if head.startswith(PARQUET_MAGIC) or path.endswith(".parquet"):
        return ParquetSource(location, [locations.name_of(location)])
    if path.endswith(".arrow"):
        _refuse_saved(location)
    if path.endswith(ENDINGS):
        return ListSource(location)
    if not path.endswith(".tar") and _is_zip_with_a_preface(location):
        return ZipSource(location)
    _refuse_all_but_tars(location)
    return NestedTarSource(location) if is_nested(location) else TarSource(location, [locations.name_of(location)])


def _refuse_saved(location: str) -> None:
    raise LvaeError(
        location,
        "was written by save_to_disk of Hugging Face datasets, and .arrow files are not read",
        "Export it as Parquet: load_from_disk(FOLDER)['train'].to_parquet('train.parquet').",
    )


def open_reader(kind: str, location: str, addresses: str | None = None) -> Reader:
    """A reader of what a source of this kind and location listed.

    addresses: "public" or "any", to which requests of this process may go from now on; None leaves that as it is.
    """
    if addresses is not None:
        PublicOnly.on = addresses == "public"
    match kind:
        case "folder":
            return FolderReader(location)
        case "tar" | "lmdb":
            location = locations.resolve(location)
            one = not is_pattern(location) and not locations.is_folder(location)
            return Containers(base_of(location), location if one else None)
        case "zip":
            return ZipReader(location)
        case "npz" | "npy":
            return NpzReader(location)
        case "parquet":
            return ParquetReader(location)
        case "list":
            return ListReader(location)
        case "synthetic":
            return SyntheticReader(location)
    raise LvaeError("", f"source kind {kind!r} is none of folder, list, lmdb, npy, npz, parquet, synthetic, tar, zip")


def _is_zip_with_a_preface(location: str) -> bool:
    try:
        with locations.Watched(locations.open_file(location)) as file:
            found = zipfile.is_zipfile(cast("IO[bytes]", file))  # which is silent about a storage that fails
            file.raise_fault()
            return found
    except ValueError:  # too short for one
        return False
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be read ({locations.explain(error)})") from error


def _refuse_all_but_tars(location: str) -> None:
    head = _first_bytes(location)
    refuse_compressed(location, head)
    if locations.plain_path(location).lower().endswith(".tar"):
        return
    try:
        with locations.Watched(locations.open_file(location)) as file:
            is_tar = tarfile.is_tarfile(cast("IO[bytes]", file))
            file.raise_fault()
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be read ({locations.explain(error)})") from error
    except (ValueError, OverflowError, MemoryError, RecursionError):
        is_tar = False
    if not is_tar:
        raise LvaeError(location, "not a source", f"A source is {KINDS}.")


def _first_bytes(location: str) -> bytes:
    try:
        return locations.first_bytes(location, MAGIC_AT + len(MAGIC))
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be read ({locations.explain(error)})") from error
