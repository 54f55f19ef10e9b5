"""What a process takes of this machine: its device, memory that glibc keeps for it, and the user's cache folder."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lvae.manifests.errors import LvaeError

# glibc keeps the memory that it was given, for work that asks for the same tens of megabytes again and again. By
# default what is freed at the top of the heap goes back to the kernel, and a tensor above 32 MiB is mapped when it is
# made and unmapped when it goes. Either way its pages are faulted in anew each time: a fifth of an encoding, and more
# of a training step where faults are dear (encode/README.md, train/README.md).
TOP_PAD = 1 << 26
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h

# One arena: threads beside the first, Beam's and autograd's, would have arenas that give memory back all the same.
KEEPING = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_TOP_PAD_": str(TOP_PAD),
}


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; False where nothing was changed.

    Does nothing beside another C library than glibc, nor where the user has set one of `KEEPING`.
    """
    if sys.platform != "linux" or any(name in os.environ for name in KEEPING):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, TOP_PAD))
    return all(mallopt(setting, value) for setting, value in settings)


def keep_memory() -> dict[str, str]:
    """Environment for worker processes: one thread, and glibc keeping what it has."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {name: value for name, value in {**KEEPING, **threads}.items() if name not in os.environ}


def count_gpus() -> int:
    """GPUs that PyTorch sees. Loads torch."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def has_tpu() -> bool:
    """Whether this machine has a TPU, and torch_xla to use it."""
    there = os.environ.get("PJRT_DEVICE") == "TPU" or Path("/dev/accel0").exists()
    return there and importlib.util.find_spec("torch_xla") is not None


def find_device(name: str, gpus: int, others: Sequence[str] = ("cpu",)) -> str:
    """Return the device that `--device NAME` means on a machine with so many GPUs; LvaeError for one that is not there.

    "auto" is a GPU where there is one, otherwise the first of the others.
    """
    if name == "auto":
        return "cuda" if gpus else others[0]
    if name in others or (name == "cuda" and gpus):
        return name
    kind, _, number = name.partition(":")
    if kind == "cuda" and _is_one_of(number, gpus):
        return f"cuda:{int(number)}"
    there = [
        "auto",
        *reversed(others),
        *(["cuda"] if gpus else []),
        *(f"cuda:{n}" for n in range(gpus if gpus > 1 else 0)),
    ]
    raise LvaeError(f"--device {name}", "is not there", f"Choose one of {', '.join(there)}.")


def find_gpus(numbers: str, gpus: int) -> tuple[str, ...]:
    """GPUs by number, separated by commas, on a machine with so many of them."""
    found = []
    for number in map(str.strip, numbers.split(",")):
        if not _is_one_of(number, gpus):
            there = (
                f"Those here are {', '.join(map(str, range(gpus)))}." if gpus else "There is none here: leave it out."
            )
            raise LvaeError(f"--devices {numbers}", f"there is no GPU {number!r}", there)
        found.append(f"cuda:{int(number)}")
    if len(set(found)) < len(found):
        raise LvaeError(f"--devices {numbers}", "names a GPU twice")
    return tuple(found)


def _is_one_of(number: str, gpus: int) -> bool:
    return number.isascii() and number.isdigit() and len(number) < 10 and int(number) < gpus


def find_cache_home() -> Path | None:
    """The user's cache folder; None for a user without a home folder, as in a container that runs as a number."""
    named = os.environ.get("XDG_CACHE_HOME")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return None
