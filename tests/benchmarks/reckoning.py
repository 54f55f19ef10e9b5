"""What a training step of each preset costs, counted without a device, and how fast machines might then be, reckoned.

    python tests/benchmarks/reckoning.py [--presets church256-f8,imagenet256-f8] [--record]

FLOP are those of convolutions and matrix products that one latent more costs, forward and backward. Launches are those
of a micro-batch with layers compiled, as `lvae train` compiles them on GPUs, and of an update beside its micro-batches,
counted in bfloat16 by launches.py; a recorded micro-batch (CUDA graph) would be one. The micro-batch is the largest
that divides a device's share and fits three quarters of the memory, by the estimate of `lvae train --dry-run`; an
update's latents are the preset's. Updates a second: the slower of arithmetic at EFFICIENCY of the peak and of launches
at LAUNCH seconds. No machine was measured.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from launches import count
from torch.utils.flop_counter import FlopCounterMode

from lvae.train.devices.device import Precision
from lvae.train.losses import loss
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import noise_shapes
from lvae.train.presets import PRESETS, Preset
from lvae.train.runs.estimates import Kind, Memory, choose_micro_batch, measure_memory

RECORD = Path(__file__).with_suffix(".md")
EFFICIENCY, LAUNCH = 0.35, 6e-6
KINDS: tuple[Kind, ...] = ("cuda", "xla")
PAPER = ("church256-f8", "church32-rgb", "church256-upsampler", "church256-pixels")
PAPER += ("bedroom256-f4", "bedroom256-f8", "bedroom256-f16", "imagenet256-f8")


class Machine(NamedTuple):
    """Of each of `devices`: peak operations a second in the precision that `auto` takes, and bytes."""

    name: str
    devices: int
    peak: float
    memory: int
    precision: Precision
    kind: Kind = "cuda"


MACHINES = (
    Machine("H200", 1, 989e12, 141 << 30, "bfloat16"),
    Machine("H100", 1, 989e12, 80 << 30, "bfloat16"),
    Machine("A100", 1, 312e12, 80 << 30, "bfloat16"),
    Machine("T4", 1, 8.1e12, 16 << 30, "float32"),
    Machine("TPU v4-8", 4, 275e12, 32 << 30, "bfloat16", "xla"),
    Machine("TPU v5e-8", 8, 197e12, 16 << 30, "bfloat16", "xla"),
)


class Costs(NamedTuple):
    """FLOP that one latent more costs; launches of a micro-batch, and of an update beside its micro-batches."""

    flop: float
    launches: int
    beside: int


def count_costs(made: Preset) -> Costs:
    one, two = (count_flop(made, size) for size in (1, 2))
    compiled, beside = count(made, "bfloat16", True)
    return Costs(two - one, compiled.launches + compiled.kernels, beside)


def count_flop(made: Preset, size: int) -> float:
    model, training = made.model, made.training
    with torch.device("meta"), FlopCounterMode(display=False) as flops:
        network = HierarchicalVAE(model)
        x = torch.empty(size, model.channels, model.resolution, model.resolution)
        labels = torch.empty(size, dtype=torch.int64) if model.classes else None
        out = network(x, labels, [torch.empty(size, *shape) for shape in noise_shapes(model)])
        schedule = torch.empty(len(out.rates))
        loss(out, x, schedule, training.sigma_q, training.spectral_weight).total.backward()
    return float(flops.get_total_flops())


def row(name: str) -> Iterator[str]:
    made = PRESETS[name]
    costs = count_costs(made)
    memory: dict[tuple[str, Kind], Memory] = {}
    for machine in MACHINES:
        if (machine.precision, machine.kind) not in memory:
            training = replace(made.training, precision=machine.precision)
            memory[machine.precision, machine.kind] = measure_memory(made.model, training, machine.kind)
    print(name, costs, memory, file=sys.stderr, flush=True)
    kept = " / ".join(f"{memory['bfloat16', kind].latent_bytes / (1 << 20):.0f}" for kind in KINDS)
    parameters = memory["bfloat16", "cuda"].parameters / 1e6
    yield f"| {name} | {parameters:.1f} | {costs.flop / 1e9:.1f} | {costs.launches:,} | {kept} |"
    for machine in MACHINES:
        yield cell(made, machine, costs, memory[machine.precision, machine.kind])


def cell(made: Preset, machine: Machine, costs: Costs, memory: Memory) -> str:
    each = made.training.update_size // machine.devices
    if 0.75 * machine.memory - memory.state_bytes < memory.latent_bytes:
        return " does not fit |"
    micro = choose_micro_batch(each, each, memory, machine.memory)
    arithmetic = each * costs.flop / (EFFICIENCY * machine.peak)
    launches = each // micro * costs.launches + costs.beside if machine.kind == "cuda" else 0
    used = (memory.state_bytes + micro * memory.latent_bytes) / (1 << 30)
    bound = " (launches)" if launches * LAUNCH > arithmetic else ""
    return f" {micro}, {used:.0f} GiB, {1 / max(arithmetic, launches * LAUNCH):.2g}{bound} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(PAPER))
    parser.add_argument("--record", action="store_true", help="write reckoning.md")
    options = parser.parse_args()
    names = [f"{machine.name}{f' ({machine.devices} chips)' if machine.devices > 1 else ''}" for machine in MACHINES]
    lines = [
        f"Reckoned, not measured: {EFFICIENCY:.0%} of the peak; on GPUs {LAUNCH * 1e6:.0f} microseconds a launch, with "
        "layers compiled and nothing recorded. MiB a latent: in bfloat16, on GPUs / on TPUs. A machine's column: "
        "micro-batch of a device, its memory, updates a second.",
        "",
        "| preset | million parameters | GFLOP a latent | launches of a micro-batch | MiB a latent "
        f"| {' | '.join(names)} |",
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
