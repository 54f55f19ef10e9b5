"""What is in a dataset of latents? Counts by class, channels, and how much a latent varies.

python examples/dataset_statistics.py latents
"""

import sys
from collections import Counter

import numpy as np

from lvae import Dataset

CHUNK = 1024  # latents read at a time


def main(path: str) -> None:
    dataset = Dataset.open(path)
    print(dataset)
    names = dataset.classes or ()
    counts = Counter(int(label) for label in dataset.labels)
    for label, count in sorted(counts.items()):
        print(f"{names[label] if 0 <= label < len(names) else 'no label':>16} {count:6d}")

    # The manifest has exact statistics of the raw latents. Of the normalized ones, which a model sees, we fold our own.
    total, squares = np.zeros(dataset.shape[1]), np.zeros((dataset.shape[1],) * 2)
    lengths = []
    for start in range(0, len(dataset), CHUNK):
        latents, _ = dataset.read(range(start, min(start + CHUNK, len(dataset))), "float32")  # (n, C, h, w)
        values = latents.transpose(0, 2, 3, 1).reshape(-1, latents.shape[1]).astype(np.float64)  # (n h w, C)
        total += values.sum(0)
        squares += values.T @ values
        lengths.append(np.sqrt((latents.reshape(len(latents), -1) ** 2).sum(1)))
    number = len(dataset) * np.prod(dataset.shape[2:])
    mean = total / number
    covariance = squares / number - np.outer(mean, mean)
    deviation = np.sqrt(np.diag(covariance))
    print("\nchannel   raw mean    raw std   mean seen    std seen")
    for channel in range(dataset.shape[1]):
        raw = f"{dataset.statistics.mean[channel]:10.3f} {dataset.statistics.std[channel]:10.3f}"
        print(f"{channel:7d} {raw} {mean[channel]:11.3f} {deviation[channel]:11.3f}")
    print("\ncorrelation of channels")
    print(np.array2string(covariance / np.outer(deviation, deviation), precision=2, suppress_small=True))

    length = np.concatenate(lengths)
    dullest, wildest = int(length.argmin()), int(length.argmax())
    print(f"\nshortest latent: {length[dullest]:.1f}, {dataset.keys[dullest]}")
    print(f"longest latent:  {length[wildest]:.1f}, {dataset.keys[wildest]}")


if __name__ == "__main__":
    main(sys.argv[1])
