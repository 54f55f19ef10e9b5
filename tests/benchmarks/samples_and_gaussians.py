"""A trained run's samples, decoded, beside what a model has to beat: draws of a full-covariance Gaussian per class.

    python tests/benchmarks/samples_and_gaussians.py RUN DATASET OUT.png

Columns of a row: photographs by their own latents, samples of the model, draws of the Gaussian fitted to the class.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from lvae.evaluate.figures.drawing import png
from lvae.evaluate.pictures.decode import decode, load_decoder
from lvae.evaluate.pictures.inspect import draw_pictures
from lvae.manifests.dataset import Dataset
from lvae.train.network.noise import draw_noise
from lvae.train.runs.run import latest_checkpoint, load_model

EACH = 5


def gaussian(latents: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draws like (n, C, h, w) latents: mean and full covariance, by the singular vectors of the centred data."""
    flat = latents.reshape(len(latents), -1).astype(np.float64)
    mean = flat.mean(0)
    _, scales, directions = np.linalg.svd(flat - mean, full_matrices=False)
    draws = generator.standard_normal((count, len(scales))) * (scales / np.sqrt(len(latents) - 1))
    return (mean + draws @ directions).reshape(count, *latents.shape[1:]).astype(np.float32)


def main(run: str, dataset_name: str, out: str) -> None:
    torch.set_num_threads(1)
    dataset, model = Dataset.open(dataset_name), load_model(run)
    network, generator = load_decoder(dataset), np.random.default_rng(0)
    classes = range(len(dataset.classes or ())) if model.config.classes else [None]
    rows = []
    with torch.inference_mode():
        for label in classes:
            chosen = np.flatnonzero(dataset.labels == label) if label is not None else np.arange(len(dataset))
            real, _ = dataset.read(chosen, np.float32)
            labels = None if label is None else torch.full((EACH,), label)
            seeds = [1000 * (label or 0) + number for number in range(EACH)]
            samples = model.sample(EACH, labels, draw_noise(model.config, seeds)).numpy()
            rows += [real[:EACH], samples, gaussian(real, EACH, generator)]
    Path(out).write_bytes(png(draw_pictures(decode(network, dataset.denormalize(np.concatenate(rows))), 3 * EACH)))
    print(f"{out}: {EACH} each of photographs decoded, samples at update {latest_checkpoint(run).step}, Gaussian draws")


if __name__ == "__main__":
    main(*sys.argv[1:])
