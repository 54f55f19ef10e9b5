"""What a published model is known to be and to score, and what can be asked of an imported one before scoring it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_latents
from lvae.evaluate.manipulation.rates import Rates
from lvae.manifests.dataset import Dataset

SAMPLES = 64
LARGEST_MEAN, DEVIATIONS = 0.5, (0.5, 1.5)  # of a channel over samples: published constants normalize to about N(0, 1)
LARGEST_ERROR = 0.6  # of reconstructed latents over their own deviation: a wrong map of names gives 1 and more


@dataclass(frozen=True)
class Published:
    """Parameters: counted from the published code. fid, precision, recall: of the paper, and how they were sampled."""

    parameters: int
    fid: float
    precision: float
    recall: float
    table: str
    options: str = ""


# Tables 1 to 3 of the paper: 50,000 samples at 256 pixels.
SCORES: Mapping[str, Published] = {
    "church256-f8": Published(119_137_672, 7.89, 0.69, 0.35, "Table 1, latent-space VAE"),
    "church32-rgb": Published(119_135_558, 33.53, 0.58, 0.10, "Table 1, with the upsampler behind it"),
    "church256-upsampler": Published(62_868_326, 33.53, 0.58, 0.10, "Table 1, behind church32-rgb"),
    "church256-pixels": Published(143_320_038, 44.36, 0.48, 0.13, "Table 1, pixel-space VAE"),
    "bedroom256-f4": Published(96_241_478, 9.35, 0.56, 0.36, "Table 2, f = 4"),
    "bedroom256-f8": Published(107_179_944, 11.16, 0.47, 0.36, "Table 2, f = 8"),
    "bedroom256-f16": Published(99_837_632, 17.46, 0.38, 0.28, "Table 2, f = 16"),
    "imagenet256-f8": Published(386_366_344, 9.34, 0.85, 0.32, "Table 3, guided", " --guidance paper"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. verdict: "-" where there is nothing to compare with."""

    what: str
    found: str
    expected: str
    verdict: Literal["as expected", "NOT as expected", "-"]


def check_imported(
    loaded: LoadedRun,
    dataset: Dataset | None = None,
    rates: Rates | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Finding]:
    """Whether an imported model behaves as one that was read right: parameters, samples, and over a dataset its errors.

    Scores need thousands of samples and the Inception weights: see `explain_scoring`.
    """
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    known = SCORES.get(loaded.config.preset)
    findings = [
        Finding(
            "parameters",
            f"{parameters:,}",
            "unknown" if known is None else f"{known.parameters:,}",
            "-" if known is None else _judge(parameters == known.parameters),
        )
    ]
    if loaded.model.config.low_resolution_factor is None:
        findings += _check_samples(loaded, progress)
    if dataset is not None:
        findings += _check_reconstructions(loaded, dataset)
    if rates is not None:
        findings.append(Finding("rate", f"{rates.nats:.1f} nats", "above 0", _judge(rates.nats > 0)))
    return findings


def _check_samples(loaded: LoadedRun, progress: Callable[[int], None]) -> list[Finding]:
    found = []
    for index in range(SAMPLES):
        label = loaded.label(index % loaded.classes) if loaded.classes else None
        with torch.no_grad():
            found.append(loaded.model.sample(1, label, loaded.draw_noise(0, "sample", index)))
        progress(1)
    latents = torch.cat(found).double().cpu().numpy()
    means, deviations = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    finite = bool(np.isfinite(latents).all())
    return [
        Finding(
            f"channel means of {SAMPLES} samples",
            ", ".join(f"{mean:+.2f}" for mean in means[:8]),
            f"within {LARGEST_MEAN} of 0",
            _judge(finite and bool((np.abs(means) <= LARGEST_MEAN).all())),
        ),
        Finding(
            f"channel deviations of {SAMPLES} samples",
            ", ".join(f"{deviation:.2f}" for deviation in deviations[:8]),
            f"{DEVIATIONS[0]} to {DEVIATIONS[1]}",
            _judge(finite and bool(((deviations >= DEVIATIONS[0]) & (deviations <= DEVIATIONS[1])).all())),
        ),
    ]


def _check_reconstructions(loaded: LoadedRun, dataset: Dataset) -> list[Finding]:
    latents, labels = read_latents(loaded, dataset, np.arange(min(len(dataset), SAMPLES)))
    x = torch.from_numpy(latents).to(loaded.device)
    told = torch.from_numpy(labels).to(loaded.device) if loaded.classes else None
    with torch.no_grad():
        inferred = loaded.model.infer(x, told)
        mean = loaded.model.decode(inferred.z, told, low_resolution=loaded.model.reduce(x)).mean
    error = float(((mean - x) ** 2).mean().sqrt() / x.std())
    return [
        Finding(
            f"error of {len(latents)} reconstructed latents, over their deviation",
            f"{error:.3f}",
            f"below {LARGEST_ERROR}",
            _judge(error < LARGEST_ERROR),
        )
    ]


def _judge(holds: bool) -> Literal["as expected", "NOT as expected"]:
    return "as expected" if holds else "NOT as expected"


def explain_scoring(preset: str, run: str) -> list[str]:
    """The paper's figures for a published model, and the commands that give ours; nothing for other models."""
    known = SCORES.get(preset)
    if known is None:
        return []
    return [
        f"the paper ({known.table}): FID {known.fid:g}, precision {known.precision:g}, recall {known.recall:g}",
        f"  lvae sample {run} samples -n 50000{known.options}",
        "  lvae decode samples samples.npz",
        "  lvae score --samples samples.npz --reference REFERENCE.npz --features FILE",
    ]
