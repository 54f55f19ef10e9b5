"""What lies at a path: told by the names of files and a few of their bytes, so that an error can say what it was given.

Nothing is read whole and nothing is believed: who opens a dataset or a run checks it.
"""

import json
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from lvae.manifests.storage.open import LOCAL, folder_at, may_hold_a_dataset

LOOKED_AT = 2000  # entries of a folder, until an image is found in it
LARGEST_MARKER = 64 << 20  # bytes that are read to tell what a folder is
IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"}) | {
    ".ppm",
    ".pgm",
    ".heic",
    ".avif",
}
OWN_FILES = frozenset({".lock", ".tmp", "lost+found"})  # of a lock that is held, of a disk; they count as nothing


BEFORE_PLAN = frozenset({"rows", "timings", "weights"})  # of a dataset that was begun; its plan is written after them


class Kind(Enum):
    """What something is, as an error says it."""

    MISSING = "not there"
    EMPTY = "an empty folder"
    DATASET = "a dataset"
    UNFINISHED = "an unfinished dataset"
    SAMPLES = "a folder of samples"
    RUN = "a run"
    AUTOENCODER_RUN = "a run of 'lvae autoencoder fit'"
    SWEEP = "a sweep"
    STUDY = "a study"
    DECODED = "a folder of decoded pictures"
    PARTS = "the parts of an unfinished 'lvae decode'"
    EXPORT = "an exported model"
    CACHE = "latents for another trainer"
    IMAGES = "a folder of images"
    FOLDER = "a folder of other files"
    IMAGE = "an image"
    WEIGHTS = "a file of weights"
    ARRAYS = "a file of arrays"
    ARCHIVE = "an archive"
    TABLE = "a table or list"
    PAGE = "an HTML page"
    FILE = "a file of another kind"
    UNKNOWN = "a place that was not looked at"

    @property
    def is_folder(self) -> bool:
        return self in FOLDERS


class Marker(NamedTuple):
    """A file by which a folder of ours is known.

    format: what its "format" begins with; "" of one that has none, and has an "architecture".
    """

    kind: Kind
    name: str
    format: str


MARKERS = (
    Marker(Kind.SAMPLES, "samples.json", "latent-vae-samples"),
    Marker(Kind.DATASET, "manifest.json", "latent-vae-dataset"),
    Marker(Kind.UNFINISHED, "plan.json", "latent-vae-plan"),
    Marker(Kind.PARTS, "pictures.json", "latent-vae-pictures"),
    Marker(Kind.RUN, "config.json", "latent-vae-run"),
    Marker(Kind.SWEEP, "sweep.json", "latent-vae-sweep"),
    Marker(Kind.STUDY, "study.json", "latent-vae-study"),
    Marker(Kind.AUTOENCODER_RUN, "fit.json", ""),
    Marker(Kind.DECODED, ".decoded.json", "latent-vae-decoded"),
    Marker(Kind.EXPORT, "model.json", "latent-vae-export"),
    Marker(Kind.CACHE, "export.json", "latent-vae-exported-latents"),
)
BESIDE = {Kind.EXPORT: "model.safetensors"}  # a model.json alone stands beside a model.pt, in any folder
BESIDE_LINK = {**BESIDE, Kind.RUN: "checkpoints"}  # in the hub's cache every model has a config.json that is a link
ENDINGS = {
    Kind.IMAGE: IMAGE_ENDINGS,
    Kind.WEIGHTS: frozenset([".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".msgpack", ".flax", ".pkl", ".onnx"]),
    Kind.ARRAYS: frozenset([".npz", ".npy", ".h5"]),
    Kind.ARCHIVE: frozenset([".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"]),
    Kind.TABLE: frozenset([".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet", ".lmdb", ".yaml", ".toml", ".md"]),
    Kind.PAGE: frozenset([".html", ".htm"]),
    Kind.FILE: frozenset([".pdf", ".svg", ".mp4", ".py", ".ipynb", ".log", ".doc", ".ps", ".eps"]),
}
FOLDERS = frozenset(
    {
        Kind.EMPTY,
        Kind.DATASET,
        Kind.UNFINISHED,
        Kind.SAMPLES,
        Kind.RUN,
        Kind.AUTOENCODER_RUN,
        Kind.SWEEP,
        Kind.STUDY,
        Kind.DECODED,
        Kind.PARTS,
        Kind.EXPORT,
        Kind.CACHE,
        Kind.IMAGES,
        Kind.FOLDER,
    }
)


def kind_of(place: str | Path) -> Kind:
    """What lies at a path or URL. Of a store only the markers of datasets and samples are looked for."""
    text = str(place)
    if "://" in text and not text.startswith(LOCAL):
        return _kind_elsewhere(text)
    path = folder_at(text).root if text.startswith(LOCAL) else Path(text)
    if path.is_dir():
        return marked_kind(path) or _kind_of_contents(path)
    if not os.path.lexists(path):
        return Kind.MISSING
    return kind_by_ending(path) or Kind.FILE


def marked_kind(folder: Path) -> Kind | None:
    """Which folder of ours it is, None where it is none. A damaged marker counts: the command itself says so.

    So does a link in a marker's place, whatever it leads to: it is not followed.
    """
    for kind, name, format_ in MARKERS:
        path = folder / name
        if not path.is_symlink() and not path.is_file():
            continue
        beside = (BESIDE_LINK if path.is_symlink() else BESIDE).get(kind)
        if (beside is None or os.path.lexists(folder / beside)) and _is_of_format(path, format_):
            return kind
    return None


def kind_by_ending(path: Path) -> Kind | None:
    """What a file is by the end of its name, None where that says nothing."""
    ending = path.suffix.lower()
    return next((kind for kind, endings in ENDINGS.items() if ending in endings), None)


def _is_of_format(path: Path, format_: str) -> bool:
    """True of what cannot be told: a link may lead anywhere, and is not followed."""
    if path.is_symlink() or path.stat().st_size > LARGEST_MARKER:
        return True
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    if not isinstance(content, dict):
        return False
    found = content.get("format")
    return "architecture" in content if not format_ else isinstance(found, str) and found.startswith(format_)


def _kind_elsewhere(url: str) -> Kind:
    if not may_hold_a_dataset(url):
        return Kind.UNKNOWN
    folder = folder_at(url)
    for kind, name, _ in MARKERS[:3]:
        if folder.exists(name):
            return kind
    return Kind.UNKNOWN


def _kind_of_contents(folder: Path) -> Kind:
    if (folder / "rows" / "000000.parquet").is_file() and all(path.name in BEFORE_PLAN for path in _list(folder)):
        return Kind.UNFINISHED
    empty = True
    for path in _walk(folder):
        empty = False
        if path.suffix.lower() in IMAGE_ENDINGS:
            return Kind.IMAGES
    return Kind.EMPTY if empty else Kind.FOLDER


def _walk(folder: Path) -> Iterator[Path]:
    """What lies in a folder and right below it, up to a number. Links in it are not followed."""
    left = LOOKED_AT
    for path in _list(folder):
        yield path
        for below in _list(path) if path.is_dir() and not path.is_symlink() else ():
            yield below
            if (left := left - 1) < 0:
                return
        if (left := left - 1) < 0:
            return


def _list(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(LOOKED_AT), entries, strict=False)]
    except OSError:
        return
    yield from (folder / name for name in names if name not in OWN_FILES)
