"""What a precision of the network rounds: the latents' error, in units of their deviation, computed on a CPU.

python tests/benchmarks/latent_error.py [--pictures 4] [--size 256] [--record]

bfloat16 by torch's autocast, as on a GPU; TF32, which CPUs lack, by rounding inputs and weights of every convolution to
its ten bits. Pictures are drawn scenes. The error of a channel is the root of the mean square of
the differences to float32, over that channel's deviation; the table has the mean over channels and the largest. Beside
them stands what float16 of a shard rounds by itself.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import Tensor, nn

from lvae.encode.autoencoder import load
from lvae.encode.networks.base import Autoencoder
from lvae.encode.scenes.make import scene

RECORD = Path(__file__).with_suffix(".md")
NETWORKS = (("kl-f8", "random:0"), ("default", None))
TF32_BITS = 13  # of float32's mantissa that TF32 lacks


def pictures(count: int, size: int) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    drawn = np.stack([np.asarray(scene(0, number, size)) for number in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def round_to_tf32(x: Tensor) -> Tensor:
    """To the nearest number with ten bits of mantissa."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << (TF32_BITS - 1))) & ~((1 << TF32_BITS) - 1)).view(torch.float32)


def with_tf32(network: Autoencoder) -> Autoencoder:
    """The network, every convolution of which sees what a TF32 unit sees."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = round_to_tf32(layer.weight.data)
            layer.register_forward_pre_hook(lambda _, inputs: (round_to_tf32(inputs[0]),))
    return network


def encode(network: Autoencoder, images: Tensor, half: bool = False) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        return network.encode(images).float()


def error(found: Tensor, right: Tensor) -> tuple[float, float]:
    """Mean over channels and largest."""
    rms = (found - right).double().square().mean((0, 2, 3)).sqrt() / right.double().std((0, 2, 3), correction=0)
    return float(rms.mean()), float(rms.max())


def rows(name: str, weights: str | None, count: int, size: int) -> list[str]:
    def network() -> Autoencoder:
        return load(name, weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    images = pictures(count, size)
    right = encode(network(), images)
    deviation = right.std((0, 2, 3), correction=0)[:, None, None]
    kinds: dict[str, Callable[[], Tensor]] = {
        "float16 of a shard": lambda: (right / deviation).half().float() * deviation,
        "tf32": lambda: encode(with_tf32(network()), images),
        "bfloat16": lambda: encode(network(), images, half=True),
    }
    lines = []
    for kind, compute in kinds.items():
        mean, largest = error(compute(), right)
        lines.append(f"| {name} | {kind} | {mean:.5f} | {largest:.5f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--record", action="store_true", help="write latent_error.md")
    options = parser.parse_args()
    lines = [f"{describe()}, {options.pictures} pictures of {options.size} px, torch {torch.__version__}", ""]
    lines += ["| autoencoder | precision | error, deviations | largest channel |", "|---|---|---|---|"]
    for name, weights in NETWORKS:
        lines += rows(name, weights, options.pictures, options.size)
    lines += ["", "kl-f8 has random weights here, `default` its own."]
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# What a precision rounds\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
