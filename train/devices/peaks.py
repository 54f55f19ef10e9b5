"""What devices reach at most, in floating-point operations a second, as their makers state it for dense products.

Only a few are known. A name that is not among them has no peak, and nothing is then said about the share that is used.
"""

from lvae.train.devices.device import Precision

PEAKS: dict[str, dict[Precision, float]] = {  # by the beginning of the name that the driver gives, without the maker's
    "H200": {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12},
    "GH200": {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12},
    "H100 80GB": {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12},
    "H100 PCIe": {"bfloat16": 756e12, "tf32": 378e12, "float32": 51e12},
    "A100": {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12},
    "L40S": {"bfloat16": 362e12, "tf32": 183e12, "float32": 91.6e12},
    "L4": {"bfloat16": 121e12, "tf32": 60e12, "float32": 30.3e12},
    "T4": {"float32": 8.1e12},
    "V100-SXM2": {"float32": 15.7e12},
}


def peak_flops(name: str, precision: Precision) -> float | None:
    """Of a device, by its name; None where nothing is known."""
    short = name.removeprefix("NVIDIA ").removeprefix("Tesla ")
    for beginning, peaks in PEAKS.items():
        if short == beginning or short.startswith((f"{beginning} ", f"{beginning}-")):
            return peaks.get(precision)
    return None
