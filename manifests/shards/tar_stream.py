"""Tar shards read from beginning to end by the `webdataset` library: what suits shards that lie elsewhere."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import permute
from lvae.manifests.shards.index import Shard
from lvae.manifests.shards.missing import explain_missing
from lvae.manifests.shards.tar_headers import BoundedHeader
from lvae.manifests.storage.folder import Folder

Sample = tuple[NDArray[Any], int, str]  # latents (C, h, w), label or -1, key of the image
MEND = "'lvae verify --deep' names all damage and what mends it."
STRANGE = (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class StreamOptions:
    """How a pipeline goes through its shards.

    shuffle: samples in the buffer that they are drawn from, 0 for the order in which they are stored; with it shards
        are taken in another order each time. by_node: every rank and every worker of a DataLoader takes shards of its
        own; without, each takes all.
    """

    shuffle: int = 0
    seed: int = 0
    by_node: bool = True


class ShardOrder:
    """The first stage: names of shards, in another order each time where they are shuffled."""

    def __init__(self, shards: Iterable[Shard], options: StreamOptions):
        self._shards, self._options, self._epoch = tuple(shards), options, -1

    def __call__(self) -> Iterator[Shard]:
        self._epoch += 1
        numbers = np.arange(len(self._shards))
        if self._options.shuffle:
            numbers = permute(numbers, len(numbers), self._options.seed, f"shards/{self._epoch}")
        return (self._shards[number] for number in numbers.tolist())


class ReadShards:
    """The samples of shards, one after the other. A shard that does not hold what it should is named."""

    def __init__(self, folder: Callable[[], Folder]):
        self._folder = folder

    def __call__(self, shards: Iterable[Shard]) -> Iterator[dict[str, Any]]:
        from webdataset.tariterators import group_by_keys

        folder, count = self._folder(), 0
        for shard in shards:
            path, where = folder.local(shard.path), folder.place(shard.path)
            if not path.is_file():
                raise explain_missing(folder, shard.path, "this shard is missing", MEND)
            try:
                with path.open("rb") as file:
                    count = 0
                    for sample in group_by_keys(_read_members(file, where)):
                        count += 1
                        yield sample
            except STRANGE as error:
                raise LvaeError(where, f"is damaged behind sample {count}", MEND) from error
            if count != shard.count:
                raise LvaeError(where, f"holds {count} of {shard.count} samples", MEND)


def _read_members(file: IO[bytes], where: str) -> Iterator[dict[str, Any]]:
    """What webdataset's own reader of a tar gives, from headers that are not believed."""
    with tarfile.open(fileobj=file, mode="r|", tarinfo=BoundedHeader) as tar:
        for member in tar:
            data = tar.extractfile(member) if member.isreg() else None
            if data is not None:
                yield {"fname": member.name, "data": data.read(), "__url__": where}
            tar.members.clear()  # type: ignore[attr-defined]  # which it would keep


class Decode:
    """Members of a tar to latents, label and key."""

    def __init__(self, shape: tuple[int, ...], dtype: str, cast: Callable[[NDArray[Any]], NDArray[Any]]):
        self._shape, self._dtype, self._cast = shape, np.dtype(dtype), cast

    def __call__(self, members: dict[str, Any]) -> Sample:
        where = f"{members.get('__url__')}, sample {members.get('__key__')}"
        try:
            latents = np.lib.format.read_array(io.BytesIO(members["latent.npy"]), allow_pickle=False)
            label = int(members["cls"]) if "cls" in members else -1
            key = str(json.loads(members["json"])["key"])
        except STRANGE as error:
            raise LvaeError(where, f"is damaged ({error!r:.100})", MEND) from error
        if latents.shape != self._shape or latents.dtype != self._dtype:
            raise LvaeError(where, f"holds {latents.dtype}{list(latents.shape)}", MEND)
        return self._cast(latents), label, key


def latent_pipeline(
    shards: Iterable[Shard], folder: Callable[[], Folder], decode: Decode, options: StreamOptions
) -> Any:
    """A `webdataset.DataPipeline` of samples."""
    import webdataset
    from webdataset.filters import detshuffle

    splitting = [webdataset.split_by_node, webdataset.split_by_worker] if options.by_node else []
    size = options.shuffle
    shuffling = [detshuffle(size, initial=size, seed=options.seed)] if size else []
    order = ShardOrder(shards, options)
    return webdataset.DataPipeline(order, *splitting, ReadShards(folder), *shuffling, webdataset.map(decode))
