"""A micro-batch in slices, each of which a thread of its own computes: models whose operations are small gain from that
where more threads of one operation do nothing for them.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
Found = TypeVar("Found")


class Lanes(Generic[Module]):
    """Threads with a model each, all of one memory of weights and buffers; gradients are each model's own.

    models: the one that was given, then the others. Operations of a lane run on so many threads as PyTorch was told.
    """

    def __init__(self, model: Module, count: int):
        shared: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}

        def twin() -> Module:
            own = {id(one): nn.Parameter(one.detach(), one.requires_grad) for one in model.parameters()}
            return copy.deepcopy(model, {**shared, **own})

        self.models = [model, *(twin() for _ in range(count - 1))]
        self._pool = ThreadPoolExecutor(max(1, count - 1), "lane", torch.set_num_threads, (torch.get_num_threads(),))

    def __call__(self, compute: Callable[..., Found], inputs: Sequence[Tensor | None]) -> list[Found]:
        """compute(model, *slices) of every lane. inputs: (b, ...) each, or None; b is a multiple of the lanes."""
        count = len(self.models)
        slices = list(zip(*([None] * count if one is None else one.chunk(count) for one in inputs), strict=True))
        tasks = [
            self._pool.submit(compute, model, *some) for model, some in zip(self.models[1:], slices[1:], strict=True)
        ]
        return [compute(self.models[0], *slices[0]), *(task.result() for task in tasks)]
