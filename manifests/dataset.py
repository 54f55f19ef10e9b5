"""Datasets: manifest.json, and opening what it describes.

The manifest is written last and swapped in one step, so a folder with one is complete. Opening checks it and maps
the shards; whether every byte is as it was written is the question of manifests/verify/verify.py.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike as NumpyArrayLike
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import Manifest, Statistics, no_dataset, read_manifest
from lvae.manifests.messages import RESUME, counted
from lvae.manifests.parts.keys import Keys
from lvae.manifests.parts.plan import Encoding
from lvae.manifests.parts.receipts import read_raw, read_receipt
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.index import Shard, read_index
from lvae.manifests.shards.layout import ArrayLike, SplitReader
from lvae.manifests.shards.tar_stream import Decode, StreamOptions, latent_pipeline
from lvae.manifests.shards.torch_dataset import Pair, latent_pairs
from lvae.manifests.statistics import PIXEL_VALUES, Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.views.selection import TRAIN
from lvae.manifests.views.view import read_view

if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset


class Dataset:
    """A dataset opened for reading: the manifest checked, the shards of one split mapped.

    Latents are those of the view: normalized, in shuffled order. uint8 views hold raw bytes, which are normalized
    when they are read as floats.
    """

    def __init__(self, folder: Folder, manifest: Manifest, split: str = TRAIN):
        if split not in manifest.splits:
            known = ", ".join(sorted(manifest.splits))
            raise LvaeError(folder, f"has no split {split!r}", f"Its splits: {known}.")
        self.folder, self.manifest, self.name = folder, manifest, split
        self._reader: SplitReader | None = None

    @classmethod
    def open(cls, root: str | Path, split: str = TRAIN) -> Self:
        folder = folder_at(root)
        manifest = read_manifest(folder)
        if manifest is None:
            if folder.exists("plan.json"):
                raise LvaeError(root, "is not finished", RESUME)
            raise no_dataset(folder, root)
        return cls(folder, manifest, split)

    @property
    def reader(self) -> SplitReader:
        """The shards, opened with the first use."""
        if self._reader is None:
            view = read_view(self.folder, self.manifest.view.name)
            self._reader = codec(view.settings.format).open_split(self.folder, view.name, view.layouts[self.name])
        return self._reader

    def split(self, name: str) -> Self:
        """Another split of the same dataset."""
        return type(self)(self.folder, self.manifest, name)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted(self.manifest.splits))

    def __len__(self) -> int:
        return self.manifest.splits[self.name].count

    def __repr__(self) -> str:
        manifest = self.manifest
        shape, view = "x".join(map(str, manifest.view.shape)), manifest.view
        what = f"images of {manifest.image.size} px" if manifest.origin == "images" else "samples"
        classes = "no classes" if self.classes is None else counted(len(self.classes), "class", "classes")
        split = self.name if len(self.splits) == 1 else f"{self.name} of {', '.join(self.splits)}"
        return (
            f"<Dataset {self.folder}, split {split}: {counted(len(self), 'latent')} of {shape} ({view.dtype}), "
            f"{classes}; {what}, autoencoder {manifest.autoencoder.name}>"
        )

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> tuple[NDArray[Any], int]: ...

    @overload
    def __getitem__(
        self, index: slice | Sequence[int] | NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.int32]]: ...

    def __getitem__(
        self, index: int | np.integer[Any] | slice | Sequence[int] | NDArray[np.integer[Any]]
    ) -> tuple[NDArray[Any], int] | tuple[NDArray[Any], NDArray[np.int32]]:
        """A number gives one latent (C, h, w) and its label, -1 where it has none; a slice or several numbers
        latents (n, C, h, w) and labels (n,). In the stored dtype; negative numbers count from the end.

        IndexError where there is no such position.
        """
        if isinstance(index, int | np.integer):
            latents, labels = self.read(self._positions([int(index)]))
            return latents[0], int(labels[0])
        return self.read(self._positions(range(len(self))[index] if isinstance(index, slice) else index))

    def _positions(self, numbers: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        found = np.asarray(numbers, np.int64)
        if len(found) and not (found.min() >= -len(self) and found.max() < len(self)):
            raise IndexError(f"there are {counted(len(self), 'latent')}, numbered from 0 to {len(self) - 1}")
        return np.where(found < 0, found + len(self), found)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, h, w), that of `latents`."""
        return (len(self), *self.manifest.view.shape)

    @property
    def keys(self) -> Sequence[str]:
        """(N,): the path within the SOURCE of the image that each latent was made from; of samples "sample 7".

        Read when it is asked for; indexed by a number or a slice.
        """
        if self.manifest.origin == "samples":
            return [f"sample {row}" for row in self.rows]
        return Keys(self.folder, self.rows)

    @property
    def latents(self) -> ArrayLike:
        """(N, C, h, w) in the stored dtype; indexed like a numpy array, mapped."""
        return self.reader.latents

    @property
    def log_variances(self) -> ArrayLike | None:
        """(N, C, h, w) of the normalized latents, with --store moments."""
        return self.reader.log_variances

    @property
    def labels(self) -> NDArray[np.int32]:
        """(N,), -1 where an image has none."""
        return self.reader.labels

    @property
    def rows(self) -> NDArray[np.int64]:
        """(N,): which row of rows/*.parquet each latent was made from."""
        return self.reader.rows

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """(N,): whether the latent is that of the mirrored image."""
        return self.reader.mirrored

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names in the order of the labels."""
        return self.manifest.classes

    @property
    def statistics(self) -> "StatisticsArrays":
        """Of the raw latents, as arrays."""
        return StatisticsArrays(self.manifest.statistics)

    @property
    def normalization(self) -> Normalization:
        return self.manifest.normalization

    def read(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], dtype: DTypeLike | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Latents (n, C, h, w) and labels (n,) at these positions, in this order; positions may repeat.

        In the stored dtype, or cast. A uint8 view read as floats is normalized.
        """
        wanted = None if dtype is None else as_dtype(dtype)
        if self.manifest.view.dtype != "uint8" or wanted is None or wanted.kind != "f":
            return self.reader.read(indices, wanted)
        raw, labels = self.reader.read(indices)
        latents: NDArray[Any] = self._byte_table(wanted)[np.arange(raw.shape[1])[:, None, None], raw]
        return latents, labels

    def _byte_table(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """(C, 256): what each byte of each channel means, normalized."""
        shift, scale = (np.array(v)[:, None] for v in (self.normalization.shift, self.normalization.scale))
        table: NDArray[Any] = ((PIXEL_VALUES - shift) / scale).astype(dtype)
        return table

    def denormalize(self, latents: NumpyArrayLike) -> NDArray[np.float32]:
        """(n, C, h, w) normalized latents, or bytes of a uint8 view, back to what the autoencoder gave."""
        found = np.asarray(latents)
        if found.dtype == np.uint8:
            raw: NDArray[np.float32] = PIXEL_VALUES.astype(np.float32)[found]
            return raw
        return self.normalization.denormalize(found)

    @property
    def encoding(self) -> Encoding:
        """Shapes and settings of the raw parts. Seed, batch and threads are the plan's and stand for nothing here."""
        return Encoding(self.manifest.image, self.manifest.autoencoder, 0, 1, "float32", 1)

    def raw_part(self, part: int) -> NDArray[np.float32]:
        """The raw latents of one part in source order, float32 (n, C, h, w); pixels as u/127.5 - 1."""
        receipt = read_receipt(self.folder, part) if self.manifest.raw == "kept" else None
        if receipt is None:
            why = f"there is no part {part}" if self.manifest.raw == "kept" else "its raw parts have been dropped"
            raise LvaeError(self.folder, str(why))
        raw = read_raw(self.folder, receipt, self.encoding)
        return PIXEL_VALUES.astype(np.float32)[raw] if raw.dtype == np.uint8 else np.array(raw)

    def torch(self, dtype: DTypeLike = np.float32) -> "TorchDataset[Pair]":
        """A map-style dataset of (latents, label) for torch's DataLoader, with or without workers."""
        return latent_pairs(self, as_dtype(dtype))

    def webdataset(
        self,
        split: str | None = None,
        shuffle: int = 0,
        seed: int = 0,
        dtype: DTypeLike | None = None,
        by_node: bool = True,
    ) -> Any:
        """A `webdataset` pipeline over tar shards, here or elsewhere: (latents (C, h, w), label or -1, key) a sample.

        shuffle: samples in the buffer that they are drawn from; with it shards are taken in another order each time.
        dtype: of the latents, the stored one where not given. by_node: every rank and every worker of a DataLoader
        takes shards of its own; without, each takes all. Of kept posteriors the means are given.
        """
        manifest = self.manifest
        if manifest.view.format != "webdataset":
            advice = "Make a view of tars: 'lvae shard --format webdataset'."
            raise LvaeError(self.folder, f"its shards are {manifest.view.format}", advice)
        if (split or self.name) not in manifest.splits:
            return self.split(str(split))  # says which there are
        shards = read_index(self.folder, manifest.splits[split or self.name].index)
        return self.stream(shards, StreamOptions(shuffle, seed, by_node), dtype)

    def stream(self, shards: Iterable[Shard], options: StreamOptions, dtype: DTypeLike | None = None) -> Any:
        """The same over these shards."""
        view, wanted = self.manifest.view, None if dtype is None else as_dtype(dtype)
        decode = Decode(view.shape, view.dtype, partial(self._as, dtype=wanted))
        return latent_pipeline(shards, partial(folder_at, self.folder.address), decode, options)

    def _as(self, latents: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
        """One latent as it is stored, or cast; bytes are normalized where floats are asked for."""
        if dtype is None or np.dtype(dtype) == latents.dtype:
            return latents
        if latents.dtype != np.uint8 or np.dtype(dtype).kind != "f":
            return latents.astype(dtype)
        result: NDArray[Any] = self._byte_table(np.dtype(dtype))[np.arange(len(latents))[:, None, None], latents]
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Maps are opened anew in another process."""
        return {**self.__dict__, "_reader": None}

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def as_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """A dtype of numbers; LvaeError where it is none."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind not in "fiu":
        raise LvaeError(
            f"dtype={dtype!r:.60}", "there is no such dtype of numbers", "Give float32, float16 or float64."
        )
    return found


class StatisticsArrays:
    """The statistics of a dataset as float64 arrays (C,)."""

    def __init__(self, statistics: Statistics):
        self.count = statistics.count
        self.mean, self.std = np.array(statistics.mean), np.array(statistics.std)
        self.min, self.max = np.array(statistics.min), np.array(statistics.max)
