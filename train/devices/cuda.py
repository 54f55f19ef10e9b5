"""Training on CUDA devices."""

import torch
import torch.distributed as dist
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.devices.device import PATIENCE, Device, Precision, Ranks


class CudaDevice(Device):
    """One GPU per rank, chosen by the rank on its machine."""

    kind = "cuda"

    def __init__(self, precision: Precision, compiled: bool, ranks: Ranks):
        if ranks.local_rank >= torch.cuda.device_count():
            raise LvaeError(
                f"rank {ranks.local_rank} has no GPU",
                f"this machine has {torch.cuda.device_count()}",
                "Give torchrun --nproc-per-node that number.",
            )
        torch.cuda.set_device(ranks.local_rank)
        super().__init__(precision, compiled, ranks)
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
