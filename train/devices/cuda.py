"""Training on CUDA devices."""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.devices.device import PATIENCE, Device, Precision, Ranks, Recorder, ReducePrecision
from lvae.train.devices.mersenne import BLOCK, seeded_normals
from lvae.train.devices.peaks import peak_flops
from lvae.train.devices.threefry import MASK_32, counted_normal, key_of


class CudaDevice(Device):
    """One GPU per rank, chosen by the rank on its machine."""

    kind = "cuda"

    def __init__(
        self, precision: Precision, compiled: bool, ranks: Ranks, reduce_precision: ReducePrecision = "float32"
    ):
        if ranks.local_rank >= torch.cuda.device_count():
            raise LvaeError(
                f"rank {ranks.local_rank} has no GPU",
                f"this machine has {torch.cuda.device_count()}",
                "Give torchrun --nproc-per-node that number.",
            )
        torch.cuda.set_device(ranks.local_rank)
        super().__init__(precision, compiled, ranks, reduce_precision)
        self.torch_device = torch.device("cuda", ranks.local_rank)
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()

    def _join(self) -> None:
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)

    def describe(self) -> str:
        return torch.cuda.get_device_name(self.torch_device)

    def pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory()

    def recorder(self) -> Recorder | None:
        return self._record if self.compiled else None

    def _record(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor | None]
    ) -> tuple[Callable[[], None], Tensor]:
        """A CUDA graph of what the function does with these tensors, wherever it was called before."""
        torch.cuda.synchronize(self.torch_device)
        torch.cuda.empty_cache()  # a graph has memory of its own
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may pin memory meanwhile
            result = function(*inputs)
        return graph.replay, result

    def normals(self, seed: int, first: int, count: int, size: int) -> Tensor:
        """Entry (i, j) is a function of (seed, first + i, j): neither ranks nor micro-batches change anything."""
        key = key_of(derive(seed, "noise", first >> 32))
        return counted_normal(self.pin(key).to(self.torch_device, non_blocking=True), count, size, first & MASK_32)

    def seeded_normals(self, seeds: Sequence[int], size: int) -> Tensor:
        if size < BLOCK:
            return super().seeded_normals(seeds, size)
        return seeded_normals(seeds, size, self.torch_device)

    def begin_average(self, tensor: Tensor) -> Callable[[], None]:
        work = dist.all_reduce(tensor, dist.ReduceOp.AVG, async_op=True)

        def wait() -> None:
            work.wait()  # of the stream, not of this process

        return wait

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def peak_flops(self) -> float | None:
        return peak_flops(self.describe(), self.precision)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.torch_device)

    def free_bytes(self) -> int | None:
        return int(torch.cuda.mem_get_info(self.torch_device)[0])
