"""Which devices encode, which of them a worker takes, and at which precision."""

from collections.abc import Sequence
from typing import get_args

from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import count_gpus, find_device, find_gpus
from lvae.manifests.parts.plan import Precision

AUTO = "auto"
STAND_IN = "stand-in:"


def choose_device(name: str) -> str:
    """ "auto" is the GPU where there is one. LvaeError for a device that is not there.

    stand-in:RATE is no device: it answers at so many images a second without computing. For tests and measurements.
    """
    return name if name == "cpu" or name.startswith(STAND_IN) else find_device(name, count_gpus())


def choose_devices(numbers: str) -> tuple[str, ...]:
    """Several GPUs, "0,1". LvaeError for one that is not there."""
    return find_gpus(numbers, count_gpus())


def devices_here() -> tuple[str, ...]:
    """Every GPU of this machine that this process may see, or its CPU."""
    return tuple(f"cuda:{number}" for number in range(count_gpus())) or ("cpu",)


def find_devices(devices: Sequence[str]) -> tuple[str, ...]:
    """What names of devices mean here: "auto" is every GPU."""
    return devices_here() if tuple(devices) == (AUTO,) else tuple(map(choose_device, devices))


def device_of(devices: Sequence[str], worker: int) -> str:
    """The device of a worker: one each, and shared where there are more workers. No look at what others have taken."""
    return devices[worker % len(devices)]


def is_accelerator(device: str) -> bool:
    """Whether it computes beside the CPU. `auto`, of a machine that nobody has looked at, is taken for a CPU."""
    return device not in ("cpu", AUTO)


def choose_precision(asked: str | None, device: str) -> Precision:
    """What was asked for, else TF32 on a GPU and float32 everywhere else."""
    for precision in get_args(Precision):
        if precision == asked:
            return precision  # type: ignore[no-any-return]
    return "tf32" if device.startswith("cuda") else "float32"


def check_precision(precision: str | None, device: str) -> None:
    """Raises LvaeError where a device has no use for it."""
    if precision == "winograd" and device != "cpu":
        raise LvaeError("--precision winograd", "is a way to convolve on a CPU", "Choose tf32 or bfloat16 on a GPU.")
    if precision == "tf32" and device == "cpu":
        raise LvaeError("--precision tf32", "is a way to multiply on a GPU", "Choose float32 or winograd on a CPU.")
