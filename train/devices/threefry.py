"""Standard normal noise drawn on a device by counting: an entry is a function of the key and of its place.

For devices whose own generators cannot promise that, or where one array is cut among several of them.
"""

import math

import torch
from torch import Tensor

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
KEY_PARITY = 0x1BD11BDA
MASK_32 = 0xFFFFFFFF


def counted_normal(key: Tensor, rows: int, columns: int, first: int | Tensor = 0) -> Tensor:
    """float32 (rows, columns) on the device of `key`, int32 (2,): entry (i, j) is a function of the key, first + i, j.

    first: counted modulo 2^32; as a tensor int32 (1,) where it must not become part of a program.

    A counter-based generator made of additions, rotations and exclusive ors only (Salmon et al., 2011), so that a
    compiler may cut the array among devices as it likes. Pairs of words become pairs of normals (Box and Muller).
    """
    half = -(-columns // 2)
    start = first if isinstance(first, Tensor) else signed(first)
    row = (start + torch.arange(rows, dtype=torch.int32, device=key.device))[:, None].expand(rows, half)
    column = torch.arange(half, dtype=torch.int32, device=key.device)[None, :].expand(rows, half)
    radii, angles = threefry(key, row, column)
    radius = torch.sqrt(-2 * torch.log(_uniform(radii)))
    angle = 2 * math.pi * _uniform(angles)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :columns]


def threefry(key: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Threefry-2x32 with 20 rounds. int32 tensors stand for words of 32 bits, and wrap around."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ KEY_PARITY)
    first, second = first + keys[0], second + keys[1]
    for block in range(5):
        for distance in ROTATIONS[block % 2]:
            first = first + second
            second = _rotate(second, distance) ^ first
        first = first + keys[(block + 1) % 3]
        second = second + keys[(block + 2) % 3] + (block + 1)
    return first, second


def _rotate(words: Tensor, distance: int) -> Tensor:
    """To the left."""
    return (words << distance) | _shift_right(words, 32 - distance)


def _shift_right(words: Tensor, distance: int) -> Tensor:
    """Without the sign. XLA divides where it should shift, which rounds otherwise: what would be lost goes first."""
    return ((words & -(1 << distance)) >> distance) & ((1 << (32 - distance)) - 1)


def _uniform(words: Tensor) -> Tensor:
    """The upper 24 bits as a float32 in (0, 1]."""
    return (_shift_right(words, 8) + 1).to(torch.float32) * 2.0**-24


def key_of(seed: int) -> Tensor:
    """A 64-bit seed as a key: int32 (2,), on the CPU."""
    return torch.tensor([signed((seed >> shift) & MASK_32) for shift in (0, 32)], dtype=torch.int32)


def signed(word: int) -> int:
    """32 bits as an int32 has them."""
    return word - (1 << 32) if word >> 31 else word
