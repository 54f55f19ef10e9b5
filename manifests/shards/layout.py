"""What a shard format promises, and choosing one by name.

A split is cut into shards of `rows_per_shard` latents, all but the last of equal size. Whoever writes a view calls
`prepare` once, then `write_shard` for every shard, in any order and from any number of processes: the bytes do not
depend on it. Files lie under `shards/VIEW/` of the dataset.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import FileRecord, Folder, Unfinished
from lvae.manifests.storage.names import SplitName

CHUNK_ROWS = 64  # rows of a Zarr chunk: what a stock reader fetches at once; shards are whole numbers of them
SHARD_BYTES = 512 << 20  # no shard holds more
INDEX_BYTES = 16  # a Zarr shard's index keeps (offset, bytes) of every chunk, as two uint64
SHARDS_PER_FOLDER = 512  # each with a receipt beside it
DTYPES = ("float16", "float32", "uint8")
MOST_WIDTH = 1 << 24  # of a .cls or .json member


@dataclass(frozen=True)
class SplitLayout:
    """Everything that decides how the bytes of one split are laid out."""

    split: SplitName  # "train", "val"
    count: int  # latents in the split
    shape: tuple[int, int, int]  # (C, h, w) of a latent
    dtype: str  # one of DTYPES; stored little-endian
    shard_size: int  # latents per shard, as asked for
    log_variances: bool  # an array of the latents' shape and dtype beside them (--store moments)
    labelled: bool  # False: no row has a label, and tars have no .cls members
    label_width: int  # characters of a .cls member, a sign included
    json_width: int  # bytes of a .json member: `Codec.json_width`

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise LvaeError(
                f"dtype {self.dtype!r}", "latents cannot be stored so", f"Choose one of {', '.join(DTYPES)}."
            )
        if not 0 <= max(self.label_width, self.json_width) <= MOST_WIDTH:
            raise LvaeError("the view", "has members of a width that no label or key has", "Do not use these files.")

    @property
    def latent_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def rows_per_shard(self) -> int:
        """A multiple of 64: what was asked for, unless that passes 512 MiB or the whole split."""
        chunks = min(
            -(-self.shard_size // CHUNK_ROWS),
            -(-self.count // CHUNK_ROWS),
            (SHARD_BYTES - 4) // (CHUNK_ROWS * self.latent_bytes + INDEX_BYTES),
        )
        return max(1, chunks) * CHUNK_ROWS

    @property
    def shards(self) -> int:
        return -(-self.count // self.rows_per_shard)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """The first position of a shard in the split, and how many latents it holds."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        first = shard * self.rows_per_shard
        return first, min(self.rows_per_shard, self.count - first)


def shard_folder(view: str, split: str, number: int) -> str:
    """Where a shard that is one file lies, and its receipt: the view's folder, or one of 512 shards in large splits."""
    above = number // SHARDS_PER_FOLDER
    return f"shards/{view}/{split}/{above:06d}" if above else f"shards/{view}"


@dataclass(frozen=True)
class ShardContent:
    """The latents of one shard and what is known of each, in their order in the split."""

    latents: NDArray[Any]  # (n, C, h, w) in the layout's dtype
    log_variances: NDArray[Any] | None  # likewise
    labels: NDArray[np.int32]  # (n,), -1 where there is none
    rows: NDArray[np.int64]  # (n,) of the image in rows/*.parquet
    mirrored: NDArray[np.bool_]  # (n,)
    keys: Sequence[str]  # of the images; a format that keeps none (json_width 0) takes an empty sequence

    def expect(self, layout: SplitLayout, shard: int) -> None:
        """ValueError unless these are arrays for this shard of this layout."""
        _, count = layout.rows_of(shard)
        latents = ((count, *layout.shape), layout.dtype)
        expected: list[tuple[NDArray[Any] | None, tuple[tuple[int, ...], str] | None]] = [
            (self.latents, latents),
            (self.log_variances, latents if layout.log_variances else None),
            (self.labels, ((count,), "int32")),
            (self.rows, ((count,), "int64")),
            (self.mirrored, ((count,), "bool")),
        ]
        for array, wanted in expected:
            found = None if array is None else (array.shape, array.dtype.name)
            if found != wanted:
                raise ValueError(f"shard {shard}: {found} where {wanted} belongs")


@dataclass(frozen=True)
class Facts:
    """What stands beside the latents of one shard."""

    labels: NDArray[np.int32]  # (n,)
    rows: NDArray[np.int64]  # (n,)
    mirrored: NDArray[np.bool_]  # (n,)


def finish_shard_file(folder: Folder, unfinished: Unfinished, name: str) -> FileRecord:
    """Give a shard's file its name. Another attempt's stays, for it holds the same; LvaeError where it does not."""
    new = unfinished.create(name)
    if new is not None:
        return new
    found, ours = folder.record(name), unfinished.file
    if (found.bytes, found.sha256) != (ours.bytes, ours.sha256):
        raise LvaeError(folder.place(name), "another attempt has left other bytes", "Run the same command again.")
    return found


class ArrayLike(Protocol):
    """Latents that need not be in memory; indexed as a numpy array is, and giving numpy arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any) -> Any: ...
    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]: ...


class SplitReader(Protocol):
    """A split opened for reading."""

    @property
    def latents(self) -> ArrayLike: ...  # (N, C, h, w)
    @property
    def log_variances(self) -> ArrayLike | None: ...  # (N, C, h, w)
    @property
    def labels(self) -> NDArray[np.int32]: ...  # (N,), loaded when first asked for; likewise the next two
    @property
    def rows(self) -> NDArray[np.int64]: ...
    @property
    def mirrored(self) -> NDArray[np.bool_]: ...
    def __len__(self) -> int: ...
    def read(
        self, indices: Sequence[int] | NDArray[np.integer[Any]], dtype: DTypeLike | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int32]]: ...  # latents (n, C, h, w) and labels (n,) as fresh arrays
    def facts(self, shard: int) -> Facts: ...  # for whoever goes through the shards and may not hold those of all
    def close(self) -> None: ...  # lets go of what was mapped; reading maps it again


class Codec(Protocol):
    """A shard format."""

    @property
    def name(self) -> str: ...

    def json_width(self, rows: int, keys: Iterable[str]) -> int:
        """Bytes of a .json member for row numbers below `rows` and these keys; 0 where the format keeps no keys."""

    def prepare(self, folder: Folder, view: str, layout: SplitLayout) -> list[FileRecord]:
        """Write what a split has once; before any shard."""

    def write_shard(
        self, folder: Folder, view: str, layout: SplitLayout, number: int, content: ShardContent
    ) -> list[FileRecord]:
        """Write one shard whole, and say what was written: the file of the latents first.

        A file that is there already stays; LvaeError where it holds something else.
        """

    def shard_files(self, view: str, layout: SplitLayout, number: int) -> list[str]:
        """The names of what `write_shard` writes, the file of the latents first."""

    def open_split(self, folder: Folder, view: str, layout: SplitLayout) -> SplitReader:
        """LvaeError where a shard is missing or cut short."""

    def reader(self, folder: Folder, view: str, layout: SplitLayout) -> SplitReader:
        """The same without a look at all shards: what is wrong with one is told when it is read."""

    def check(self, folder: Folder, view: str, layout: SplitLayout, shards: range | None = None) -> Iterator[str]:
        """One sentence per fault in the structure of these shards, or all. Checksums are verified from the manifest."""
