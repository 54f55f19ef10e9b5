"""Tensors that still lie in their file: what is known before one is read, and how numbers become a tensor."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError

SLACK_BYTES = 64 << 20

DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor known by its shape; `read` maps or fetches it, and refuses what is damaged."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def tensor_from(
    numbers: memoryview, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """A view of numbers (bytes), offset and stride in elements; the caller has checked that it lies within.

    Nothing is copied, except numbers that do not stand at a multiple of their size.
    """
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    first, end = (dtype.itemsize * i for i in (offset, offset + reach(shape, stride)))
    piece = numbers[first:end]
    flat = torch.frombuffer(piece, dtype=dtype)
    if flat.data_ptr() % dtype.itemsize == 0:
        return flat.as_strided(shape, stride)
    return torch.frombuffer(bytearray(piece), dtype=dtype).as_strided(shape, stride).clone()


def reach(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """How many numbers a tensor that is not empty spans, from its first to behind its last."""
    return 1 + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))


def read_all(stored: Mapping[str, StoredTensor], available: int, source: str) -> dict[str, Tensor]:
    """The tensors themselves. Refused where they would be much more than the `available` bytes of their file.

    Tensors may share numbers, and a few bytes may pretend to be a large tensor: computing with such ones would take
    memory out of all proportion.
    """
    promised = sum(4 * math.prod(tensor.shape) for tensor in stored.values())  # as float32
    if promised > 4 * available + SLACK_BYTES:
        raise LvaeError(
            f"{source}: its tensors would take {promised} bytes, out of proportion to the file. Not loaded."
        )
    return {name: tensor.read() for name, tensor in stored.items()}
