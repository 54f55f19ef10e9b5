"""A GPU beside the CPU: pinned buffers, copies on streams of their own, and a network that is compiled once."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lvae.manifests.parts.plan import Encoding

Forward = Callable[[torch.Tensor], torch.Tensor]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lane:
    """Pinned buffers of one batch. pixels: uint8 (B, H, W, 3). latents: float32 (B, orientations, C, h, w)."""

    pixels: torch.Tensor
    latents: torch.Tensor


class Lanes:
    """Batches on their way: uploads, the network and downloads each have a stream, so that none waits for another."""

    def __init__(self, device: str, encoding: Encoding, count: int):
        torch.cuda.set_device(device)
        self._device = device
        side, orientations = encoding.image.size, encoding.image.orientations
        shape = (encoding.batch, orientations, *encoding.raw_shape)
        self._free = deque(
            Lane(
                torch.zeros((encoding.batch, side, side, 3), dtype=torch.uint8, pin_memory=True),
                torch.empty(shape, dtype=torch.float32, pin_memory=True),
            )
            for _ in range(count)
        )
        self._upload, self._download = _stream(device), _stream(device)

    def submit(self, pixels: Sequence[NDArray[np.uint8]], compute: Forward) -> "PendingOnGpu":
        """compute: from the batch on the device, filled up with images that do not count, to its latents there."""
        torch.cuda.set_device(self._device)  # counts for the calling thread alone
        lane = self._free.popleft()
        for place, image in zip(lane.pixels.numpy(), pixels, strict=False):
            place[:] = image
        network = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._upload):
            images = lane.pixels.to(self._device, non_blocking=True)
        network.wait_stream(self._upload)
        images.record_stream(network)
        latents = compute(images)
        self._download.wait_stream(network)
        with torch.cuda.stream(self._download):
            lane.latents.copy_(latents, non_blocking=True)
            latents.record_stream(self._download)
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # waiting leaves the core to others
            done.record(self._download)
        return PendingOnGpu(lane, len(pixels), done, self._free)


def _stream(device: str) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class PendingOnGpu:
    """A batch of which `count` images matter. free: where its buffers go once its result was taken."""

    lane: Lane
    count: int
    done: Any
    free: deque[Lane]

    def result(self) -> NDArray[np.float32]:
        self.done.synchronize()
        latents: NDArray[np.float32] = self.lane.latents[: self.count].numpy().copy()
        self.free.append(self.lane)
        return latents


def compile_for(forward: Forward, backend: str | Callable[..., Any] = "inductor") -> Forward:
    """The network compiled, with CUDA graphs where they are; as it is where the compiler cannot do it."""
    mode = "reduce-overhead" if backend == "inductor" else None
    compiled: Forward = torch.compile(forward, backend=backend, mode=mode, dynamic=False)
    chosen: list[Forward] = []

    def run(images: torch.Tensor) -> torch.Tensor:
        if not chosen:
            try:
                compiled(images)
                chosen.append(lambda images: compiled(images).clone())  # a graph writes its next result over this one
            except Exception as error:  # whatever a compiler lacks here: a C compiler, headers, an operation
                if isinstance(getattr(error, "inner_exception", error), torch.OutOfMemoryError):
                    _log.warning("compiled, the network needs more memory than the device has; it runs as it is")
                    torch.compiler.reset()
                    torch.cuda.empty_cache()
                else:
                    first = (str(error) or type(error).__name__).splitlines()[0]
                    _log.warning("the network cannot be compiled here (%s); it runs as it is", first)
                chosen.append(forward)
        return chosen[0](images)

    return run
