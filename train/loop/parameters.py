"""A model's parameters and gradients as few tensors: one run of memory where that is possible.

Averages, norms and the optimizer then make one pass over memory instead of a thousand small ones, and ranks exchange
one tensor. On XLA, where a compiler sees the whole step, every parameter stays a tensor of its own.
"""

import bisect
import functools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lvae.train.devices.device import Device
from lvae.train.loop.rounded import RoundedWeights

BUCKET = 1 << 22  # numbers exchanged at a time, 16 MiB: large enough for a network, small enough to begin early
Handle = Callable[[], None]
ALIGNMENT = 64  # numbers: kernels want addresses that are multiples of a cache line
SENT = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # between ranks, by the device's `reduce_precision`


class Parameters:
    """The trained parameters of a model. `tensors`: one, whose pieces the parameters become; or each of them.

    rounded: names of parameters that become pieces of a bfloat16 copy instead; needs `flat`. `refresh` that copy after
    a change of `tensors`. masters: names of those of which float32 weights are wanted as leaves, too; see `add`.
    """

    def __init__(
        self, model: nn.Module, flat: bool, rounded: Collection[str] = (), masters: Collection[str] = ()
    ) -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.flat = flat
        self.tensors = [parameter.detach() for parameter in self._parameters.values()]
        self.masters: dict[str, Tensor] = {}
        self._rounded: RoundedWeights | None = None
        if flat:
            self._offsets, size = _offsets(self.tensors)
            first = self.tensors[0]
            pieces = self._pieces(flat_tensor := torch.zeros(size, dtype=first.dtype, device=first.device))
            self._gradients = torch.zeros_like(flat_tensor)
            for parameter, piece in zip(self._parameters.values(), pieces, strict=True):
                piece.copy_(parameter.detach())
                parameter.data = piece
            self.tensors = [flat_tensor]
        if rounded:
            weights = self.named(self.tensors)
            self.masters = {name: weights[name].detach().requires_grad_() for name in masters}
            places = dict(zip(self._parameters, self._offsets, strict=True))
            self._rounded = RoundedWeights(
                [(self._parameters[name], places[name]) for name in rounded], self.tensors[0], self._gradients
            )
        self._summed = [(name, p) for name, p in self._parameters.items() if name not in rounded]

    def like(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Zeros in the places of the parameters, for `named`; of another dtype if one is named."""
        return [torch.zeros_like(tensor, dtype=dtype) for tensor in self.tensors]

    def copies(self) -> list[Tensor]:
        return [tensor.clone() for tensor in self.tensors]

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """`tensors`, or what `like` or `copies` gave, by parameters' names and in their shapes; nothing is copied."""
        return dict(zip(self._parameters, self._pieces(tensors[0]) if self.flat else tensors, strict=True))

    def refresh(self) -> None:
        """Round the weights anew, where they are rounded."""
        if self._rounded is not None:
            self._rounded.refresh()

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """The pieces of a flat tensor, laid out in memory as the parameters are."""
        return [
            flat.as_strided(parameter.shape, parameter.stride(), offset)
            for parameter, offset in zip(self._parameters.values(), self._offsets, strict=True)
        ]

    def clear_gradients(self) -> None:
        """Before an update's first backward pass. Those of a flat tensor's pieces are pieces too, which passes add to.

        Before the first forward pass there are none: a compiler looks long at gradients that are views. On XLA they are
        there from the start, and cleared by the program that used them.
        """
        if self.flat:
            pieces = self.named([self._gradients.zero_()])
            for name, parameter in self._summed:  # of the others `collect` takes them
                parameter.grad = pieces[name]
            return
        for parameter in self._parameters.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()

    def collect(self) -> None:
        """After a backward pass: what it left in bfloat16 joins the gradients."""
        if self._rounded is not None:
            self._rounded.collect()

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """More gradients, by parameters' names."""
        pieces = self.named([self._gradients])
        torch._foreach_add_([pieces[name] for name in gradients], list(gradients.values()))

    def forget(self) -> None:
        """What a backward pass left that did not end; what it added to the gradients stays."""
        if self._rounded is not None:
            self._rounded.forget()

    def lend(self, twin: nn.Module) -> Tensor:
        """Let another model that has these parameters sum its gradients in one flat tensor, which is returned."""
        gradients = torch.zeros_like(self._gradients)
        pieces = self.named([gradients])
        for name, parameter in twin.named_parameters():
            if name in pieces:
                parameter.grad = pieces[name]
        return gradients

    def exchange(self, device: Device) -> "Exchange | None":
        """The gradients' mean over ranks, begun while a backward pass still runs; None where that is not possible."""
        if not self.flat or device.world == 1:
            return None
        return Exchange(list(self._parameters.values()), self._offsets, self._gradients, self._rounded, device)

    def gradients(self) -> list[Tensor]:
        """After backward passes, in the places of `tensors`."""
        if self.flat:
            return [self._gradients]
        return [p.grad for p in self._parameters.values() if p.grad is not None]


class Exchange:
    """Averages a flat gradient over ranks in buckets, each begun as soon as a backward pass has filled it.

    Backward passes fill it from its end, roughly, so the last bucket is begun first; all ranks begin them in this one
    order, whatever is filled when. `arm` before the last backward pass of an update, `finish` after it. What is sent
    may be rounded to bfloat16; every rank then takes the same rounded mean. rounded: what collects gradients in
    bfloat16, if there are any.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        offsets: list[int],
        flat: Tensor,
        rounded: RoundedWeights | None,
        device: Device,
    ):
        self._device, self._rounded, self._sent = device, rounded, SENT[device.reduce_precision]
        starts = _bucket_starts(offsets, BUCKET)
        self._spans = list(zip(starts, [*starts[1:], flat.numel()], strict=True))
        self._buckets = [flat[start:end] for start, end in self._spans]
        self._wanted = [0] * len(starts)
        for parameter, offset in zip(parameters, offsets, strict=True):
            number = bisect.bisect_right(starts, offset) - 1
            self._wanted[number] += 1
            hook = functools.partial(self._filled, number)
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self._left = list(self._wanted)
        self._next = -1  # the bucket to begin next, counted down; -1: not armed
        self.armed = False  # whether this backward pass is the last one
        self._under_way: list[tuple[Handle, Tensor, Tensor]] = []  # what waits, a bucket, and what is sent of it
        self.began: list[tuple[int, float]] = []  # of the last update: numbers of buckets and when they were begun

    @property
    def bytes(self) -> int:
        """That a rank hands over in an update."""
        return sum(bucket.numel() for bucket in self._buckets) * self._sent.itemsize

    def arm(self) -> None:
        """The next backward pass is the last one of the update."""
        self._left, self._next, self.armed = list(self._wanted), len(self._buckets) - 1, True
        self.began = []

    def _filled(self, number: int, parameter: Tensor) -> None:
        if self.armed:
            self._left[number] -= 1
            while self._next >= 0 and self._left[self._next] <= 0:
                self._begin()

    def _begin(self) -> None:
        if self._rounded is not None:
            self._rounded.collect(*self._spans[self._next])
        self.began.append((self._next, time.perf_counter()))
        bucket = self._buckets[self._next]
        sent = bucket.to(self._sent)  # the bucket itself in full precision
        self._under_way.append((self._device.begin_average(sent), bucket, sent))
        self._next -= 1

    def finish(self) -> None:
        """Begin what no hook began (parameters without a gradient), and wait for all."""
        while self._next >= 0:
            self._begin()
        for wait, bucket, sent in self._under_way:
            wait()
            if sent is not bucket:
                bucket.copy_(sent)
        self._under_way, self.armed = [], False


def exchanged_bytes(model: nn.Module, device: Device) -> int:
    """Of gradients that a rank will hand over in an update; 0 where there is nobody to exchange them with."""
    size = _offsets(p for p in model.parameters() if p.requires_grad)[1]
    return 0 if device.world == 1 else size * SENT[device.reduce_precision].itemsize


def _bucket_starts(offsets: list[int], size: int) -> list[int]:
    """Where buckets of about `size` numbers begin: at parameters, from the end."""
    starts: list[int] = []
    for offset in offsets:
        if not starts or offset - starts[-1] >= size:
            starts.append(offset)
    return starts


def _offsets(parameters: Iterable[Tensor]) -> tuple[list[int], int]:
    """Where each parameter begins in a flat tensor, and how long that is."""
    offsets, end = [], 0
    for parameter in parameters:
        offsets.append(end)
        end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
    return offsets, end
