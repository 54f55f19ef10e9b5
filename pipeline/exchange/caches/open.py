"""Which layout a cache has, by looking at it, and the cache opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lvae.encode.files.locations import is_url
from lvae.encode.files.naming import DATASET_JSON
from lvae.encode.files.patterns import base_of, expand, is_pattern
from lvae.encode.sources.reading.random_access import Containers
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import RESUME
from lvae.manifests.storage.places.inputs import DATASET
from lvae.manifests.storage.places.kinds import Kind, kind_of
from lvae.pipeline.exchange.caches.array_caches import RANKED, ArrayCache, LightningCache, find_piece
from lvae.pipeline.exchange.caches.arrays import read_arrays
from lvae.pipeline.exchange.caches.cache import Cache
from lvae.pipeline.exchange.caches.file_caches import DitCache, Edm2Cache, MarCache
from lvae.pipeline.exchange.caches.files import Files, FolderFiles, ZipFiles
from lvae.pipeline.exchange.caches.mds_cache import MdsCache, has_index
from lvae.pipeline.exchange.caches.record import ExportedCache, read_record
from lvae.pipeline.exchange.caches.tar_cache import TarCache
from lvae.pipeline.exchange.caches.zarr_arrays import is_zarr, read_zarr

Layout = Literal["edm2", "lightningdit", "dit", "repa", "mar", "mds", "npy", "webdataset", "zarr"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SINGLE = (".npy", ".npz", ".safetensors")
REPA = "vae-sd"  # the folder in which REPA's trainer looks for latents
STACKS = {"latents", "moments"}
ARRAYS = STACKS | {"latents_flip", "moments_flip", "labels", "label", "y"}
OTHERS = (Kind.RUN, Kind.AUTOENCODER_RUN, Kind.SWEEP, Kind.STUDY, Kind.DECODED, Kind.PARTS, Kind.EXPORT)
KNOWN = (
    "edm2's or REPA's .npy files with dataset.json, LightningDiT's safetensors, fast-DiT's folders of features and "
    "labels, MAR's .npz files, MDS shards, arrays in .npy, .npz, .safetensors or Zarr, tars of .npy files"
)


@dataclass(frozen=True)
class Choice:
    """layout: None to look. array: which one, where a file holds several. channels: of a latent, where known."""

    layout: Layout | None = None
    array: str | None = None
    channels: int | None = None


def open_cache(location: str, choice: Choice = Choice()) -> Cache:
    """LvaeError where nothing is there, or it is no cache of this layout, or of any that is known."""
    if is_url(location):
        raise LvaeError(location, "caches are read from a file system", "Copy it there first.")
    pattern = is_pattern(location)
    path = Path(os.path.abspath(location))  # noqa: PTH100  patterns keep their braces
    if not pattern and not path.exists():
        raise LvaeError(location, "no such file or folder", f"A cache is {KNOWN}.")
    if not pattern:
        _refuse_own(path, location)
    layout = choice.layout or _recognize(path, pattern)
    if layout is None:
        if kind_of(path) in (Kind.IMAGES, Kind.IMAGE):
            raise LvaeError(location, "holds images, not latents", f"Encode them: 'lvae encode {location} DATASET'.")
        raise LvaeError(location, "looks like no cache of latents that is known", f"A cache is {KNOWN}; see --layout.")
    try:
        cache = _open(layout, path, pattern, choice)
        files = None if pattern else _beside(path)
        record = None if files is None else read_record(files)
        return cache if files is None or record is None else ExportedCache(cache, record, files)
    except OSError as error:
        raise LvaeError(location, f"cannot be read ({error.strerror or error})") from error


def _refuse_own(path: Path, location: str) -> None:
    """LvaeError for a dataset of ours, which needs no import, and for what else commands of ours make."""
    found = kind_of(path)
    if found in DATASET.kinds:
        advice = f"'lvae train {location} RUN' reads it; 'lvae merge' puts several into one."
        raise LvaeError(location, "is a dataset already", advice)
    if found == Kind.UNFINISHED:
        raise LvaeError(location, "is an unfinished dataset, not a cache", RESUME)
    if found in OTHERS:
        raise LvaeError(location, f"is {found.value}, not a cache of latents", f"A cache is {KNOWN}.")


def _beside(path: Path) -> Files | None:
    """Where an export of ours leaves its record: in the folder, or in edm2's zip."""
    if path.is_dir():
        return FolderFiles(str(_features_of(path)))
    return ZipFiles(str(path)) if path.suffix == ".zip" else None


def _features_of(path: Path) -> Path:
    """Where REPA's latents lie below the folder that it is given; that folder itself in other layouts."""
    return path / REPA if (path / REPA).is_dir() else path


def _recognize(path: Path, pattern: bool) -> Layout | None:
    name = path.name.lower()
    if pattern or path.is_file():
        if name.endswith(".tar"):
            return "webdataset"
        if name.endswith(".zip"):
            return "edm2"
        return "npy" if name.endswith(SINGLE) else None
    names = {entry.name for entry in os.scandir(path) if not entry.name.startswith(".")}
    arrays = {Path(one).stem for one in names if one.endswith(SINGLE)}
    found: dict[Layout, bool] = {
        "zarr": is_zarr(path),
        "mds": has_index(path),
        "repa": REPA in names or (path.name == REPA and DATASET_JSON in names),
        "edm2": DATASET_JSON in names and path.name != REPA,
        "lightningdit": any(RANKED.fullmatch(one) for one in names),
        "dit": bool(_dit_folders(path)),
        "npy": bool(arrays & STACKS),
    }
    known = [layout for layout, is_so in found.items() if is_so]
    if len(known) > 1:
        advice = f"Say --layout {' or --layout '.join(known)}, or give each a folder of its own."
        raise LvaeError(path, f"looks like {' and like '.join(known)}", advice)
    if known:
        return known[0]
    if arrays:
        return "npy"
    if any(one.endswith(".tar") for one in names):
        return "webdataset"
    first = next(_first_files(path), "")
    return {".npz": "mar", ".npy": "edm2"}.get(Path(first).suffix)  # type: ignore[return-value]


def _first_files(path: Path) -> Iterator[str]:
    for _, _, names in os.walk(path):
        yield from names


def _dit_folders(path: Path) -> list[tuple[Path, Path]]:
    """fast-DiT's pairs of folders: NAME_features and NAME_labels."""
    below = {entry.name for entry in os.scandir(path) if entry.is_dir()}
    pairs = ((name, f"{name.removesuffix('features')}labels") for name in sorted(below) if name.endswith("features"))
    return [(path / features, path / labels) for features, labels in pairs if labels in below]


def _open(layout: Layout, path: Path, pattern: bool, choice: Choice) -> Cache:
    match layout:
        case "edm2" | "repa":
            return Edm2Cache(layout, ZipFiles(str(path)) if path.is_file() else FolderFiles(str(_features_of(path))))
        case "dit":
            folders = _dit_folders(path) if path.is_dir() else []
            if len(folders) != 1:
                many = "several pairs" if folders else "no pair"
                advice = "Each pair needs a folder of its own."
                raise LvaeError(path, f"has {many} of folders NAME_features and NAME_labels", advice)
            return DitCache(*folders[0])
        case "mar":
            return MarCache(FolderFiles(str(path)))
        case "mds":
            if not path.is_dir() or not has_index(path):
                raise LvaeError(path, "has no index.json of MDS shards")
            return MdsCache(str(path), choice.array, choice.channels)
        case "webdataset":
            return TarCache(str(path), _tars(path, pattern), choice.array)
        case "zarr":
            if not is_zarr(path):
                raise LvaeError(path, "is no Zarr array or group")
            piece = find_piece(path.name, list(read_zarr(path)), choice.array, str(path))
            return ArrayCache("zarr", str(path), [piece])
        case _:
            return _open_arrays(layout, path, choice.array)


def _tars(path: Path, pattern: bool) -> list[Path]:
    if pattern:
        base = Path(base_of(str(path)))
        found = [base / name for name in expand(str(path))]
    else:
        found = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    if not found or any(tar.parent != found[0].parent for tar in found):
        raise LvaeError(path, "holds no tars" if not found else "names tars in several folders")
    return found


def _open_arrays(layout: Layout, path: Path, array: str | None) -> Cache:
    opened = Containers("")
    if path.is_file():
        return ArrayCache("npy", str(path), [find_piece(path.name, read_arrays(path, opened), array, str(path))])
    files = sorted(one for one in path.iterdir() if one.name.endswith(SINGLE) and one.is_file())
    stacks = [one for one in files if one.suffix == ".safetensors"]
    if layout == "lightningdit" or stacks:
        pieces = [find_piece(one.name, read_arrays(one, opened), array, str(one)) for one in stacks]
        if not pieces:
            raise LvaeError(path, "holds no .safetensors files")
        other = next((one for one in files if one.suffix != ".safetensors" and one.stem in STACKS), None)
        if other is not None and layout != "lightningdit":
            raise LvaeError(path, f"holds {stacks[0].name} and {other.name}", "Give each kind a folder of its own.")
        return LightningCache(str(path), pieces) if layout == "lightningdit" else ArrayCache("npy", str(path), pieces)
    if not files:
        raise LvaeError(path, "holds no arrays")
    if {one.stem for one in files} & ARRAYS and all(one.suffix == ".npy" for one in files):
        arrays = [found for one in files for found in read_arrays(one, opened)]
        return ArrayCache("npy", str(path), [find_piece("latents.npy", arrays, array, str(path))])
    pieces = [find_piece(one.name, read_arrays(one, opened), array, str(one)) for one in files]
    return ArrayCache("npy", str(path), pieces)
