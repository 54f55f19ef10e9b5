"""The normal numbers that PyTorch's CPU generator draws from one seed an image, drawn for all of them on a device.

The generator is MT19937 (Matsumoto and Nishimura, 1998), whose words are integers: the same everywhere, bit for bit.
Sixteen of them become sixteen normals (Box and Muller), which devices round in their own ways, within 2e-6.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WORDS, MIDDLE = 624, 397
UPPER, LOWER, MATRIX = 0x80000000, 0x7FFFFFFF, 0x9908B0DF
BLOCK = 16  # numbers that PyTorch makes at a time; fewer take another way there


def seeded_normals(seeds: Sequence[int], size: int, device: torch.device) -> Tensor:
    """float32 (n, size) on the device, size 16 or more: row i is torch.randn(size) of a CPU generator with seeds[i]."""
    if size < BLOCK:
        raise ValueError(f"{size} numbers a row are drawn another way")
    tail = BLOCK if size % BLOCK else 0  # where they do not fill the last block, the last sixteen are drawn anew
    uniforms = _uniforms(torch.from_numpy(_states(seeds)).to(device), size + tail)
    whole = size - size % BLOCK
    normals = _normals(uniforms[:, :whole])
    if not tail:
        return normals
    last = _normals(uniforms[:, size:])
    return torch.cat([normals[:, : size - BLOCK], last], 1)


def _states(seeds: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """The generators' first words, (n, 624): of a seed its lower 32 bits count."""
    words = np.empty((len(seeds), WORDS), np.uint64)
    words[:, 0] = [seed & 0xFFFFFFFF for seed in seeds]
    for i in range(1, WORDS):
        before = words[:, i - 1]
        words[:, i] = (1812433253 * (before ^ (before >> np.uint64(30))) + np.uint64(i)) & np.uint64(0xFFFFFFFF)
    return words.astype(np.int64)


def _uniforms(state: Tensor, size: int) -> Tensor:
    """float32 (n, size) in [0, 1), of 24 bits each."""
    drawn = []
    for _ in range(-(-size // WORDS)):
        state = _twist(state)
        drawn.append(state)
    words = torch.cat(drawn, 1)[:, :size]
    words = words ^ (words >> 11)
    words = words ^ ((words << 7) & 0x9D2C5680)
    words = words ^ ((words << 15) & 0xEFC60000)
    words = words ^ (words >> 18)
    return (words & 0xFFFFFF).to(torch.float32) * 2.0**-24


def _twist(old: Tensor) -> Tensor:
    """The next 624 words. Each needs two old ones and one that lies 397 further, an old one or a new one."""
    mixed = _mix(old[:, :-1], old[:, 1:])
    span = WORDS - MIDDLE
    first = old[:, MIDDLE:] ^ mixed[:, :span]
    second = first ^ mixed[:, span : 2 * span]
    third = second[:, : WORDS - 1 - 2 * span] ^ mixed[:, 2 * span :]
    last = second[:, WORDS - 1 - 2 * span, None] ^ _mix(old[:, -1:], first[:, :1])
    return torch.cat([first, second, third, last], 1)


def _mix(upper: Tensor, lower: Tensor) -> Tensor:
    word = (upper & UPPER) | (lower & LOWER)
    return (word >> 1) ^ ((word & 1) * MATRIX)


def _normals(uniforms: Tensor) -> Tensor:
    """Of each sixteen numbers the first eight give radii, the others angles."""
    first, second = uniforms.reshape(len(uniforms), -1, 2, BLOCK // 2).unbind(2)
    radius, angle = torch.sqrt(-2 * torch.log(1 - first)), 2 * math.pi * second
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], 2).flatten(1)
