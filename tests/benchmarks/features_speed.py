"""Feature extraction beside the network's own speed: what resizing, batches and files add to it.

    python tests/benchmarks/features_speed.py [--pictures 512] [--record]

Pictures of noise of several sizes in an .npz, on one thread; the best of five rounds, in which the two take turns, so
that other work on the machine meets both. "Network" is its forward pass over one prepared batch, again and again.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe

from lvae.encode.quality.efficientnet import NAME
from lvae.evaluate.features import efficientnet
from lvae.evaluate.features.feature_files import extract
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.pictures.streams import open_source_stack
from lvae.manifests.machine import keep_freed_memory

RECORD = Path(__file__).with_suffix(".md")
SIZES = (32, 64, 128, 256)
ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(size: int, count: int, folder: Path) -> tuple[float, float]:
    """Milliseconds of a thread a picture: everything, and the network alone."""
    network = open_network(Path(NAME), "adm")
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    np.savez(folder / f"{size}.npz", arr_0=images)
    stack = open_source_stack(str(folder / f"{size}.npz"), None, 0, None, "adm")
    batch = efficientnet.prepare(images[: efficientnet.BATCH])
    passes = -(-count // efficientnet.BATCH)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(passes):
                network.network._pool(batch)

    rounds = [(seconds(lambda: extract(folder / "out.npz", stack, network)), seconds(forward)) for _ in range(ROUNDS)]
    return min(all_ for all_, _ in rounds) * 1000 / count, min(alone for _, alone in rounds) * 1000 / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command does
    lines = [
        "# Speed of features",
        "",
        f"{describe()}; torch {torch.__version__}, one thread, milliseconds a picture:",
        "",
    ]
    lines += ["| picture | `lvae features` | the network alone | other work |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            whole, alone = measure(size, options.pictures, Path(folder))
            lines.append(f"| {size} px | {whole:.2f} | {alone:.2f} | {100 * (whole / alone - 1):.1f} % |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.record:
        RECORD.write_text(text)


if __name__ == "__main__":
    main()
