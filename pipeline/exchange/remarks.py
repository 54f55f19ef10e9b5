"""What the numbers of an import say against what was said of it."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.parts.plan import Encoding
from lvae.pipeline.exchange.settings import Conversion

STABLE_DIFFUSION = "kl-f8"
# edm2's training/encoders.py: raw latents of sd-vae-ft-mse, of images in [0, 1].
UNIT_MEAN, UNIT_STD = np.array([5.81, 3.25, 0.12, -2.15]), np.array([4.17, 4.62, 3.71, 3.28])
NEAR = 1.0  # in every channel's mean: data sets differ by less, input ranges by more
FAR = 3.0


def remarks(encoding: Encoding, conversion: Conversion, mean: Sequence[float], std: Sequence[float]) -> Iterator[str]:
    """Warnings, from the channel statistics of the raw latents. Only of the autoencoder whose numbers are known."""
    if encoding.autoencoder.name != STABLE_DIFFUSION:
        return
    spread = float(np.sqrt(np.mean(np.square(std))))
    usual = float(np.sqrt(np.mean(np.square(UNIT_STD))))
    if spread < usual / 2.5:
        yield (
            f"the raw latents deviate by {spread:.2f}, and {STABLE_DIFFUSION}'s by about {usual:.1f}: were they "
            f"multiplied by 0.18215 before? --scale says {conversion.scale:g}"
        )
    elif spread > usual * 2.5:
        yield (
            f"the raw latents deviate by {spread:.2f}, and {STABLE_DIFFUSION}'s by about {usual:.1f}: --scale "
            f"{conversion.scale:g} was probably never applied to them"
        )
    else:
        yield from _range_remarks(encoding, np.abs(np.array(mean) - UNIT_MEAN))


def _range_remarks(encoding: Encoding, distance: NDArray[np.float64]) -> Iterator[str]:
    unit = encoding.image.input_range == (0.0, 1.0)
    if not unit and (distance < NEAR).all():
        yield "the means are those of images in [0, 1] (as in edm2), but --input-range says -1,1"
    if unit and distance.max() > FAR:
        yield "the means are not those of images in [0, 1] (edm2 gives 5.81, 3.25, 0.12, -2.15); see --input-range"
