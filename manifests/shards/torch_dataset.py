"""A dataset as torch's DataLoader takes it. torch is imported when one is made, not before."""

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset

Pair = tuple[NDArray[Any], int]


class Readable(Protocol):
    """What is asked of a dataset: its length, and latents and labels by position."""

    def __len__(self) -> int: ...

    def read(
        self, indices: Sequence[int], dtype: np.dtype[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int32]]: ...


def latent_pairs(dataset: Readable, dtype: np.dtype[Any]) -> "TorchDataset[Pair]":
    """(latents (C, h, w), label) by index, a whole batch in one read; negative indices count from the end."""
    pairs: TorchDataset[Pair] = _class()(dataset, dtype)
    return pairs


@lru_cache(maxsize=1)
def _class() -> Any:
    from torch.utils.data import Dataset as TorchDataset

    class LatentPairs(TorchDataset[Pair]):
        def __init__(self, dataset: Readable, dtype: np.dtype[Any]):
            self.dataset, self.dtype = dataset, dtype

        def __len__(self) -> int:
            return len(self.dataset)

        def __repr__(self) -> str:
            return f"<latents and labels as {self.dtype.name} of {self.dataset!r}, for torch.utils.data.DataLoader>"

        def __getitem__(self, index: int) -> Pair:
            return self.__getitems__([index])[0]

        def __getitems__(self, indices: Sequence[int]) -> list[Pair]:
            positions = [_position(index, len(self.dataset)) for index in indices]
            latents, labels = self.dataset.read(positions, self.dtype)
            return list(zip(latents, labels.tolist(), strict=True))

        def __reduce__(self) -> tuple[Any, ...]:
            """The class is made anew in another process."""
            return latent_pairs, (self.dataset, self.dtype)

    return LatentPairs


def _position(index: int, count: int) -> int:
    position = operator.index(index)
    if not -count <= position < count:
        raise IndexError(f"index {position} of {count} latents")
    return position % count
