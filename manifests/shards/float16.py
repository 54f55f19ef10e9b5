"""float16 to float32, faster than a cast and equal to it in every bit."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

BLOCK = 1 << 16  # values widened at a time: the passes stay in a 1 MiB cache
FIELDS = np.int32(-0x70002000)  # 0x8FFFE000: where the sign, exponent and fraction of a half land in a float
REBIAS = np.float32(2.0**112)  # a float's exponent is biased by 127, a half's by 15
BEYOND = 65536.0  # what the exponent of infinity and NaN means as an ordinary one


def widen(halves: NDArray[np.float16], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The same values as float32, in a contiguous array of the same shape: `out`, or a fresh one.

    A half's bits, moved into a float's fields, are a float 2^112 too small, subnormal or not; multiplying by a power
    of two is exact (in a thread that does not flush subnormals to zero). Halves that are infinite or NaN come out as
    ordinary numbers from 65,536 on and are cast again.
    """
    source = np.ascontiguousarray(halves).reshape(-1)
    result = np.empty(source.size, np.float32) if out is None else out.reshape(-1)
    for start in range(0, source.size, BLOCK):
        _widen_block(source[start : start + BLOCK], result[start : start + BLOCK])
    return result.reshape(halves.shape)


def _widen_block(source: NDArray[np.float16], result: NDArray[np.float32]) -> None:
    bits = result.view(np.int32)
    bits[...] = source.view(np.int16)  # the sign fills the upper half
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, FIELDS, out=bits)
    np.multiply(result, REBIAS, out=result)
    if result.max() >= BEYOND or result.min() <= -BEYOND:
        special = np.abs(result) >= BEYOND
        result[special] = source[special].astype(np.float32)


def cast(values: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    """`values.astype(dtype, copy=False)`, or the values as they are for None."""
    if dtype is None:
        return values
    if values.dtype == np.float16 and np.dtype(dtype) == np.float32:
        return widen(values)
    return values.astype(dtype, copy=False)
