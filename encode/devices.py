"""Which device encodes, and at which precision."""

from typing import TYPE_CHECKING

from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    pass


def choose_device(name: str) -> str:
    """ "auto" is the GPU where there is one. LvaeError for a device that is not there."""
    return device_among(name, _gpus())


def choose_devices(numbers: str) -> tuple[str, ...]:
    """Several GPUs, "0,1". LvaeError for one that is not there."""
    return devices_among(numbers, _gpus())


def devices_here() -> tuple[str, ...]:
    """Every GPU of this machine, or its CPU."""
    return tuple(f"cuda:{number}" for number in range(_gpus())) or ("cpu",)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_among(name: str, gpus: int) -> str:
    """A device by name on a machine with so many GPUs."""
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name == "cpu" or (name == "cuda" and gpus):
        return name
    kind, _, number = name.partition(":")
    if kind == "cuda" and _is_one_of(number, gpus):
        return f"cuda:{int(number)}"
    there = ["auto", "cpu", *(["cuda"] if gpus else []), *(f"cuda:{n}" for n in range(gpus if gpus > 1 else 0))]
    raise LvaeError(f"--device {name}", "is not there", f"Choose one of {', '.join(there)}.")


def devices_among(numbers: str, gpus: int) -> tuple[str, ...]:
    """GPUs by number, separated by commas, on a machine with so many of them."""
    found = []
    for number in map(str.strip, numbers.split(",")):
        if not _is_one_of(number, gpus):
            there = (
                f"Those here are {', '.join(map(str, range(gpus)))}." if gpus else "There is none here: leave it out."
            )
            raise LvaeError(f"--devices {numbers}", f"there is no GPU {number!r}", str(there))
        found.append(f"cuda:{int(number)}")
    if len(set(found)) < len(found):
        raise LvaeError(f"--devices {numbers}", "names a GPU twice")
    return tuple(found)


def _is_one_of(number: str, gpus: int) -> bool:
    return number.isascii() and number.isdigit() and len(number) < 10 and int(number) < gpus


def check_precision(precision: str | None, device: str) -> None:
    """Raises LvaeError where a device has no use for it."""
    if precision == "winograd" and device != "cpu":
        raise LvaeError("--precision winograd", "is a way to convolve on a CPU", "Choose tf32 or bfloat16 on a GPU.")
