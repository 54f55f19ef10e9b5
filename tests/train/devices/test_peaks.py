"""How fast a device is, by its name."""

import pytest

from lvae.train.devices.peaks import peak_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", None),  # has no bfloat16
        ("NVIDIA A1000", None),
        ("NVIDIA L40", None),
    ],
)
def test_a_peak_is_that_of_the_very_device(name: str, peak: float | None) -> None:
    assert peak_flops(name, "bfloat16") == peak
