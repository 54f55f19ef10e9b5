"""A training step of ours beside the published model's arithmetic in a minimal loop, in turns, and where its time goes.

    python tests/benchmarks/train_step.py [--cases tiny:32,small:16,church256-f8:4] [--steps 5] [--threads 2]
        [--device cpu] [--precision float32] [--compile] [--record]

The minimal loop has the same model with attention as published, the same dtype and batch, torch's own Adam, one EMA
and one power iteration a parameter at a time, and fresh noise from torch.randn. FLOPs are those of convolutions and
matrix products, forward and backward, as torch's counter counts them; the machine's peak is the best of several large
matrix products of the same dtype, measured in the same run. Median seconds of a step; both loops take turns.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from machine import describe
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.data.batches import Batch
from lvae.train.devices.device import Device, Precision
from lvae.train.devices.open import open_device
from lvae.train.loop.update import Updater
from lvae.train.losses import loss, rate_schedule
from lvae.train.model import HierarchicalVAE
from lvae.train.network.layers import RegularizedConvolution
from lvae.train.network.noise import noise_shapes
from lvae.train.presets import preset

RECORD = Path(__file__).with_suffix(".md")
KINDS = {  # operators by what they are, the first that fits
    "convolutions": ("conv",),
    "matrix products": ("mm", "linear", "matmul", "einsum", "dot_product", "attention"),
    "memory layout": ("copy_", "contiguous", "clone", "to_", "cat", "stack", "narrow", "slice"),
    "optimizer and average": ("adam", "lerp", "foreach"),
    "activations": ("silu",),
}


def batch_of(config: ModelConfig, size: int, device: Device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(size, config.channels, config.resolution, config.resolution, generator=generator)
    labels = torch.arange(size) % config.classes if config.classes else None
    dropped = torch.zeros(size, dtype=torch.bool) if config.classes else None
    put = device.put
    return Batch(
        put(latents), labels if labels is None else put(labels), dropped if dropped is None else put(dropped), 0
    )


def ours(config: ModelConfig, training: TrainConfig, batch: Batch, device: Device) -> Callable[[], None]:
    updater = Updater(HierarchicalVAE(config, 0), training, device)
    return lambda: updater([batch])


def minimal(config: ModelConfig, training: TrainConfig, batch: Batch, device: Device) -> Callable[[], None]:
    model = HierarchicalVAE(replace(config, attention="published"), 0).to(device.torch_device)
    optimizer = torch.optim.Adam(model.parameters(), training.learning_rate, (0.9, 0.9))
    average = [parameter.detach().clone() for parameter in model.parameters()]
    schedule = rate_schedule(training.rate_schedule, training.rate_arguments, config.groups).to(device.torch_device)
    penalized = [
        (level.resolution, layer)
        for level in model.layer_list
        for layer in level.modules()
        if isinstance(layer, RegularizedConvolution)
    ]

    def spectral() -> Tensor:
        total = torch.zeros((), device=device.torch_device)
        for resolution, layer in penalized:
            matrix, u = layer.matrix, layer.singular_vectors
            v = nn.functional.normalize(u @ matrix, dim=1)
            u = nn.functional.normalize(v @ matrix.T, dim=1)
            total = total + resolution * (v @ matrix.T @ u.T).sum()
        return total

    def step() -> None:
        noise = [torch.randn(len(batch.latents), *shape, device=device.torch_device) for shape in noise_shapes(config)]
        with device.autocast():
            out = model(batch.latents, batch.labels, noise, batch.dropped)._replace(spectral=spectral())
            total = loss(out, batch.latents, schedule, training.sigma_q, training.spectral_weight).total
        optimizer.zero_grad()
        total.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        if float(norm) < training.skip_threshold * config.channels * config.resolution**2:
            optimizer.step()
            with torch.no_grad():
                for mean, parameter in zip(average, model.parameters(), strict=True):
                    mean.mul_(training.ema).add_(parameter, alpha=1 - training.ema)

    model.spectral = lambda: torch.zeros((), device=device.torch_device)  # type: ignore[method-assign]
    return step


def on_threads(count: int, step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)
        step()

    return run


def seconds(step: Callable[[], None], device: Device) -> float:
    device.synchronize()
    start = time.perf_counter()
    step()
    device.synchronize()
    return time.perf_counter() - start


def peak_flops(device: Device) -> float:
    """Of matrix products in the precision at hand, operations a second."""
    dtype = torch.bfloat16 if device.precision == "bfloat16" else torch.float32
    side = 8192 if device.kind == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device.torch_device, dtype=dtype) for _ in range(2))
    best = min(seconds(lambda: torch.mm(a, b), device) for _ in range(8))
    return 2 * side**3 / best


def flops_of(step: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def shares(step: Callable[[], None], device: Device) -> dict[str, float]:
    """Of a step's operator time."""
    activities = [ProfilerActivity.CUDA if device.kind == "cuda" else ProfilerActivity.CPU]
    with profile(activities=activities) as found:
        step()
        device.synchronize()
    spent: dict[str, float] = dict.fromkeys((*KINDS, "the rest"), 0.0)
    for event in found.key_averages():
        taken = event.self_device_time_total if device.kind == "cuda" else event.self_cpu_time_total
        kind = next((name for name, words in KINDS.items() if any(word in event.key.lower() for word in words)), "")
        spent[kind or "the rest"] += taken
    total = sum(spent.values())
    return {name: taken / total for name, taken in spent.items()}


def compare(name: str, size: int, steps: int, device: Device, peak: float) -> str:
    """A row of the table."""
    found = preset(name)
    training = replace(found.training, batch=size, accumulate=1, precision=device.precision)
    batch = batch_of(found.model, size, device)
    whole = torch.get_num_threads()  # ours leaves an operation fewer where slices of a batch are computed side by side
    own, other = ours(found.model, training, batch, device), minimal(found.model, training, batch, device)
    loops = {"ours": on_threads(torch.get_num_threads(), own), "minimal": on_threads(whole, other)}
    for loop in loops.values():
        for _ in range(2):
            loop()
    taken: dict[str, list[float]] = {which: [] for which in loops}
    for _ in range(steps):
        for which, loop in loops.items():
            taken[which].append(seconds(loop, device))
    median = {which: statistics.median(times) for which, times in taken.items()}
    flops = {which: flops_of(loop) for which, loop in loops.items()}
    flops["ours"] *= device.split(size)  # the counter sees one thread, so one slice
    reached = {which: 100 * flops[which] / median[which] / peak for which in loops}
    spent = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in shares(loops["ours"], device).items())
    device.close()
    print(name, size, median, flops, spent, flush=True)
    return (
        f"| {name} | {size} | {median['ours']:.3f} | {median['minimal']:.3f} "
        f"| {median['minimal'] / median['ours']:.2f} | {size / median['ours']:.1f} | {flops['ours'] / size / 1e9:.2f} "
        f"| {reached['ours']:.0f} % | {reached['minimal']:.0f} % "
        f"| {spent} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="tiny:32,small:16,church256-f8:4")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--record", action="store_true", help="write train_step.md")
    options = parser.parse_args()
    precision: Precision = options.precision
    device = open_device(options.device, precision, options.compile, options.threads)
    peak = peak_flops(device)
    lines = [
        f"{describe()}, torch {torch.__version__}, {device}; matrix products reach {peak / 1e9:.0f} GFLOP/s",
        "",
        "| preset | batch | ours, s | minimal loop, s | ratio | images/s | GFLOP an image "
        "| share of peak, ours | of the minimal loop | where our time goes |",
        "|" + "---|" * 10,
    ]
    for case in options.cases.split(","):
        name, _, size = case.partition(":")
        lines.append(compare(name, int(size), options.steps, device, peak))
    if device.kind == "cuda":
        lines += ["", f"Peak memory: {(device.peak_bytes() or 0) / (1 << 30):.1f} GiB."]
    print("\n".join(lines))
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# A training step\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
