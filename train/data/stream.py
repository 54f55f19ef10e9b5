"""Latents of tar shards that lie elsewhere, read in sequence: nothing has to be copied first.

Sample p of the endless sequence is a function of (seed, p): an epoch takes the shards in a seeded order, and the
latents of each, which are a fair sample of all, in a seeded order too. So training goes on from any position: whole
shards before it are not even fetched.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive, permute
from lvae.manifests.shards.index import read_index
from lvae.manifests.shards.tar_stream import Sample, StreamOptions


class Stream:
    """The endless sequence of samples, read forwards. Every rank reads all and keeps what is its own."""

    placement = "stream"

    def __init__(self, dataset: Dataset, seed: int, meaning: Callable[[Tensor], Tensor]):
        """meaning: of stored numbers on the device, as float32."""
        self._dataset, self._seed, self._meaning = dataset, seed, meaning
        self._shards = list(read_index(dataset.folder, dataset.manifest.splits[dataset.name].index))
        self._position = 0
        self._samples: Iterator[Sample] | None = None

    def read(self, indices: NDArray[np.int64], samples: NDArray[np.int64]) -> Tensor:
        """Latents by their place, as previews and validation ask for them."""
        return torch.from_numpy(self._dataset.read(indices)[0])

    def finish(self, on_device: Tensor) -> Tensor:
        return self._meaning(on_device)

    def take(self, first: int, count: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Samples first .. first + count: latents (count, C, h, w) as they are stored, and labels (count,)."""
        if self._samples is None or first < self._position:
            self._samples, self._position = self._from(first), first
        for _ in itertools.islice(self._samples, first - self._position):
            pass  # those of other ranks
        found = list(itertools.islice(self._samples, count))
        self._position = first + count
        latents = np.stack([latents for latents, _, _ in found])
        return torch.from_numpy(latents), np.array([label for _, label, _ in found], np.int64)

    def _from(self, first: int) -> Iterator[Sample]:
        begun, left = divmod(first, sum(shard.count for shard in self._shards))
        for epoch in itertools.count(begun):
            numbers = np.arange(len(self._shards))
            for number in permute(numbers, len(numbers), self._seed, f"shards/{epoch}").tolist():
                shard = self._shards[number]
                if left >= shard.count:
                    left -= shard.count
                    continue
                options = StreamOptions(shard.count, derive(self._seed, f"within/{epoch}", number), by_node=False)
                samples = iter(self._dataset.stream([shard], options))
                yield from itertools.islice(samples, left, None)
                left = 0
