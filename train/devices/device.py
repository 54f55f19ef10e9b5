"""CPU, CUDA and XLA behind one interface: nothing else in training knows where tensors live.

    device = open_device("auto", precision="bfloat16")
    network = device.place(network)
    for ...:
        images = device.put(batch)              # (b, ...) of this rank, from the CPU, without waiting
        with device.autocast():
            loss = network(images)
        loss.backward()
        device.average([p.grad for p in network.parameters()])    # over ranks
        optimizer.step()
        device.mark_step()                      # XLA runs what was recorded; nothing elsewhere
    device.close()

Several processes are ranks: torchrun starts them and says so in the environment. A rank holds `rank` of `world` equal
slices of every global batch. On XLA one process drives all devices of its host (SPMD): it is rank 0 of 1, holds the
global batch, and `put` spreads it over `parts` devices; the processes of a pod all do the same with
the same data. Where files are written only `is_main` writes. What processes must agree on, ranks or those of a pod,
goes through `from_main`, `on_any_rank`, `from_all` and `together`.
"""

import datetime
import os
import resource
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # now: imported later, defaults of its functions keep the group and its threads to the end
from torch import Tensor, nn

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.seeds import derive

UPLOADED = 64 << 20  # bytes sent to a device at a time where all latents are
PATIENCE = datetime.timedelta(minutes=30)  # of a rank with the others: one of them may compile, or decode previews

Precision = Literal["float32", "bfloat16", "tf32"]
ReducePrecision = Literal["float32", "bfloat16"]  # of gradients on their way between ranks
Recorder = Callable[[Callable[..., Tensor], Sequence[Tensor | None]], tuple[Callable[[], None], Tensor]]
LEAST_ROWS, MOST_LANES = 8, 4  # of a slice of a micro-batch; a lane more is one sum of gradients more
GRAPHS = 64  # of one kind of layer, one a resolution; beyond its own limit PyTorch would silently compile no more

Module = TypeVar("Module", bound=nn.Module)
Function = TypeVar("Function", bound=Callable[..., Any])
Found = TypeVar("Found")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, among all and on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


class Device:
    """A CPU, alone or as one of several ranks. GPUs and XLA devices differ in what they override."""

    kind: Literal["cpu", "cuda", "xla"] = "cpu"
    parts = 1  # devices over which `put` spreads a batch
    backend = "inductor"  # of torch.compile

    def __init__(
        self,
        precision: Precision = "float32",
        compiled: bool = False,
        ranks: Ranks = Ranks(),
        reduce_precision: ReducePrecision = "float32",
    ):
        self.precision, self.compiled, self.reduce_precision = precision, compiled, reduce_precision
        self.rank, self.world = ranks.rank, ranks.world
        self.local_rank, self.local_world = ranks.local_rank, ranks.local_world
        self.torch_device = torch.device("cpu")
        self._threads = torch.get_num_threads()
        self._join()

    def _join(self) -> None:
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)

    @property
    def processes(self) -> int:
        """Those that must agree: ranks, or the processes of a pod."""
        return self.world

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def __str__(self) -> str:
        ranks = f", rank {self.rank} of {self.world}" if self.world > 1 else ""
        return f"{self.describe()}, {self.precision}{', compiled' if self.compiled else ''}{ranks}"

    def describe(self) -> str:
        """The hardware, in words."""
        return f"CPU with {counted(self._threads, 'thread')}"

    # --- modules and tensors ---

    def place(self, module: Module) -> Module:
        """The module on the device, in the memory format that is fast there."""
        return module.to(device=self.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def put(self, tensor: Tensor) -> Tensor:
        """A batch (b, ...) on the device, without waiting where it lies in pinned memory. XLA spreads it by rows."""
        return tensor.to(self.torch_device, non_blocking=True)

    def put_whole(self, tensor: Tensor) -> Tensor:
        """A tensor on the device, the same on all of them."""
        return tensor.to(self.torch_device)

    def upload(self, shape: tuple[int, ...], dtype: torch.dtype, read: Callable[[int, Tensor], None]) -> Tensor:
        """A tensor on the device, the same on all of them, that passes through the host in chunks.

        read(first, rows) fills `rows` with the tensor's rows first, first + 1, ...; two chunks are in memory at a time.
        """
        whole = torch.empty(shape, dtype=dtype, device=self.torch_device)
        row_bytes = whole[:1].nbytes
        count = max(1, min(len(whole), UPLOADED // max(1, row_bytes)))
        chunks = [self.pin(torch.empty(count, *shape[1:], dtype=dtype)) for _ in range(2)]
        for number, first in enumerate(range(0, len(whole), count)):
            start, chunk = min(first, len(whole) - count), chunks[number % 2]
            read(start, chunk)
            self.synchronize()  # what was sent before is there, so that its chunk may be filled next
            self._send(whole, start, chunk)
        self.synchronize()
        return whole

    def _send(self, whole: Tensor, start: int, chunk: Tensor) -> None:
        """Begin to copy a chunk to where it belongs."""
        whole[start : start + len(chunk)].copy_(chunk, non_blocking=True)

    def operand(self, number: int) -> Tensor:
        """A number that may be another one in the next step. XLA would compile anew for a number of Python's."""
        return torch.tensor(number, dtype=torch.int32)

    def divisor(self, number: int) -> "int | Tensor":
        """The same for one by which tensors are divided in several steps; of one dimension on XLA."""
        return number

    def put_scalar(self, value: Tensor) -> Tensor:
        """A scalar of the state on the device."""
        return self.put_whole(value)

    def pin(self, tensor: Tensor) -> Tensor:
        """A CPU tensor in memory from which `put` need not wait."""
        return tensor

    def fetch(self, tensor: Tensor) -> Tensor:
        """On the CPU, detached. Waits for the device: for logging and saving only."""
        return tensor.detach().to("cpu")

    # --- computing ---

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products and convolutions in bfloat16 where the precision says so; parameters stay float32."""
        return torch.autocast(self.kind, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def compile(self, function: Function) -> Function:
        """The function compiled for fixed shapes where that was asked for; the function itself otherwise."""
        if not self.compiled:
            return function
        return torch.compile(function, dynamic=False, backend=self.backend)  # type: ignore[return-value]

    def compile_layers(self, layers: Iterable[nn.Module]) -> None:
        """The same for each of these layers by itself, so that equal ones are compiled once."""
        if self.compiled:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
            for layer in layers:
                layer.compile(dynamic=False, backend=self.backend)

    def split(self, rows: int) -> int:
        """Into how many equal slices a micro-batch is cut that threads of a CPU compute side by side, see `Lanes`.

        They share what threads operations had, until `close`. Ranks are side by side already; bfloat16 computes with
        rounded weights of one model.
        """
        if self.kind != "cpu" or self.compiled or self.world > 1 or self.precision == "bfloat16":
            return 1
        most = min(self._threads, MOST_LANES, max(1, rows // LEAST_ROWS))
        lanes = next(count for count in range(most, 0, -1) if rows % count == 0)
        torch.set_num_threads(max(1, self._threads // lanes))
        return lanes

    def recorder(self) -> "Recorder | None":
        """From a function and tensors to what does the same with them again, and where it puts the result."""
        return None

    def without_compiling(self) -> AbstractContextManager[Any]:
        """Compiled functions and layers run as they were written inside: other shapes would be compiled anew."""
        return torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()

    def normals(self, seed: int, first: int, count: int, size: int) -> Tensor:
        """float32 (count, size) on the device: the noise of the samples at positions first .. first + count.

        On a CPU row i is a function of (seed, first + i), so that neither ranks nor batches change anything.
        """
        noise = torch.empty(count, size)
        for i, row in enumerate(noise, first):
            row.normal_(generator=torch.Generator().manual_seed(derive(seed, "noise", i)))
        return noise

    def seeded_normals(self, seeds: Sequence[int], size: int) -> Tensor:
        """float32 (n, size) on the device: row i is what a CPU generator with seeds[i] draws, whatever the others are.

        Bit for bit on CPUs and XLA; within 2e-6 where a GPU draws it.
        """
        rows = [torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.put(torch.stack(rows))

    def mark_step(self) -> None:
        """The end of a step: XLA compiles and runs what was recorded."""

    def synchronize(self) -> None:
        """Wait until the device has done everything."""

    # --- other ranks ---

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace every tensor by its mean over ranks, in place, in one exchange per type. None is passed over."""
        there = [tensor for tensor in tensors if tensor is not None]
        if self.world == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in there):
            same = [tensor for tensor in there if tensor.dtype == dtype]
            dense = len(same) == 1 and same[0].is_contiguous()
            flat = same[0] if dense else torch.cat([tensor.reshape(-1) for tensor in same])
            dist.all_reduce(flat)
            flat /= self.world
            if not dense:
                pieces = torch.split(flat, [tensor.numel() for tensor in same])
                for tensor, piece in zip(same, pieces, strict=True):
                    tensor.copy_(piece.view(tensor.shape))

    def begin_average(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace a dense tensor by its mean over ranks; call what is returned before it is read."""
        work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            work.wait()
            tensor.div_(self.world)

        return wait

    def on_any_rank(self, flag: bool) -> bool:
        """Whether any process says yes; all must ask. Costs a message between hosts, never a wait for a GPU."""
        if self.processes == 1:
            return flag
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def from_main(self, number: int) -> int:
        """What the main process says; all must ask."""
        if self.processes == 1:
            return number
        said = torch.tensor([number])
        dist.broadcast(said, 0)
        return int(said.item())

    def from_all(self, number: int) -> list[int]:
        """What each process says, of 64 bits, in their order; all must ask."""
        if self.processes == 1:
            return [number]
        said = [torch.zeros(1, dtype=torch.int64) for _ in range(self.processes)]
        dist.all_gather(said, torch.tensor([number], dtype=torch.int64))
        return [int(one.item()) for one in said]

    def together(self, action: Callable[[], Found]) -> Found:
        """What an action gives that may fail. Where it fails in one process, all stop instead of waiting for it."""
        if self.processes == 1:
            return action()
        try:
            found = action()
        except Exception:
            self.from_all(1)
            raise
        for rank, failed in enumerate(self.from_all(0)):
            if failed:
                raise LvaeError(f"rank {rank}", "cannot begin, so no rank does", "Its own message says why.")
        return found

    def barrier(self) -> None:
        """Wait for all processes."""
        self.on_any_rank(False)

    def close(self) -> None:
        """Leave the other ranks, and give operations their threads back."""
        torch.set_num_threads(self._threads)
        if self.processes > 1 and dist.is_initialized():
            dist.destroy_process_group()

    # --- limits ---

    def peak_flops(self) -> float | None:
        """Floating-point operations a second of one of its devices at most, in the precision at hand; None: unknown."""
        return None

    def peak_bytes(self) -> int | None:
        """The most memory used so far: of the process on a CPU, of the allocator on a GPU; None where unknown."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def free_bytes(self) -> int | None:
        """Memory that a rank may still take on the device; None where unknown."""
        return host_free_bytes() // self.local_world


def host_free_bytes() -> int:
    """Memory of this machine that processes may still take, what the page cache can give back included."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    available = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024
