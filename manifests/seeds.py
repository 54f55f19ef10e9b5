"""Every draw is a function of (seed, purpose, index), and an order can be computed by index."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError

ROUNDS = 8  # of the Feistel network: four suffice in theory (Luby and Rackoff, 1988), more help small ranges


def derive(seed: int, purpose: str, index: int | str) -> int:
    """A 64-bit seed for one draw. Hashed, never added: (0, "a", 1) and (1, "a", 0) share nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()[:8], "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64: every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(positions: NDArray[np.int64], count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Where a seeded permutation of range(count) sends these positions: int64 (n,) -> int64 (n,).

    Needs no memory beyond its arguments, so an order over billions of rows costs nothing to hold. A balanced
    Feistel network permutes the next power of four; values that fall outside of the range walk on along their
    cycle until they fall inside, which keeps it a permutation of the range.
    """
    return _walk(positions, count, [np.uint64(derive(seed, purpose, round_)) for round_ in range(ROUNDS)], _forwards)


def unpermute(places: NDArray[np.int64], count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """The positions that `permute` sends to these places: int64 (n,) -> int64 (n,)."""
    keys = [np.uint64(derive(seed, purpose, round_)) for round_ in reversed(range(ROUNDS))]
    return _walk(places, count, keys, _backwards)


Halves = tuple[NDArray[np.uint64], NDArray[np.uint64]]


def _forwards(left: NDArray[np.uint64], right: NDArray[np.uint64], key: np.uint64, mask: np.uint64) -> Halves:
    return right, left ^ (_mix(right ^ key) & mask)


def _backwards(left: NDArray[np.uint64], right: NDArray[np.uint64], key: np.uint64, mask: np.uint64) -> Halves:
    return right ^ (_mix(left ^ key) & mask), left


def _walk(
    positions: NDArray[np.int64],
    count: int,
    keys: list[np.uint64],
    step: Callable[[NDArray[np.uint64], NDArray[np.uint64], np.uint64, np.uint64], Halves],
) -> NDArray[np.int64]:
    if len(positions) and not (int(positions.min()) >= 0 and int(positions.max()) < count):
        raise IndexError(f"positions must lie in [0, {count})")
    half = max(1, ((max(count, 2) - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    walking = np.arange(len(positions))
    values = positions.astype(np.uint64)
    result = np.empty(len(positions), np.int64)
    while len(walking):
        left, right = values >> shift, values & mask
        for key in keys:
            left, right = step(left, right, key, mask)
        values = (left << shift) | right
        inside = values < np.uint64(count)
        result[walking[inside]] = values[inside].astype(np.int64)
        walking, values = walking[~inside], values[~inside]
    return result


def chosen(there: int, num: int | None, where: str, seed: int) -> NDArray[np.int64]:
    """Which of so many rows count: all, or a seeded choice of `num`, in order."""
    if num is not None and num > there:
        raise LvaeError(where, f"holds {there}, and --num asks for {num}", "Ask for fewer, or make more.")
    if num is None or num == there:
        return np.arange(there)
    return np.sort(np.random.default_rng(derive(seed, "chosen", there)).choice(there, num, replace=False))
