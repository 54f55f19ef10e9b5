"""A micro-batch, or a batch of samples, as one recording, which a GPU does again at one word (CUDA graphs).

Untried on a GPU so far; so a recording is compared with what it was made of before it counts.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lvae.train.devices.device import Recorder

WARM_UP = 3  # passes before the recording: they compile, choose algorithms and allocate
TOLERANCE = 1e-3  # of what is measured and of gradients: algorithms may add in another order

Inputs = Sequence[Tensor | None]
logger = logging.getLogger(__name__)


class Replay:
    """Calls of `function`, which adds to `sums` in place and returns what it measured; replayed once recorded.

    forget: put away what a recording that failed has left behind.
    """

    def __init__(
        self, function: Callable[..., Tensor], sums: Sequence[Tensor], record: Recorder, forget: Callable[[], None]
    ):
        self._function, self._sums, self._record, self._forget = function, sums, record, forget
        self._calls = 0
        self._inputs: list[Tensor | None] = []
        self._replay: Callable[[], None] | None = None
        self._measured: Tensor | None = None

    @property
    def is_recorded(self) -> bool:
        return self._replay is not None

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        self._calls += 1
        if self._calls == WARM_UP + 1:
            return self._try_recording(inputs)
        if self._replay is None:
            return self._function(*inputs)
        return self._run(inputs)

    def _run(self, inputs: Inputs) -> Tensor:
        assert self._replay is not None and self._measured is not None
        for kept, given in zip(self._inputs, inputs, strict=True):
            if kept is not None and given is not None:
                kept.copy_(given)
        self._replay()
        return self._measured.clone()  # the next replay writes over it

    def _try_recording(self, inputs: Inputs) -> Tensor:
        before = [tensor.clone() for tensor in self._sums]
        measured = self._function(*inputs)
        wanted = [tensor.clone() for tensor in self._sums]
        self._inputs = [None if tensor is None else tensor.clone() for tensor in inputs]
        try:
            self._replay, self._measured = self._record(self._function, self._inputs)
            for tensor, value in zip(self._sums, before, strict=True):
                tensor.copy_(value)
            found = self._run(inputs)
            if not all(map(_alike, (found, *self._sums), (measured, *wanted))):
                raise RuntimeError("the recording computes something else")
        except RuntimeError as problem:
            logger.warning("no CUDA graph: %s; work goes on without, some launches slower", problem)
            self._replay, self._inputs = None, []
            self._forget()
            for tensor, value in zip(self._sums, wanted, strict=True):
                tensor.copy_(value)
        return measured


def _alike(found: Tensor, wanted: Tensor) -> bool:
    difference = torch.linalg.vector_norm(found - wanted)
    return bool(difference <= TOLERANCE * torch.linalg.vector_norm(wanted))  # not where one is no number
