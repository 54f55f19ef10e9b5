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
the same data. Where files are written only `is_main` writes.
"""

import importlib.util
import os
import resource
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.devices.threefry import counted_normal, key_of

Precision = Literal["float32", "bfloat16", "tf32"]
KINDS = ("auto", "cpu", "cuda", "xla")

Module = TypeVar("Module", bound=nn.Module)
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, among all and on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def ranks_of(environment: dict[str, str]) -> Ranks:
    """What torchrun says; one process alone otherwise."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(name in environment for name in names):
        return Ranks()
    return Ranks(*(int(environment[name]) for name in names))


def open_device(
    kind: str = "auto", precision: Precision = "float32", compiled: bool = False, threads: int | None = None
) -> "Device":
    """The device of this process, joined with the other ranks. LvaeError for one that is not there.

    kind: "auto" is a GPU, then a TPU, then the CPU. compiled: whether `compile` compiles. threads: of a CPU's
    operations; PyTorch's choice otherwise.
    """
    if kind not in KINDS:
        raise LvaeError(f"--device {kind}: there is no such device. Choose one of {', '.join(KINDS)}.")
    ranks = ranks_of(dict(os.environ))
    if kind == "auto":
        kind = _best()
    if kind == "xla":
        if importlib.util.find_spec("torch_xla") is None:
            raise LvaeError("--device xla: torch_xla is not installed. Install the extra: pip install latent-vae[tpu].")
        if ranks.world > 1:
            raise LvaeError("--device xla: one process drives all devices of a host. Start it without torchrun.")
        return XlaDevice(precision)
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise LvaeError("--device cuda: PyTorch sees no GPU. Choose cpu, or install a build of PyTorch with CUDA.")
        return CudaDevice(precision, compiled, ranks)
    if precision == "tf32":
        raise LvaeError("--precision tf32: only GPUs have it. Choose float32 or bfloat16.")
    if threads is not None:
        torch.set_num_threads(threads)
    return Device(precision, compiled, ranks)


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    tpu = os.environ.get("PJRT_DEVICE") == "TPU" or Path("/dev/accel0").exists()
    return "xla" if tpu and importlib.util.find_spec("torch_xla") is not None else "cpu"


class Device:
    """A CPU, alone or as one of several ranks. GPUs and XLA devices differ in what they override."""

    kind: Literal["cpu", "cuda", "xla"] = "cpu"
    parts = 1  # devices over which `put` spreads a batch
    stops_together = True  # whether all processes can agree to stop at the same step (`on_any_rank`)

    def __init__(self, precision: Precision = "float32", compiled: bool = False, ranks: Ranks = Ranks()):
        self.precision, self.compiled = precision, compiled
        self.rank, self.world = ranks.rank, ranks.world
        self.local_rank, self.local_world = ranks.local_rank, ranks.local_world
        self.torch_device = torch.device("cpu")
        self._join()

    def _join(self) -> None:
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def __str__(self) -> str:
        ranks = f", rank {self.rank} of {self.world}" if self.world > 1 else ""
        return f"{self.describe()}, {self.precision}{ranks}"

    def describe(self) -> str:
        """The hardware, in words."""
        return f"CPU with {torch.get_num_threads()} threads"

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

    def operand(self, number: int) -> Tensor:
        """A number that may be another one in the next step. XLA would compile anew for a number of Python's."""
        return torch.tensor(number, dtype=torch.int32)

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
        return torch.compile(function, dynamic=False) if self.compiled else function  # type: ignore[return-value]

    def normals(self, seed: int, first: int, count: int, size: int) -> Tensor:
        """float32 (count, size) on the device: the noise of the samples at positions first .. first + count.

        On a CPU row i is a function of (seed, first + i), so that neither ranks nor batches change anything.
        """
        noise = torch.empty(count, size)
        for i, row in enumerate(noise, first):
            row.normal_(generator=torch.Generator().manual_seed(derive(seed, "noise", i)))
        return noise

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

    def on_any_rank(self, flag: bool) -> bool:
        """Whether any rank says yes; every rank must ask. Costs a message between hosts, never a wait for a GPU."""
        if self.world == 1:
            return flag
        said = torch.tensor([int(flag)])
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    def from_main(self, number: int) -> int:
        """What the main rank says; every rank must ask."""
        if self.world == 1:
            return number
        said = torch.tensor([number])
        dist.broadcast(said, 0)
        return int(said.item())

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.on_any_rank(False)

    def close(self) -> None:
        """Leave the other ranks."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    # --- memory ---

    def peak_bytes(self) -> int | None:
        """The most memory used so far: of the process on a CPU, of the allocator on a GPU; None where unknown."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def free_bytes(self) -> int | None:
        """Memory that a rank may still take on the device; None where unknown."""
        return host_free_bytes() // self.local_world


class CudaDevice(Device):
    """One GPU per rank, chosen by the rank on its machine."""

    kind = "cuda"

    def __init__(self, precision: Precision, compiled: bool, ranks: Ranks):
        if ranks.local_rank >= torch.cuda.device_count():
            raise LvaeError(
                f"rank {ranks.local_rank} has no GPU: this machine has {torch.cuda.device_count()}. "
                "Give torchrun --nproc-per-node that number."
            )
        torch.cuda.set_device(ranks.local_rank)
        super().__init__(precision, compiled, ranks)
        self.torch_device = torch.device("cuda", ranks.local_rank)
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True

    def _join(self) -> None:
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl")

    def describe(self) -> str:
        return torch.cuda.get_device_name(self.torch_device)

    def pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory()

    def normals(self, seed: int, first: int, count: int, size: int) -> Tensor:
        """A function of (seed, first): of the update and the rank. The GPU's generator knows no rows."""
        generator = torch.Generator(self.torch_device).manual_seed(derive(seed, "noise", first) >> 1)
        return torch.randn(count, size, generator=generator, device=self.torch_device)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.torch_device)

    def free_bytes(self) -> int | None:
        return int(torch.cuda.mem_get_info(self.torch_device)[0])


class XlaDevice(Device):
    """All XLA devices of this host in one process. Operations are recorded; `mark_step` compiles and runs them."""

    kind = "xla"

    def __init__(self, precision: Precision):
        if precision == "tf32":
            raise LvaeError("--precision tf32: only GPUs have it. Choose float32 or bfloat16.")
        super().__init__(precision)
        import numpy as np
        import torch_xla
        import torch_xla.distributed.spmd as spmd
        from torch_xla import runtime

        runtime.use_spmd()
        self._xla, self._spmd, self._runtime = torch_xla, spmd, runtime
        self.torch_device = torch_xla.device()
        self.parts = runtime.global_runtime_device_count()
        self.stops_together = runtime.process_count() == 1
        self._mesh = spmd.Mesh(np.arange(self.parts), (self.parts,), ("data",))

    @property
    def is_main(self) -> bool:
        return bool(self._runtime.process_index() == 0)

    def describe(self) -> str:
        return f"{self.parts} XLA devices ({self._runtime.device_type()})"

    def place(self, module: Module) -> Module:
        return module.to(self.torch_device)

    def put(self, tensor: Tensor) -> Tensor:
        moved = tensor.to(self.torch_device)
        self._spmd.mark_sharding(moved, self._mesh, ("data", *(None,) * (tensor.dim() - 1)))
        return moved

    def operand(self, number: int) -> Tensor:
        # Of one dimension: zeros and ones without any become constants of the program, too.
        return self.put_whole(torch.tensor([number], dtype=torch.int32)).squeeze(0)

    def compile(self, function: Function) -> Function:
        return function

    def normals(self, seed: int, first: int, count: int, size: int) -> Tensor:
        """Entry (i, j) is a function of (seed, first, i, j), however many devices share the work."""
        noise = counted_normal(self.put_whole(key_of(derive(seed, "noise", first))), count, size)
        self._spmd.mark_sharding(noise, self._mesh, ("data", None))
        return noise

    def mark_step(self) -> None:
        self._xla.sync()

    def synchronize(self) -> None:
        self._xla.sync(wait=True)

    def peak_bytes(self) -> int | None:
        return None

    def free_bytes(self) -> int | None:
        return None


def host_free_bytes() -> int:
    """Memory of this machine that processes may still take, what the page cache can give back included."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    available = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
    return int(available.split()[1]) * 1024


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """What tensors take in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
