"""What a training step of each preset costs, counted without a device, and how fast machines might then be, reckoned.

    python tests/benchmarks/reckoning.py [--presets church256-f8,imagenet256-f8] [--record]

FLOP are those of convolutions and matrix products that one latent more costs, forward and backward; operations are
those that a micro-batch dispatches in float32 (views left out), each a launch on a GPU that does not compile. The
micro-batch is the largest that divides a device's share and fits three quarters of the memory, by the estimate of
`lvae train --dry-run`; an update's latents are the preset's. Updates a second: the slower of arithmetic at EFFICIENCY
of the peak and of launches at LAUNCH seconds. No machine was measured.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lvae.train.losses import loss
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import noise_shapes
from lvae.train.presets import PRESETS, Preset
from lvae.train.runs.estimates import Memory, choose_micro_batch, measure_memory

RECORD = Path(__file__).with_suffix(".md")
EFFICIENCY, LAUNCH = 0.35, 6e-6
PAPER = ("church256-f8", "church32-rgb", "church256-upsampler", "church256-pixels")
PAPER += ("bedroom256-f4", "bedroom256-f8", "bedroom256-f16", "imagenet256-f8")


class Machine(NamedTuple):
    """Of each of `devices`: peak operations a second in the precision that `auto` takes, and bytes."""

    name: str
    devices: int
    peak: float
    memory: int
    precision: str
    launches: bool = True  # XLA compiles a whole step


MACHINES = (
    Machine("H200", 1, 989e12, 141 << 30, "bfloat16"),
    Machine("H100", 1, 989e12, 80 << 30, "bfloat16"),
    Machine("A100", 1, 312e12, 80 << 30, "bfloat16"),
    Machine("T4", 1, 8.1e12, 16 << 30, "float32"),
    Machine("TPU v4-8", 4, 275e12, 32 << 30, "bfloat16", launches=False),
    Machine("TPU v5e-8", 8, 197e12, 16 << 30, "bfloat16", launches=False),
)


class Count(TorchDispatchMode):
    """How many operations are dispatched that compute something."""

    found = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += not function.is_view
        return function(*args, **(kwargs or {}))


def count(made: Preset) -> tuple[float, int]:
    """FLOP that one latent more costs, and operations of a micro-batch."""
    (one, operations), (two, _) = (count_step(made, size) for size in (1, 2))
    return two - one, operations


def count_step(made: Preset, size: int) -> tuple[float, int]:
    model, training = made.model, made.training
    with torch.device("meta"), FlopCounterMode(display=False) as flops, Count() as operations:
        network = HierarchicalVAE(model)
        x = torch.empty(size, model.channels, model.resolution, model.resolution)
        labels = torch.empty(size, dtype=torch.int64) if model.classes else None
        operations.found = 0
        out = network(x, labels, [torch.empty(size, *shape) for shape in noise_shapes(model)])
        schedule = torch.empty(len(out.rates))
        loss(out, x, schedule, training.sigma_q, training.spectral_weight).total.backward()
    return float(flops.get_total_flops()), operations.found


def row(name: str) -> Iterator[str]:
    made = PRESETS[name]
    flops, operations = count(made)
    precisions = ("bfloat16", "float32")
    memory = {kind: measure_memory(made.model, replace(made.training, precision=kind)) for kind in precisions}
    print(name, flops, operations, memory, file=sys.stderr, flush=True)
    half = memory["bfloat16"]
    kept = half.latent_bytes / (1 << 20)
    yield f"| {name} | {half.parameters / 1e6:.1f} | {flops / 1e9:.1f} | {operations:,} | {kept:.0f} |"
    for machine in MACHINES:
        yield cell(made, machine, flops, operations, memory[machine.precision])


def cell(made: Preset, machine: Machine, flops: float, operations: int, memory: Memory) -> str:
    size = made.training.update_size
    each = size // machine.devices
    if 0.75 * machine.memory - memory.state_bytes < memory.latent_bytes:
        return " does not fit |"
    micro = choose_micro_batch(each, each, memory, machine.memory)
    arithmetic = each * flops / (EFFICIENCY * machine.peak)
    launching = each / micro * operations * LAUNCH if machine.launches else 0.0
    used = (memory.state_bytes + micro * memory.latent_bytes) / (1 << 30)
    bound = " (launches)" if launching > arithmetic else ""
    return f" {micro}, {used:.0f} GiB, {1 / max(arithmetic, launching):.2g}{bound} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(PAPER))
    parser.add_argument("--record", action="store_true", help="write reckoning.md")
    options = parser.parse_args()
    names = [f"{machine.name}{f' ({machine.devices} chips)' if machine.devices > 1 else ''}" for machine in MACHINES]
    lines = [
        f"Reckoned, not measured: {EFFICIENCY:.0%} of the peak, {LAUNCH * 1e6:.0f} microseconds a launch, GPUs without "
        "compiling. A machine's column: micro-batch of a device, its memory, updates a second.",
        "",
        f"| preset | million parameters | GFLOP a latent | operations | MiB a latent | {' | '.join(names)} |",
        "|" + "---|" * (5 + len(MACHINES)),
        *("".join(row(name)) for name in options.presets.split(",")),
    ]
    print("\n".join(lines))
    if options.record:
        command = f"`python tests/benchmarks/reckoning.py {' '.join(sys.argv[1:])}`"
        title = f"# A training step, reckoned\n\n{command}, torch {torch.__version__}\n\n"
        RECORD.write_text(title + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
