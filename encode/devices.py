"""Which device encodes, and at which precision."""

from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import count_gpus, find_device, find_gpus


def choose_device(name: str) -> str:
    """ "auto" is the GPU where there is one. LvaeError for a device that is not there."""
    return name if name == "cpu" else find_device(name, count_gpus())


def choose_devices(numbers: str) -> tuple[str, ...]:
    """Several GPUs, "0,1". LvaeError for one that is not there."""
    return find_gpus(numbers, count_gpus())


def devices_here() -> tuple[str, ...]:
    """Every GPU of this machine, or its CPU."""
    return tuple(f"cuda:{number}" for number in range(count_gpus())) or ("cpu",)


def check_precision(precision: str | None, device: str) -> None:
    """Raises LvaeError where a device has no use for it."""
    if precision == "winograd" and device != "cpu":
        raise LvaeError("--precision winograd", "is a way to convolve on a CPU", "Choose tf32 or bfloat16 on a GPU.")
