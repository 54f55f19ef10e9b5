"""Training on XLA devices (TPU)."""

import os

import torch
import torch.distributed as dist
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import find_cache_home
from lvae.manifests.seeds import derive
from lvae.train.devices.device import PATIENCE, Device, Module, Precision
from lvae.train.devices.threefry import MASK_32, counted_normal, key_of, signed


class XlaDevice(Device):
    """All XLA devices of this host in one process. Operations are recorded; `mark_step` compiles and runs them."""

    kind = "xla"

    def __init__(self, precision: Precision):
        if precision == "tf32":
            raise LvaeError("--precision tf32", "only GPUs have it", "Choose float32 or bfloat16.")
        super().__init__(precision)
        import numpy as np
        import torch_xla
        import torch_xla.distributed.spmd as spmd
        from torch_xla import runtime

        cache = find_cache_home()
        on_tpu = os.environ.get("PJRT_DEVICE", "TPU") == "TPU"  # CPUs write programs, and cannot read them again
        if on_tpu and cache is not None and "XLA_PERSISTENT_CACHE_PATH" not in os.environ:
            runtime.initialize_cache(str(cache / "latent-vae" / "xla"))
        runtime.use_spmd()
        self._xla, self._spmd, self._runtime = torch_xla, spmd, runtime
        self.torch_device = torch_xla.device()
        self.parts = runtime.global_runtime_device_count()
        self._mesh = spmd.Mesh(np.arange(self.parts), (self.parts,), ("data",))
        if self.processes > 1 and not dist.is_initialized():
            import torch_xla.distributed.xla_backend  # knows where the processes of a pod meet

            dist.init_process_group("gloo", init_method="xla://", timeout=PATIENCE)

    @property
    def processes(self) -> int:
        return int(self._runtime.process_count())

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

    def _send(self, whole: Tensor, start: int, chunk: Tensor) -> None:
        # Rows as a tensor: one program for all chunks. A copy, for what is recorded may be read later.
        rows = torch.arange(start, start + len(chunk))
        whole.index_copy_(0, self.put_whole(rows), self.put_whole(chunk.clone()))
        self.mark_step()

    def operand(self, number: int) -> Tensor:
        # Of one dimension: zeros and ones without any become constants of the program, too.
        return self.put_whole(torch.tensor([number], dtype=torch.int32)).squeeze(0)

    def divisor(self, number: int) -> int | Tensor:
        return self.put_whole(torch.tensor([number], dtype=torch.int32))  # read by several programs, made by none

    def put_scalar(self, value: Tensor) -> Tensor:
        return self.put_whole(value[None]).squeeze(0)  # see `operand`

    def normals(self, seed: int, first: int, count: int, size: int) -> Tensor:
        """Entry (i, j) is a function of (seed, first + i, j): neither devices nor micro-batches change anything."""
        key = self.put_whole(key_of(derive(seed, "noise", first >> 32)))
        start = self.put_whole(torch.tensor([signed(first & MASK_32)], dtype=torch.int32))
        noise = counted_normal(key, count, size, start)
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
