"""What a path holds that pictures or features come from, told once by looking."""

from dataclasses import dataclass
from pathlib import Path

from lvae.evaluate.features.feature_files import StoredFeatures, read_features
from lvae.evaluate.features.reference_files import Reference, read_reference
from lvae.evaluate.pictures.decode import load_decoder
from lvae.evaluate.pictures.streams import ImageStack, chosen_positions, decoded_stack, open_source_stack
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset


@dataclass(frozen=True)
class PictureChoice:
    """How pictures are chosen and made equal: num of them by seed, those of a source cropped to size."""

    num: int | None
    seed: int
    size: int | None
    crop: str
    split: str
    device: str


@dataclass(frozen=True)
class ScoredPath:
    """A path as the user named it: a dataset; an .npz with features, statistics or both; or any source of images."""

    path: str
    dataset: Dataset | None = None
    features: StoredFeatures | None = None
    statistics: Reference | None = None

    @property
    def has_pictures(self) -> bool:
        """Whether there are pictures, or features of them."""
        return self.statistics is None or self.statistics.has_pictures

    def require_dataset(self, problem: str, advice: str = "") -> Dataset:
        if self.dataset is None:
            raise LvaeError(self.path, problem, advice)
        return self.dataset


def open_path(path: str, split: str) -> ScoredPath:
    """Look at what a path holds. split: of a dataset."""
    if is_dataset(path):
        return ScoredPath(path, Dataset.open(path, split))
    if path.endswith(".npz") and "://" not in path:
        return ScoredPath(path, None, read_features(Path(path)), read_reference(Path(path)))
    return ScoredPath(path)


def open_pictures(found: ScoredPath, choice: PictureChoice) -> ImageStack | StoredFeatures:
    """Pictures of a dataset, decoded; stored features; or the pictures of a source."""
    path, dataset, stored = found.path, found.dataset, found.features
    if dataset is not None:
        return decoded_stack(dataset, load_decoder(dataset), choice.num, choice.seed, choice.device)
    if stored is not None and choice.size is None:
        return stored.rows(chosen_positions(path, stored.count, choice.num, choice.seed))
    return open_source_stack(path, choice.num, choice.seed, choice.size, choice.crop)
