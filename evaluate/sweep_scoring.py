"""How the samples of a sweep are scored: in the latent space of a dataset, or by Inception features."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.decode import load_decoder
from lvae.evaluate.inception import InceptionFID, Mode
from lvae.evaluate.reference_files import file_sha256
from lvae.evaluate.same_latents import expect_same_latents
from lvae.evaluate.score import Values, image_scores, latent_metrics, latents_of
from lvae.evaluate.stacks import ImageStack, decoded_stack
from lvae.evaluate.sweep import Against
from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive

REFERENCES = 10_000  # latents of a reference that are looked at, unless another number is given


class LatentScoring:
    """Between normalized latents. count: of samples; as many real latents against the others give the floor."""

    def __init__(self, reference: Dataset, count: int, num: int | None = None, seed: int = 0):
        self._reference, self._count, self._seed = reference, count, seed
        self._num = min(len(reference), REFERENCES) if num is None else num

    @property
    def against(self) -> Against:
        return Against("latent", self._reference.manifest.id, self._num, None)

    @cached_property
    def _latents(self) -> NDArray[np.float32]:
        return latents_of(self._reference, self._reference, self._num)

    def score(self, samples: Dataset, seed: int) -> Values:
        expect_same_latents(samples.manifest.view.shape, samples.manifest.autoencoder, self._reference)
        return dict(latent_metrics(latents_of(samples, self._reference, None), self._latents, seed))

    def floor(self) -> Values:
        y = self._latents
        order = np.random.default_rng(derive(self._seed, "floor", 0)).permutation(len(y))
        cut = min(self._count, len(y) // 2)
        return dict(latent_metrics(y[order[:cut]], y[order[cut:]], self._seed))


class FeatureScoring:
    """FID and its kin between decoded samples and a reference: pictures, or a file of statistics."""

    def __init__(self, reference: ImageStack | Path, name: str, features: Path, mode: Mode):
        self._reference, self._name, self._features, self._mode = reference, name, features, mode
        self._network = InceptionFID.load(features)

    @property
    def against(self) -> Against:
        count = None if isinstance(self._reference, Path) else len(self._reference)
        return Against(self._mode, self._name, count, file_sha256(self._features))

    def score(self, samples: Dataset, seed: int) -> Values:
        network: Any = load_decoder(samples, None)
        stack = decoded_stack(samples, network, None)
        return image_scores(stack, self._reference, self._network, self._mode, self._features, seed).values

    def floor(self) -> Values:
        return {}
