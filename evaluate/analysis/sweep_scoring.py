"""How the samples of a sweep are scored: in the latent space of a dataset, or by a network's features."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lvae.evaluate.analysis.sweep import Against, Scoring
from lvae.evaluate.features.feature_network import FeatureNetwork, open_network
from lvae.evaluate.features.open import PictureChoice, open_path, open_pictures
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures.decode import load_decoder
from lvae.evaluate.pictures.streams import decoded_stack
from lvae.evaluate.scores.image_scores import (
    Measure,
    ReferenceFeatures,
    compute_figures,
    features_of,
    level_of_real_features,
    reference_of,
)
from lvae.evaluate.scores.latent_scores import LatentReference, expect_same, latents_of, level_of_real
from lvae.evaluate.scores.score_table import Figures, Line
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import file_sha256

REFERENCES = 10_000  # latents of a reference that are looked at, unless another number is given


class LatentScoring:
    """Between normalized latents. count: of samples; as many real latents stand beside them."""

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

    def real(self) -> Line:
        return level_of_real(self._latents.latents, self._count, self._seed)


class FeatureScoring:
    """By features of decoded samples. open_reference: reads the reference's, once, when the first score is wanted.

    samples: how many of each setting there are.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        open_reference: Callable[[], ReferenceFeatures],
        against: Against,
        samples: int,
        seed: int,
    ):
        self._network, self._open, self.against = network, open_reference, against
        self._samples, self._seed = samples, seed

    @cached_property
    def _reference(self) -> ReferenceFeatures:
        return self._open()

    def score(self, samples: Dataset, seed: int) -> Figures:
        stack = decoded_stack(samples, load_decoder(samples), None, device=self._network.device)
        found, _ = features_of(stack, self._network)
        return compute_figures(found, str(samples.folder), self._reference, Measure(self._network, seed=seed))

    def real(self) -> Line | None:
        """None where the reference holds statistics alone."""
        y = self._reference.features
        measure = Measure(self._network, seed=self._seed)
        return None if y is None else level_of_real_features(self.against.reference, y, self._samples, measure)


@dataclass(frozen=True)
class ScoringOptions:
    """What samples are scored against, and by which network. split: of a dataset. num: of the reference's images."""

    reference: str | None
    split: str
    num: int | None
    features: Path | None
    mode: Mode


def choose_scoring(options: ScoringOptions, count: int, seed: int, device: str) -> Scoring | None:
    """Score `count` samples in latent space, or by a network where one is given; not at all without a reference."""
    reference = options.reference
    if reference is None:
        if options.features is not None:
            raise LvaeError(
                "", "--features needs something to compare with", "Give --reference DATASET, IMAGES or NPZ."
            )
        return None
    given = open_path(reference, options.split)
    if options.features is None:
        dataset = given.require_dataset("pictures are scored by a network's features", "Give --features FILE.")
        return LatentScoring(dataset, count, options.num, seed)
    where = "cuda" if device == "cuda" else "cpu"  # feature networks run on a GPU or on the CPU
    network = open_network(options.features, options.mode, where)
    choice = PictureChoice(options.num, seed, None, "adm", options.split, where)
    stack = open_pictures(given, choice) if given.has_pictures else None
    name = reference
    if given.dataset is not None:
        name = given.dataset.manifest.id
    elif reference.endswith(".npz"):
        name = file_sha256(Path(reference))

    def open_reference() -> ReferenceFeatures:
        return reference_of(reference, given.statistics, stack, network, lambda _: None)[0]

    against = Against(network.mode, name, None if stack is None else stack.count, network.sha256)
    return FeatureScoring(network, open_reference, against, count, seed)
