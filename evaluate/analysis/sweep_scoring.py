"""How the samples of a sweep are scored: in the latent space of a dataset, or by a network's features."""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from lvae.evaluate.analysis.sweep import Against
from lvae.evaluate.features.feature_network import FeatureNetwork
from lvae.evaluate.pictures.decode import load_decoder
from lvae.evaluate.pictures.streams import decoded_stack
from lvae.evaluate.scores.image_scores import Measure, ReferenceFeatures, compute_figures, features_of
from lvae.evaluate.scores.latent_scores import LatentReference, expect_same, latents_of
from lvae.evaluate.scores.score_table import Figures
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
    def _latents(self) -> LatentReference:
        return LatentReference(latents_of(self._reference, self._reference, self._num, self._seed))

    def score(self, samples: Dataset, seed: int) -> Figures:
        expect_same(samples, self._reference)
        return self._latents.figures(latents_of(samples, self._reference), seed=seed)

    def floor(self) -> Figures:
        y = self._latents.latents
        order = np.random.default_rng(derive(self._seed, "floor", 0)).permutation(len(y))
        cut = min(self._count, len(y) // 2)
        return LatentReference(y[order[cut:]]).figures(y[order[:cut]], seed=self._seed)


class FeatureScoring:
    """By features of decoded samples. open_reference: reads the reference's, once, when the first score is wanted."""

    def __init__(
        self,
        network: FeatureNetwork,
        open_reference: Callable[[], ReferenceFeatures],
        name: str,
        count: int | None,
    ):
        self._network, self._open = network, open_reference
        self.against = Against(network.mode, name, count, network.sha256)

    @cached_property
    def _reference(self) -> ReferenceFeatures:
        return self._open()

    def score(self, samples: Dataset, seed: int) -> Figures:
        stack = decoded_stack(samples, load_decoder(samples), None, device=self._network.device)
        found, _ = features_of(stack, self._network)
        return compute_figures(found, str(samples.folder), self._reference, Measure(self._network, seed=seed))

    def floor(self) -> Figures:
        return {}
