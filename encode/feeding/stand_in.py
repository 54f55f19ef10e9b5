"""A stand-in for an accelerator: answers after a set time a batch, and leaves the CPU alone meanwhile.

With it, whatever feeds a device can be tested and measured where there is none. Its latents are every f-th pixel, so
that they are a function of the image; a dataset made with them is good for nothing else.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.devices import STAND_IN
from lvae.encode.feeding.encoder import IN_FLIGHT
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Encoding


class StandIn:
    """busy: from when to when it had a batch, one after the other, in seconds of time.monotonic()."""

    accelerated = True
    in_flight = IN_FLIGHT

    def __init__(self, encoding: Encoding, device: str):
        self._encoding = encoding
        self.batch = encoding.batch
        self._seconds = self.batch * encoding.image.orientations / read_rate(device)
        self._free_at = 0.0
        self.busy: list[tuple[float, float]] = []

    def submit(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[str]) -> "Answer":
        """A batch takes its time whether it is full or not, as one that is filled up does."""
        start = max(self._free_at, time.monotonic())
        self._free_at = start + self._seconds
        self.busy.append((start, self._free_at))
        return Answer(self._encode(np.asarray(pixels)), self._free_at)

    def _encode(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        channels = np.arange(self._encoding.raw_shape[0]) % 3
        factor = self._encoding.autoencoder.downsampling_factor
        views = [pixels, pixels[:, :, ::-1]] if self._encoding.image.mirrored else [pixels]
        found = np.stack([view[:, ::factor, ::factor][..., channels] for view in views], axis=1)
        latents = np.ascontiguousarray(np.moveaxis(found, -1, 2))
        return latents if self._encoding.autoencoder.pixels else latents.astype(np.float32) / 127.5 - 1


@dataclass(frozen=True)
class Answer:
    """Latents that are not to be had before a moment."""

    latents: NDArray[Any]
    ready_at: float

    def result(self) -> NDArray[Any]:
        time.sleep(max(0.0, self.ready_at - time.monotonic()))
        return self.latents


def read_rate(device: str) -> float:
    """Images a second of stand-in:RATE."""
    try:
        rate = float(device.removeprefix(STAND_IN))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise LvaeError(f"--device {device}", "write stand-in:RATE, a number of images a second")
    return rate
