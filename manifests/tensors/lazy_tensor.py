"""Tensors that still lie in their file: what is known before one is read, and how numbers become a tensor.

Only the reading itself needs torch, and imports it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from torch import Tensor

SLACK_BYTES = 64 << 20

# Bytes of one number, by torch's names of what weights may hold.
DTYPES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor known by its shape; `read` maps or fetches it, and refuses what is damaged."""

    shape: tuple[int, ...]
    read: Callable[[], "Tensor"]


Tree = Mapping[str, Any]  # of StoredTensor, plain values and further trees


def make_tensor(
    numbers: memoryview, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> "Tensor":
    """A view of numbers (bytes), offset and stride in elements; the caller has checked dtype and bounds.

    Nothing is copied, except numbers that do not stand at a multiple of their size.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=kind)
    first, end = (DTYPES[dtype] * i for i in (offset, offset + reach(shape, stride)))
    piece = numbers[first:end]
    flat = torch.frombuffer(piece, dtype=kind)
    if flat.data_ptr() % DTYPES[dtype] == 0:
        return flat.as_strided(shape, stride)
    return torch.frombuffer(bytearray(piece), dtype=kind).as_strided(shape, stride).clone()


def reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many numbers a tensor that is not empty spans, from its first to behind its last."""
    return 1 + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))


def read_all(stored: Mapping[str, StoredTensor], available: int, source: str) -> dict[str, "Tensor"]:
    """The tensors themselves. Refused where they would be much more than the `available` bytes of their file."""
    check_proportion(stored, available, source)
    return {name: tensor.read() for name, tensor in stored.items()}


def check_proportion(stored: Mapping[str, StoredTensor], available: int, source: str) -> None:
    """Tensors may share numbers, and a few bytes may pretend to be a large tensor: computing with such ones would take
    memory out of all proportion. Sides of 0 count as 1: beside them the others may be of any length.
    """
    promised = sum(4 * math.prod(max(side, 1) for side in tensor.shape) for tensor in stored.values())  # as float32
    if promised > 4 * available + SLACK_BYTES:
        raise LvaeError(
            source, f"its tensors would take {promised} bytes, out of proportion to the file", "Not loaded."
        )


def make_stored_array(
    numbers: memoryview,
    dtype: str,
    shape: tuple[int, ...],
    source: str,
    columns_first: bool = False,
    axes: tuple[int, ...] | None = None,
) -> StoredTensor:
    """An array of its own numbers, in C or Fortran order, its sides then exchanged where `axes` says how.

    LvaeError where the numbers are not as many as its shape says.
    """
    size = DTYPES.get(dtype)
    if size is not None and len(numbers) != size * math.prod(shape):
        raise LvaeError(source, f"damaged, an array {shape} with {len(numbers)} bytes behind it", "Fetch it again.")
    strides, step = [0] * len(shape), 1
    for side in range(len(shape)) if columns_first else reversed(range(len(shape))):
        strides[side] = step
        step *= shape[side]
    if axes is not None:
        shape, strides = tuple(shape[side] for side in axes), [strides[side] for side in axes]

    def read() -> "Tensor":
        if size is None:
            raise LvaeError(source, f"an array of {dtype[:40]!r}, which weights are never made of", "Not loaded.")
        return make_tensor(numbers, dtype, 0, shape, tuple(strides))

    return StoredTensor(shape, read)
