"""A model's parameters and gradients as few tensors: one run of memory where that is possible.

Averages, norms and the optimizer then make one pass over memory instead of a thousand small ones, and ranks exchange
one tensor. On XLA, where a compiler sees the whole step, every parameter stays a tensor of its own.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

ALIGNMENT = 64  # numbers: kernels want addresses that are multiples of a cache line


class Parameters:
    """The trained parameters of a model. `tensors`: one, whose pieces the parameters become; or each of them."""

    def __init__(self, model: nn.Module, flat: bool):
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.flat = flat
        self.tensors = [parameter.detach() for parameter in self._parameters.values()]
        if flat:
            self._offsets, size = _offsets(self.tensors)
            first = self.tensors[0]
            pieces = self._pieces(flat_tensor := torch.zeros(size, dtype=first.dtype, device=first.device))
            self._gradients = torch.zeros_like(flat_tensor)
            for parameter, piece in zip(self._parameters.values(), pieces, strict=True):
                piece.copy_(parameter.detach())
                parameter.data = piece
            self.tensors = [flat_tensor]
        self.clear_gradients()

    def like(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Zeros in the places of the parameters, for `named`; of another dtype if one is named."""
        return [torch.zeros_like(tensor, dtype=dtype) for tensor in self.tensors]

    def copies(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self.tensors]

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """`tensors`, or what `like` or `copies` gave, by parameters' names and in their shapes; nothing is copied."""
        return dict(zip(self._parameters, self._pieces(tensors[0]) if self.flat else tensors, strict=True))

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """The pieces of a flat tensor, laid out in memory as the parameters are."""
        return [
            flat.as_strided(parameter.shape, parameter.stride(), offset)
            for parameter, offset in zip(self._parameters.values(), self._offsets, strict=True)
        ]

    def clear_gradients(self) -> None:
        """Before a backward pass. Those of a flat tensor's pieces are pieces too, to which backward passes add."""
        pieces: Iterable[Tensor | None] = [None] * len(self._parameters)
        if self.flat:
            pieces = self._pieces(self._gradients.zero_())
        for parameter, piece in zip(self._parameters.values(), pieces, strict=True):
            parameter.grad = piece

    def gradients(self) -> list[Tensor]:
        """After backward passes, in the places of `tensors`."""
        if self.flat:
            return [self._gradients]
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters.values()]


def _offsets(parameters: Iterable[Tensor]) -> tuple[list[int], int]:
    """Where each parameter begins in a flat tensor, and how long that is."""
    offsets, end = [], 0
    for parameter in parameters:
        offsets.append(end)
        end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
    return offsets, end
