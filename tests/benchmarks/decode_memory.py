"""Peak memory (PSS, all processes together) of decoding pictures of 256 px and of extracting their features.

python tests/benchmarks/decode_memory.py [--pictures 50000] [--record]

Pictures are noise through `pixels-f8`, so that decoding takes no time of its own: what is measured is what holds the
pictures. The bar is 1 GiB for 50,000 of them (9.8 GB of pixels).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from encode_memory import descendants, pss_bytes
from machine import describe

RECORD = Path(__file__).with_suffix(".md")
FEW = 1000


class Means(torch.nn.Module):
    """64 features, the means over squares of 32 pixels: a network that costs nothing."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(pixels.float().mean(1, keepdim=True), 32).flatten(1)


def peak(*arguments: str | Path) -> tuple[int, float]:
    """(bytes, seconds) of an `lvae` command."""
    start, highest = time.monotonic(), 0
    job = subprocess.Popen([sys.executable, "-m", "lvae", *map(str, arguments)], stderr=subprocess.DEVNULL)
    while job.poll() is None:
        highest = max(highest, pss_bytes(descendants(job.pid)))
        time.sleep(0.05)
    if job.returncode:
        raise SystemExit(job.returncode)
    return highest, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    lines = [describe(), "", "| | pictures | peak PSS, MiB | seconds |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = folder / "network.pt"
        torch.jit.trace(Means(), torch.zeros(2, 3, 256, 256, dtype=torch.uint8)).save(str(network))
        settings = ("--autoencoder", "pixels-f8", "--size", "256", "--crop", "center")
        peak("encode", f"synthetic:{options.pictures}?size=256", folder / "data", *settings)
        for count in (FEW, options.pictures):
            some = ("--limit", count)
            npz = folder / "images.npz"
            steps = {
                "`lvae decode` to .npz": ("decode", folder / "data", npz, *some),
                "`lvae features` of it": ("features", npz, folder / "f.npz", "--features", network),
                "`lvae decode --workers 2`": ("decode", folder / "data", npz, *some, "--workers", "2"),
            }
            for what, arguments in steps.items():
                highest, seconds = peak(*map(str, arguments))
                lines.append(f"| {what} | {count:,} | {highest / 2**20:.0f} | {seconds:.0f} |")
                print(lines[-1], flush=True)
    if options.record:
        said = f"`python tests/benchmarks/decode_memory.py --pictures {options.pictures} --record`"
        RECORD.write_text("\n".join(["# Memory of decoding", "", said, "", *lines]) + "\n")


if __name__ == "__main__":
    main()
