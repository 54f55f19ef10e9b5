"""Sampling as one recording, which a GPU does again at one word (CUDA graphs)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lvae.train.devices.device import Recorder
from lvae.train.loop.replay import Replay
from lvae.train.model import Decoded
from lvae.train.network.choices import Guidance


class ReplayedDecoder:
    """`HierarchicalVAE.decode` for draws of all groups, in batches of one shape; replayed once recorded.

    Guidance is part of the recording: that of the first call counts.
    """

    def __init__(self, decode: Callable[..., Decoded], record: Recorder):
        self._decode, self._guidance = decode, Guidance()
        self.replay = Replay(self._outputs, (), record, lambda: None)

    def __call__(
        self,
        z: Sequence[None],
        labels: Tensor | None,
        noise: Sequence[Tensor],
        guidance: Guidance,
        low_resolution: Tensor | None,
    ) -> Decoded:
        self._guidance = guidance
        mean, log_variance = self.replay(labels, low_resolution, *noise)
        return Decoded(mean, log_variance, [], [])

    def _outputs(self, labels: Tensor | None, low_resolution: Tensor | None, *noise: Tensor) -> Tensor:
        with _without_kept_casts():
            nothing = [None] * len(noise)
            out = self._decode(nothing, labels, noise, guidance=self._guidance, low_resolution=low_resolution)
        return torch.stack((out.mean, out.log_variance))


@contextmanager
def _without_kept_casts() -> Iterator[None]:
    """Rounded weights that autocast keeps die with its context, and a recording would go on reading them."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
