"""Whether all processes of a run hold the same: settings at the start, and every number that they update."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.train.devices.device import Device
from lvae.train.loop.update import Updater
from lvae.train.runs.run import RunConfig

CHUNK = 1 << 22  # numbers taken at a time: bounds what a sum takes in memory
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # of numbers, by their bytes


def check_settings(run: Path, config: RunConfig, device: Device) -> None:
    """LvaeError where a process was started with other settings, or sees another RUN."""
    if device.processes > 1:
        number = int(records.sha256_of(config)[:15], 16)
        _compare(
            run, {"settings": number}, device, "Give the same command everywhere, and RUN on storage that all see."
        )


def check_state(run: Path, updater: Updater, step: int) -> None:
    """LvaeError where a process begins, after so many updates, with anything other that the next update depends on."""
    if updater.device.processes > 1:
        counts = {name: one for name, one in updater.groups()["optimizer"].items() if name.startswith("counts.")}
        vectors = list(updater.model.buffers())
        _compare_tensors(run, updater, step, {**_learned(updater), "vectors": vectors, "counts": list(counts.values())})


def check_weights(run: Path, updater: Updater, step: int) -> None:
    """LvaeError where a process holds other weights, averages or moments after an update. Waits for the device.

    Vectors of the spectral norm may round differently by now, and the weights do not follow them but their average.
    """
    if updater.device.processes > 1:
        _compare_tensors(run, updater, step, _learned(updater))


def _learned(updater: Updater) -> dict[str, list[Tensor]]:
    adam = updater.adam
    return {"weights": updater.parameters.tensors, **updater.averages, "moments": [*adam.first, *adam.second]}


def _compare_tensors(run: Path, updater: Updater, step: int, groups: Mapping[str, list[Tensor]]) -> None:
    device = updater.device
    found = {
        f"{name} after update {step}": fingerprint(device.fetch(one) if device.kind == "xla" else one for one in group)
        for name, group in groups.items()
    }
    advice = "All must see the same RUN; if they do, a device computes wrongly. The same command goes on from the "
    _compare(run, found, device, f"{advice}last checkpoint.")


def fingerprint(tensors: Iterable[Tensor]) -> int:
    """64 bits that change with any bit of the tensors, wherever these lie."""
    total, place = 0, 0
    for tensor in tensors:
        bits = tensor.detach().reshape(-1).view(BITS[tensor.element_size()])
        for piece in torch.split(bits, CHUNK):
            weights = torch.arange(place, place + len(piece), device=piece.device) * 2 + 1  # odd: no bit is lost
            total += int((piece.to(torch.int64) * weights).sum())
            place += len(piece)
    return (total + (1 << 63)) % (1 << 64) - (1 << 63)


def _compare(run: Path, found: Mapping[str, int], device: Device, advice: str) -> None:
    for name, number in found.items():
        said = device.from_all(number)
        for rank, other in enumerate(said):
            if other != said[0]:
                raise LvaeError(run, f"rank {rank} has other {name} than rank 0", advice)
