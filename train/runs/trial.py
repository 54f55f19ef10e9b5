"""How long a run will take: by its own log, else by trying how fast this device computes its model."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lvae.manifests.messages import duration
from lvae.train.devices.device import Device
from lvae.train.devices.lanes import Lanes
from lvae.train.losses import loss
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import noise_shapes
from lvae.train.runs.run import RunConfig

TRIED = 32  # latents, at most
TRIALS, PATIENCE = 5, 2.0  # seconds
LARGEST_ON_A_CPU = 150_000_000  # parameters; larger models take minutes to try
DAY = 86_400
RECENT = 10  # lines of a log


@dataclass(frozen=True)
class TimeEstimate:
    """Of what is left of a run. by: what the speed was taken from."""

    latents_per_second: float
    seconds: float
    by: str

    def line(self) -> str:
        left = f"{self.seconds:.0f} s" if self.seconds < 60 else duration(self.seconds)
        left = left if self.seconds < 2 * DAY else f"{self.seconds / DAY:.0f} days"
        return f"time, about         {left} at {self.latents_per_second:.3g} latents a second, {self.by}"


def estimate_time(
    config: RunConfig, log: Sequence[Mapping[str, Any]], parameters: int, device: Device
) -> TimeEstimate | None:
    """None where nothing can be said in a few seconds."""
    done = int(log[-1]["step"]) if log else 0
    latents = max(0, config.training.updates - done) * config.training.update_size
    speeds = [line["images_per_second"] for line in log[-RECENT:] if line.get("images_per_second")]
    if speeds:
        return TimeEstimate(median(speeds), latents / median(speeds), "by its log")
    if device.kind == "xla" or (device.kind == "cpu" and parameters > LARGEST_ON_A_CPU):
        return None
    speed = try_speed(config, device) * device.world * device.parts
    return TimeEstimate(
        speed, latents / speed, "by a trial of a few latents; saves, previews and validation come on top"
    )


def try_speed(config: RunConfig, device: Device) -> float:
    """Latents a second that one device takes forwards and backwards, in batches as they are trained, to a few."""
    model, training = config.model, config.executed()
    count = max(1, min(TRIED, training.batch // (device.world * device.parts)))
    network = device.place(HierarchicalVAE(model, recompute_from=training.recompute_from))
    lanes = Lanes(network, device.split(count))
    x = device.put(torch.zeros(count, model.channels, model.resolution, model.resolution))
    labels = device.put(torch.zeros(count, dtype=torch.int64)) if model.classes else None
    noise = [device.put(torch.zeros(count, *shape)) for shape in noise_shapes(model)]

    def compute(model: HierarchicalVAE, x: Tensor, labels: Tensor | None, *noise: Tensor) -> None:
        with device.autocast():
            out = model(x, labels, noise)
            schedule = device.put(torch.ones(len(out.rates)))
            found = loss(out, x, schedule, training.sigma_q, training.spectral_weight)
        torch.autograd.backward(found.total)

    tried: list[float] = []
    while len(tried) < 2 or (len(tried) < TRIALS and sum(tried) < PATIENCE):  # the first one warms up
        began = time.perf_counter()
        lanes(compute, (x, labels, *noise))
        device.synchronize()
        tried.append(time.perf_counter() - began)
    return count / min(tried)
