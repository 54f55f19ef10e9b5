"""From shards to batches: an endless sequence of samples, whose order is a function of (seed, epoch, index).

Sample p of the sequence is latent `permutation(seed, epoch)[p % N]` with epoch = p // N: nothing is dropped, and nobody
needs to remember anything but a position. Update u sees samples u * batch * accumulate and following, in micro-batches
of `batch`, of which every rank takes an equal slice. What is needed next is read ahead by a thread.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive, permute
from lvae.train.config import TrainConfig
from lvae.train.data.checks import UNLABELLED, check_range
from lvae.train.data.sources import Source
from lvae.train.data.stream import Stream
from lvae.train.devices.device import Device
from lvae.train.network.noise import draw_drop

UPDATES_AHEAD = 2


class Batch(NamedTuple):
    """A rank's part of a micro-batch, on the device.

    latents (b, C, h, w) float32; labels (b,) int64 and dropped (b,) bool, or None for an unconditional model; first:
    the position of its first sample in the endless sequence of samples.
    """

    latents: Tensor
    labels: Tensor | None
    dropped: Tensor | None
    first: int


def order(first: int, count: int, latents: int, seed: int) -> NDArray[np.int64]:
    """Which latents, of so many, are samples first .. first + count of the sequence: int64 (count,)."""
    samples = np.arange(first, first + count, dtype=np.int64)
    epochs, places = np.divmod(samples, latents)
    result = np.empty(count, np.int64)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        result[here] = permute(places[here], latents, seed, f"epoch/{epoch}")
    return result


def clip_latents(latents: Tensor, bound: float | None) -> Tensor:
    return latents if bound is None else latents.clamp(-bound, bound)


def renumber(labels: NDArray[np.int64], numbers: Sequence[int] | None) -> NDArray[np.int64]:
    """Labels (n,) of a dataset as the model knows them. numbers: of each class of the dataset; None: the same."""
    return labels if numbers is None else np.array([*numbers, UNLABELLED])[labels]


class Batches:
    """The endless sequence of a rank's micro-batches, from a position on. `waited` seconds so far for data."""

    def __init__(
        self,
        source: Source,
        dataset: Dataset,
        config: TrainConfig,
        device: Device,
        classes: int,
        first: int,
        numbers: Sequence[int] | None = None,
    ):
        """first: position of the next sample, a multiple of batch * accumulate. numbers: see `renumber`."""
        self.source, self.dataset, self._config, self._device = source, dataset, config, device
        self.numbers = numbers
        self._classes, self._latents = classes, len(dataset)
        self._labels = dataset.labels if classes and not isinstance(source, Stream) else None
        self.waited = 0.0
        self._ready: queue.Queue[list[tuple[Tensor, ...]] | BaseException] = queue.Queue(UPDATES_AHEAD)
        self._first, self._closed = first, threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, args=(first,), name="batches", daemon=True)
        self._thread.start()

    def next(self) -> list[Batch]:
        """The micro-batches of the next update."""
        begin = time.perf_counter()
        read = self._ready.get()
        self.waited += time.perf_counter() - begin
        if isinstance(read, BaseException):
            raise read
        batches = [self._batch(number, tensors) for number, tensors in enumerate(read)]
        self._first += self._config.batch * self._config.accumulate
        return batches

    def _batch(self, number: int, tensors: tuple[Tensor, ...]) -> Batch:
        stored, *rest = (self._device.put(tensor) for tensor in tensors)
        latents = clip_latents(self.source.finish(stored), self._config.clip)
        labels, dropped = rest or (None, None)
        self._device.mark_step()  # not part of what is computed with it, whatever the number of micro-batches
        return Batch(latents, labels, dropped, self._first + self._offset(number))

    def _offset(self, number: int) -> int:
        """Of this rank's slice of a micro-batch, from an update's first sample."""
        return number * self._config.batch + self._device.rank * (self._config.batch // self._device.world)

    def _read_ahead(self, first: int) -> None:
        try:
            for update in self._updates(first):
                while not self._closed.is_set():
                    try:
                        self._ready.put(update, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if self._closed.is_set():
                    return
        except BaseException as error:  # handed to the thread that trains, which raises it
            self._ready.put(error)

    def _updates(self, first: int) -> Iterator[list[tuple[Tensor, ...]]]:
        while True:
            yield [self._read(first + self._offset(number)) for number in range(self._config.accumulate)]
            first += self._config.batch * self._config.accumulate

    def _read(self, first: int) -> tuple[Tensor, ...]:
        """This rank's slice of a micro-batch: what the source reads, and labels and whose are dropped."""
        count, seed = self._config.batch // self._device.world, self._config.seed
        samples = np.arange(first, first + count)
        labels: NDArray[np.int64] | None = None
        if isinstance(self.source, Stream):
            read, labels = self.source.take(first, count)
            check_range(labels, self._classes if self.numbers is None else len(self.numbers))
        else:
            indices = order(first, count, self._latents, seed)
            read = self.source.read(indices, samples)
            labels = None if self._labels is None else self._labels[indices].astype(np.int64)
        tensors = [read]
        if self._classes and labels is not None:
            tensors.append(torch.from_numpy(renumber(labels, self.numbers)))
            seeds = [derive(seed, "drop", sample) for sample in samples.tolist()]
            tensors.append(draw_drop(seeds, self._config.label_drop))
        return tuple(self._device.pin(tensor) for tensor in tensors)

    def close(self) -> None:
        """End the reading thread; what it has read ahead is forgotten."""
        self._closed.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.01)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
