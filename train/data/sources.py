"""Where latents are read from: shards that are mapped, memory of the host, memory of the device, or a stream.

Latents travel to the device as they are stored, in 16 bits mostly, and become float32 there.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive
from lvae.manifests.statistics import PIXEL_VALUES
from lvae.train.config import TrainConfig
from lvae.train.data.stream import Stream
from lvae.train.devices.device import UPLOADED, Device, host_free_bytes

Placement = Literal["auto", "disk", "memory", "device"]
DEVICE_SHARE, MEMORY_SHARE = 0.25, 0.4  # of what is free, that a whole dataset may take unasked
GIB = 1 << 30


class Source(Protocol):
    """Where latents are read from, in two halves: in the reading thread, then on the device."""

    placement: str

    def read(self, indices: NDArray[np.int64], samples: NDArray[np.int64]) -> Tensor:
        """What goes to the device, (n, ...), for these latents as these samples of the sequence."""

    def finish(self, on_device: Tensor) -> Tensor:
        """The latents as float32 (n, C, h, w), not yet clipped."""


class Stored:
    """Latents as they are stored: mapped from the shards, or copied into memory whole."""

    def __init__(self, dataset: Dataset, device: Device, in_memory: bool):
        self.placement = "memory" if in_memory else "disk"
        self._dataset = dataset
        self._all = np.asarray(dataset.latents) if in_memory else None
        self._meaning = StoredMeaning(dataset, device)

    def read(self, indices: NDArray[np.int64], samples: NDArray[np.int64]) -> Tensor:
        latents = self._dataset.read(indices)[0] if self._all is None else self._all[indices]
        return torch.from_numpy(latents)

    def finish(self, on_device: Tensor) -> Tensor:
        return self._meaning(on_device)


class Resident:
    """All latents on the device; only their numbers travel."""

    placement = "device"

    def __init__(self, dataset: Dataset, device: Device):
        latents = dataset.latents

        def read(first: int, rows: Tensor) -> None:
            rows.numpy()[:] = latents[first : first + len(rows)]

        dtype = torch.from_numpy(np.empty(0, latents.dtype)).dtype
        self._all = device.upload(latents.shape, dtype, read)
        self._meaning = StoredMeaning(dataset, device)

    def read(self, indices: NDArray[np.int64], samples: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(indices)

    def finish(self, on_device: Tensor) -> Tensor:
        return self._meaning(self._all[on_device])


class Drawn:
    """Posteriors kept as mean and log-variance, of which every sample is a new draw, a function of (seed, sample)."""

    placement = "disk"

    def __init__(self, dataset: Dataset, seed: int):
        self._dataset, self._seed = dataset, seed

    def read(self, indices: NDArray[np.int64], samples: NDArray[np.int64]) -> Tensor:
        means, _ = self._dataset.read(indices, np.float32)
        assert self._dataset.log_variances is not None
        deviations = np.exp(0.5 * self._dataset.log_variances[indices].astype(np.float32))
        for mean, deviation, sample in zip(means, deviations, samples.tolist(), strict=True):
            generator = np.random.Generator(np.random.Philox(derive(self._seed, "posterior", sample)))
            mean += deviation * generator.standard_normal(mean.shape, np.float32)
        return torch.from_numpy(means)

    def finish(self, on_device: Tensor) -> Tensor:
        return on_device


class StoredMeaning:
    """Stored numbers as normalized float32; a byte of a pixel dataset means u/127.5 - 1, normalized."""

    def __init__(self, dataset: Dataset, device: Device):
        self._table: Tensor | None = None
        if dataset.manifest.view.dtype == "uint8":
            shift, scale = (np.array(v)[:, None] for v in (dataset.normalization.shift, dataset.normalization.scale))
            self._table = device.put_whole(torch.from_numpy(((PIXEL_VALUES - shift) / scale).astype(np.float32)))
            channels = torch.arange(len(self._table))[:, None, None] * 256
            self._channels = device.put_whole(channels)

    def __call__(self, stored: Tensor) -> Tensor:
        if self._table is None:
            return stored.to(torch.float32)
        return self._table.flatten()[stored.long() + self._channels]


def open_source(dataset: Dataset, device: Device, seed: int, placement: Placement = "auto") -> Source:
    """All latents on the device or in memory where they fit easily; mapped otherwise; tars elsewhere as a stream."""
    chosen = choose_placement(dataset, device, placement, dataset.folder.remote)
    if chosen == "stream":
        return Stream(dataset, seed, StoredMeaning(dataset, device))
    if dataset.log_variances is not None:
        return Drawn(dataset, seed)
    return Resident(dataset, device) if chosen == "device" else Stored(dataset, device, chosen == "memory")


def choose_placement(
    dataset: Dataset, device: Device, asked: Placement, streamed: bool
) -> Literal["stream", "disk", "memory", "device"]:
    """Where latents are kept. streamed: whether they lie elsewhere and are not copied here."""
    if streamed:
        return "stream"
    if dataset.manifest.autoencoder.store == "moments":
        return "disk"
    if asked != "auto":
        return asked
    size, free = len(dataset) * _latent_bytes(dataset), device.free_bytes()
    if device.kind != "cpu" and free is not None and size <= DEVICE_SHARE * free:
        return "device"
    return "memory" if size <= MEMORY_SHARE * host_free_bytes() / device.local_world else "disk"


def _latent_bytes(dataset: Dataset) -> int:
    """Of one, as it is stored."""
    return int(np.prod(dataset.manifest.view.shape)) * np.dtype(dataset.manifest.view.dtype).itemsize


@dataclass(frozen=True)
class DataPlan:
    """Where latents will lie, and what travels, in bytes.

    device_bytes: on each device. host_bytes: of memory that a process takes for them, the buffers of an upload
    included. update_bytes: sent to each device for an update.
    """

    placement: Literal["stream", "disk", "memory", "device"]
    device_bytes: int
    host_bytes: int
    update_bytes: int

    def line(self) -> str:
        where = {"disk": "mapped from disk", "memory": "in memory", "device": "on the device"}
        taken, whose = (self.device_bytes, "device") if self.device_bytes else (self.host_bytes, "process")
        size = f", {taken / GIB:.2f} GiB a {whose}" if taken else ""
        sent = f"{self.update_bytes / 1e6:.3g} MB sent to a device for an update"
        return f"{where.get(self.placement, 'read as a stream')}{size}; {sent}"


def plan_data(
    dataset: Dataset, device: Device, training: TrainConfig, classes: int, placement: Placement, streamed: bool
) -> DataPlan:
    """Reckoned before anything is read. streamed: see `choose_placement`."""
    chosen = choose_placement(dataset, device, placement, streamed)
    stored = _latent_bytes(dataset)
    whole = len(dataset) * stored
    each = training.update_size // (device.world * device.parts)
    drawn = dataset.manifest.autoencoder.store == "moments"
    latent = 4 * int(np.prod(dataset.manifest.view.shape)) if drawn else 8 if chosen == "device" else stored
    label = 9 if classes else 0  # int64, and whether it is dropped
    on_device = whole if chosen == "device" else 0
    on_host = {"memory": whole, "device": 2 * min(UPLOADED, whole)}.get(chosen, 0)
    return DataPlan(chosen, on_device, on_host, each * (latent + label))
