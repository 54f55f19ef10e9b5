"""The weights that layers compute with in bfloat16: one rounded copy of the float32 ones, made once an update.

Without it every layer rounds its own weights in every pass, and turns every gradient back: thousands of operations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

DTYPE = torch.bfloat16


class RoundedWeights:
    """Parameters become pieces of a rounded copy of `weights`, a flat float32 tensor; `gradients` is one, too.

    pieces: a parameter and its place in the flat tensors each. A backward pass leaves gradients in bfloat16, as its
    products give them; `collect` adds those to `gradients`, so that only one pass is ever rounded, never their sum.
    """

    def __init__(self, pieces: Sequence[tuple[nn.Parameter, int]], weights: Tensor, gradients: Tensor):
        self._weights, self._gradients = weights, gradients
        self._rounded, self._found = (torch.zeros_like(weights, dtype=DTYPE) for _ in range(2))
        self._pieces = []
        for parameter, offset in pieces:
            place = parameter.shape, parameter.stride(), offset
            self._pieces.append((parameter, offset, self._found.as_strided(*place)))
            parameter.data = self._rounded.as_strided(*place)
        self.refresh()

    def refresh(self) -> None:
        """After the float32 weights have changed."""
        self._rounded.copy_(self._weights)

    def collect(self, first: int = 0, end: int | None = None) -> None:
        """After a backward pass: its gradients join `gradients`, from `first` to `end` in the flat tensors."""
        end = self._weights.numel() if end is None else end
        here = [(parameter, place) for parameter, offset, place in self._pieces if first <= offset < end]
        given = [(place, parameter.grad) for parameter, place in here if parameter.grad is not None]
        torch._foreach_copy_([place for place, _ in given], [gradient for _, gradient in given])
        for parameter, place in here:
            if parameter.grad is None:
                place.zero_()
            parameter.grad = None
        self._gradients[first:end].add_(self._found[first:end])

    def forget(self) -> None:
        """Gradients that were not collected count for nothing."""
        for parameter, _, _ in self._pieces:
            parameter.grad = None
