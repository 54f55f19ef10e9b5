"""The squared MMD of many subsets of two sets of rows, with the kernel (x.y/d + 1)^3 of two rows computed once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Subsets = Sequence[NDArray[Any]]  # numbers of rows, without repetition, as many in each
KERNEL_BLOCK = 1000  # rows of the kernel held at a time


def mmd_of_subsets(x: NDArray[Any], y: NDArray[Any], of_x: Subsets, of_y: Subsets) -> Floats:
    """The unbiased estimate for every pair of subsets, rows of x (m, d) and of y (n, d): (subsets,), in float64."""
    m, n = len(of_x[0]), len(of_y[0])
    within_x = _kernel_sums(x, x, of_x, of_x) - _kernel_diagonals(x, of_x)
    within_y = _kernel_sums(y, y, of_y, of_y) - _kernel_diagonals(y, of_y)
    return within_x / (m * (m - 1)) + within_y / (n * (n - 1)) - 2 * _kernel_sums(x, y, of_x, of_y) / (m * n)


def _kernel_sums(x: NDArray[Any], y: NDArray[Any], of_x: Subsets, of_y: Subsets) -> Floats:
    in_x, in_y, sums = _membership(of_x, len(x)), _membership(of_y, len(y)), np.zeros(len(of_x))
    other = y.astype(np.float64)
    for start in range(0, len(x), KERNEL_BLOCK):
        block = slice(start, start + KERNEL_BLOCK)
        base = x[block].astype(np.float64) @ other.T
        base /= x.shape[1]
        base += 1
        kernel = base * base  # a power of 3 would be computed by logarithms
        kernel *= base
        sums += ((in_x[:, block] @ kernel) * in_y).sum(axis=1)
    return sums


def _kernel_diagonals(x: NDArray[Any], of_x: Subsets) -> Floats:
    diagonal = ((x.astype(np.float64) ** 2).sum(axis=1) / x.shape[1] + 1) ** 3
    found: Floats = _membership(of_x, len(x)) @ diagonal
    return found


def _membership(subsets: Subsets, count: int) -> Floats:
    """(subsets, count): 1 where a row is in a subset."""
    found = np.zeros((len(subsets), count))
    for row, chosen in zip(found, subsets, strict=True):
        row[chosen] = 1
    return found
