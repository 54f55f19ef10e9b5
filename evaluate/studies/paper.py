"""What the paper's tables say: figures to stand beside ours, and orderings to be checked."""

from collections.abc import Mapping
from dataclasses import dataclass

FRECHET, KERNEL = "network_frechet_distance", "network_kernel_distance"
PRECISION, RECALL = "network_precision", "network_recall"
AGREEMENT = "network_class_agreement"
SECONDS = "seconds_per_1000"


@dataclass(frozen=True)
class PaperRow:
    """Of a table of the paper: FID, precision and recall of Inception features at 256 px, or seconds for 1,000."""

    frechet: float | None = None
    precision: float | None = None
    recall: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Ordering:
    """A claim: by this metric, `better` is ahead of `worse`. by_paper: or a claim of our own."""

    better: str
    worse: str
    metric: str
    by_paper: bool = True


@dataclass(frozen=True)
class Table:
    """title: of the page. note: what ours leaves out or does otherwise."""

    title: str
    rows: Mapping[str, PaperRow]
    orderings: tuple[Ordering, ...]
    note: str


LATENT, STACK, PIXEL = "latent VAE", "upsampling stack", "pixel VAE"
AUTOENCODER_STACK = "upsampling stack, autoencoder"
GUIDED, UNGUIDED, GAUSSIANS, RECONSTRUCTIONS = "guided", "unguided", "class Gaussians", "reconstructions"
REAL = "real pictures"
ONE_PASS, FIFTY_STEPS, DECODING = "one pass", "50 steps of a denoiser of equal cost", "decoding"
ONE_PASS_DECODED, FIFTY_STEPS_DECODED = "one pass, decoded", "50 steps, decoded"

TABLES: Mapping[str, Table] = {
    "table1": Table(
        "Table 1: where the model is trained",
        {
            LATENT: PaperRow(7.89, 0.69, 0.35),
            STACK: PaperRow(33.53, 0.58, 0.10),
            PIXEL: PaperRow(44.36, 0.48, 0.13),
        },
        (
            Ordering(LATENT, STACK, FRECHET),
            Ordering(LATENT, PIXEL, FRECHET),
            Ordering(STACK, PIXEL, FRECHET),
            Ordering(LATENT, STACK, PRECISION),
            Ordering(LATENT, PIXEL, PRECISION),
            Ordering(STACK, PIXEL, PRECISION),
            Ordering(LATENT, STACK, RECALL),
            Ordering(LATENT, PIXEL, RECALL),
            Ordering(PIXEL, STACK, RECALL),
            Ordering(LATENT, AUTOENCODER_STACK, FRECHET, by_paper=False),
            Ordering(LATENT, AUTOENCODER_STACK, RECALL, by_paper=False),
            Ordering(AUTOENCODER_STACK, STACK, FRECHET, by_paper=False),
        ),
        "The paper's pictures are churches of 256 px, and its stack enlarges small pictures by a second VAE. In "
        f'"{AUTOENCODER_STACK}" the decoder of an autoencoder does, whose latents are the small pictures themselves; '
        "it is fitted once, for half of the arm's time over all seeds, on pictures of the training split.",
    ),
    "table2": Table(
        "Table 2: how far the autoencoder reduces",
        {
            "f = 4": PaperRow(9.35, 0.56, 0.36),
            "f = 8": PaperRow(11.16, 0.47, 0.36),
            "f = 16": PaperRow(17.46, 0.38, 0.28),
        },
        (
            Ordering("f = 4", "f = 8", FRECHET),
            Ordering("f = 4", "f = 16", FRECHET),
            Ordering("f = 8", "f = 16", FRECHET),
            Ordering("f = 4", "f = 8", PRECISION),
            Ordering("f = 8", "f = 16", PRECISION),
            Ordering("f = 4", "f = 16", RECALL),
            Ordering("f = 8", "f = 16", RECALL),
        ),
        "The paper's pictures are bedrooms of 256 px. Our autoencoders are tiny ones, fitted on pictures of the "
        "training split.",
    ),
    "table3": Table(
        "Table 3: guidance",
        {GUIDED: PaperRow(9.34, 0.85, 0.32), UNGUIDED: PaperRow(32.7, 0.56, 0.59)},
        (
            Ordering(GUIDED, UNGUIDED, FRECHET),
            Ordering(GUIDED, UNGUIDED, PRECISION),
            Ordering(UNGUIDED, GUIDED, RECALL),
            Ordering(UNGUIDED, GAUSSIANS, FRECHET, by_paper=False),
            Ordering(GUIDED, GAUSSIANS, FRECHET, by_paper=False),
        ),
        "The paper's pictures are ImageNet's at 256 px. Means are not guided at 1x1, as there. The weights of guidance "
        "are those with the smallest Fréchet distance to pictures of the training split, over samples of the other "
        "seeds' models. Real pictures are as many of the training split. Class agreement: how often the network's "
        "logits of a picture are nearest to the mean logits of its own class.",
    ),
    "table4": Table(
        "Table 4: how long sampling takes",
        {ONE_PASS_DECODED: PaperRow(seconds=213.8), FIFTY_STEPS_DECODED: PaperRow(seconds=4560.0)},
        (
            Ordering(ONE_PASS, FIFTY_STEPS, SECONDS),
            Ordering(ONE_PASS_DECODED, FIFTY_STEPS_DECODED, SECONDS),
        ),
        "The paper measured 1,000 guided pictures of 256 px on a T4, and LDM-4's 50 steps. A step of our denoiser "
        "costs one pass of our generator; it is timed, not trained.",
    ),
    "ablations": Table(
        "Ablations beyond the paper",
        {},
        tuple(
            Ordering("all of it", other, metric, by_paper=False)
            for other in (
                *("published attention", "normalized attention", "standard prior"),
                *("rates by resolution", "redrawn singular vectors", "no spectral penalty"),
            )
            for metric in (FRECHET, RECALL)
        ),
        "One thing changed at a time. The paper does not show these.",
    ),
}
