"""Singular vectors drawn anew before each update, so that the penalty's sigma never converges: for comparisons."""

import torch

from lvae.manifests.seeds import derive
from lvae.train.devices.device import Device
from lvae.train.model import HierarchicalVAE


@torch.no_grad()
def redraw_singular_vectors(model: HierarchicalVAE, device: Device, seed: int, number: int) -> None:
    """Standard normal, as a function of (seed, number of the update): alike on all ranks."""
    vectors = model.singular_vectors()
    drawn = device.seeded_normals([derive(seed, "singular vectors", number)], sum(v.numel() for v in vectors))[0]
    start = 0
    for vector in vectors:
        vector.copy_(drawn[start : start + vector.numel()][None])
        start += vector.numel()
