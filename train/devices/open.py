"""Open the device that a command asks for."""

import importlib.util
import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Literal

import torch

from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import count_gpus, find_device, has_tpu
from lvae.train.devices.cuda import CudaDevice
from lvae.train.devices.device import Device, Precision, Ranks, ReducePrecision
from lvae.train.devices.xla import XlaDevice

Purpose = Literal["training", "sampling"]
AnyPrecision = Precision | Literal["auto"]


def ranks_of(environment: MutableMapping[str, str]) -> Ranks:
    """What torchrun says, or Slurm's srun, whose words are put into torchrun's; one process alone otherwise."""
    if "RANK" not in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        environment.update(slurm_ranks(environment))
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(name in environment for name in names):
        return Ranks()
    return Ranks(*(int(environment[name]) for name in names))


def slurm_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would say, from what srun says: a task is a rank, and the first host is where they meet."""
    local = re.match(r"\d+", environment["SLURM_STEP_TASKS_PER_NODE"])
    port = 20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": "1" if local is None else local[0],
        "MASTER_ADDR": environment.get("MASTER_ADDR", first_host(environment["SLURM_STEP_NODELIST"])),
        "MASTER_PORT": environment.get("MASTER_PORT", str(port)),
    }


def first_host(nodes: str) -> str:
    """Of a list as Slurm writes them: gpu[003-006,9],login1 -> gpu003."""
    found = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)", nodes)
    return "" if found is None else "".join(part or "" for part in found.groups())


def make_deterministic() -> None:
    """Ask PyTorch for operations that give the same bits every time, before a GPU is opened."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def open_device(
    kind: str = "auto",
    precision: AnyPrecision = "float32",
    compiled: bool | None = False,
    threads: int | None = None,
    purpose: Purpose = "training",
    reduce_precision: ReducePrecision = "float32",
) -> "Device":
    """The device of this process, joined with the other ranks. LvaeError for one that is not there.

    kind: "auto" is a GPU, then a TPU, then the CPU. precision: "auto" is what is usual for the purpose. compiled:
    whether `compile` compiles; None: on GPUs. threads: of a CPU's operations; PyTorch's choice otherwise.
    reduce_precision: in which ranks exchange gradients.
    """
    ranks = ranks_of(os.environ)
    if kind == "xla" and importlib.util.find_spec("torch_xla") is None:
        raise LvaeError("--device xla", "torch_xla is not installed", "Install the extra: pip install latent-vae[tpu].")
    kind = find_device(kind, count_gpus(), ("xla", "cpu") if kind == "xla" or has_tpu() else ("cpu",))
    if precision == "auto":
        precision = automatic_precision(kind, purpose)
    if kind == "xla":
        if ranks.world > 1:
            raise LvaeError("--device xla", "one process drives all devices of a host", "Start it without torchrun.")
        return XlaDevice(precision)
    if kind.startswith("cuda"):
        return CudaDevice(precision, compiled is not False, ranks, reduce_precision)
    if precision == "tf32":
        raise LvaeError("--precision tf32", "only GPUs have it", "Choose float32 or bfloat16.")
    if threads is not None:
        torch.set_num_threads(threads)
    return Device(precision, bool(compiled), ranks, reduce_precision)


def automatic_precision(kind: str, purpose: Purpose) -> Precision:
    """bfloat16 for training where the hardware has it, TF32 for sampling on GPUs, float32 everywhere else."""
    if kind.startswith("cuda"):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return "float32"
        return "bfloat16" if purpose == "training" else "tf32"
    return "bfloat16" if kind == "xla" and purpose == "training" and has_tpu() else "float32"
