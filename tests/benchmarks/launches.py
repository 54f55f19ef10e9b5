"""What a micro-batch launches and casts, counted without a device: in float32, in bfloat16, and compiled by layers.

    python tests/benchmarks/launches.py [--presets church256-f8,imagenet256-f8] [--record]

Models as deep as the presets and narrow, since widths change no count. Operations are those that a second micro-batch
adds to an update: forward, backward, and gradients joining the flat one; views and bare memory are none. Compiled:
graphs as Inductor fuses them for a CPU, of which fused loops and calls of libraries count as one each (outputs of such
a call count nothing), and what is dispatched outside of them. An operation on a list counts as the launches that lists
are cut into on a GPU (64 tensors, or 320 blocks of 65,536 numbers of the preset's own widths). Nothing is run on a GPU,
and a count is no time: a convolution's backward pass is one here and some kernels there. With CUDA graphs a micro-batch
is one launch.
"""

import argparse
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch._inductor.graph import GraphLowering
from torch.utils._python_dispatch import TorchDispatchMode

from lvae.train.data.batches import Batch
from lvae.train.devices.device import Device, Precision
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import PRESETS, Preset

RECORD = Path(__file__).with_suffix(".md")
BEFORE = {"church256-f8": (9_724, 3_289), "imagenet256-f8": (14_995, 5_003)}  # bfloat16 at commit 63f43c1, counted so
LIST_TENSORS, LIST_NUMBERS = 64, 320 * 65_536  # of one launch, torch/aten/native/cuda/MultiTensorApply.cuh


@dataclass
class Counts:
    """Operations and compiled kernels, casts, and compiled graphs."""

    launches: int = 0
    kernels: int = 0
    casts: int = 0
    graphs: int = 0
    quiet: bool = False


class Watch(TorchDispatchMode):
    """Counts what is dispatched, outside of compiled graphs. numbers: of all parameters of the preset."""

    def __init__(self, counts: Counts, numbers: int):
        super().__init__()
        self.counts, self._numbers = counts, numbers

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.counts.quiet or function.is_view or "empty" in function.overloadpacket.__name__:
            return result
        lists = function.overloadpacket.__name__.startswith("_foreach")
        self.counts.launches += len(args[0]) // LIST_TENSORS + self._numbers // LIST_NUMBERS + 1 if lists else 1
        cast = function is torch.ops.aten._to_copy.default and args[0].dtype != result.dtype
        self.counts.casts += cast
        return result


def kernels_of(nodes: list[Any]) -> int:
    """Of a graph as it was fused."""
    found = 0
    for node in nodes:
        kind = type(node).__name__
        if kind == "OuterLoopFusedSchedulerNode":  # loops one behind the other in one function, on CPUs alone
            found += len(node.get_outer_nodes())
        elif kind == "ExternKernelSchedulerNode":
            found += type(node.node).__name__ != "MultiOutput"
        else:
            found += kind != "NopKernelSchedulerNode"
    return found


@contextmanager
def counting_graphs(counts: Counts) -> Iterator[None]:
    """Graphs are fused, counted, and then run operation by operation: no C++ is compiled."""
    compile_to_module = GraphLowering.compile_to_module

    def stand_in(graph: Any) -> Any:
        graph.codegen()
        kernels = kernels_of(graph.scheduler.nodes)
        counts.graphs += 1

        def call(inputs: list[Any]) -> Any:
            given = list(inputs)
            inputs.clear()
            counts.kernels += kernels
            counts.quiet = True
            try:
                return graph.module(*given)
            finally:
                counts.quiet = False

        return types.SimpleNamespace(call=call, __file__=__file__)

    torch._inductor.config.force_disable_caches = True
    GraphLowering.compile_to_module = stand_in  # type: ignore[method-assign]
    try:
        yield
    finally:
        GraphLowering.compile_to_module = compile_to_module  # type: ignore[method-assign]
        torch._dynamo.reset()


def count(made: Preset, precision: Precision, compiled: bool) -> tuple[Counts, int]:
    """Of a micro-batch, and its graphs; and what an update launches beside its micro-batches."""
    wider = made.model.encoder_width > made.model.width
    model = replace(made.model, width=16, encoder_width=24 if wider else 16)
    config = replace(made.training, batch=2, accumulate=1, precision=precision)
    with torch.device("meta"):
        numbers = sum(parameter.numel() for parameter in HierarchicalVAE(made.model).parameters())
    found: list[Counts] = []
    counts = Counts()
    with counting_graphs(counts):
        updater = Updater(HierarchicalVAE(model), config, Device(precision, compiled))
        labels = torch.zeros(2, dtype=torch.int64) if model.classes else None
        dropped = torch.zeros(2, dtype=torch.bool) if model.classes else None
        latents = torch.randn(2, model.channels, model.resolution, model.resolution)
        one = Batch(latents, labels, dropped, 0)
        updater([one])
        first = counts.graphs
        for micro_batches in (1, 2):
            with Watch(counts, numbers):
                counts.launches = counts.kernels = counts.casts = 0
                updater([one] * micro_batches)
            found.append(replace(counts))
    assert counts.graphs == first, "something was compiled anew"
    one_pass, two = found
    each = Counts(two.launches - one_pass.launches, two.kernels - one_pass.kernels, two.casts - one_pass.casts, first)
    return each, one_pass.launches - each.launches


def row(name: str) -> str:
    made = PRESETS[name]
    plain, _ = count(made, "float32", False)
    half, _ = count(made, "bfloat16", False)
    compiled, beside = count(made, "bfloat16", True)
    before, casts = BEFORE.get(name, (0, 0))
    together = compiled.launches + compiled.kernels
    share = f"{100 * together / before:.0f} %" if before else "-"
    numbers = (before, casts, plain.launches, half.launches, half.casts, compiled.graphs)
    numbers += (compiled.kernels, compiled.launches, compiled.casts, beside, together)
    cells = [name, *(f"{number:,}" for number in numbers), share]
    print(*cells, file=sys.stderr, flush=True)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(BEFORE))
    parser.add_argument("--record", action="store_true", help="write launches.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"{describe()}, torch {torch.__version__}",
        "",
        "| preset | before, bfloat16: operations | casts | now, float32: operations | bfloat16: operations | casts "
        "| compiled: graphs, forward and backward | kernels in them | operations outside | casts outside "
        "| once an update | launches of a micro-batch | of before |",
        "|" + "---|" * 13,
        *(row(name) for name in options.presets.split(",")),
    ]
    print("\n".join(lines))
    if options.record:
        command = f"`python tests/benchmarks/launches.py {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# What a micro-batch launches\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
