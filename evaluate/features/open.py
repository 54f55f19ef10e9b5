"""Images or stored features from whatever a path names."""

from dataclasses import dataclass
from pathlib import Path

from lvae.evaluate.features.feature_files import StoredFeatures, read_features
from lvae.evaluate.pictures import decode as decoding
from lvae.evaluate.pictures.streams import ImageStack, chosen_positions, decoded_stack, open_source_stack, open_stack
from lvae.manifests.dataset import Dataset
from lvae.manifests.manifest import is_dataset


@dataclass(frozen=True)
class Pictures:
    """How pictures are chosen and made equal: num of them by seed, those of a source cropped to size."""

    num: int | None
    seed: int
    size: int | None
    crop: str
    split: str
    device: str


def image_stack(path: str, asked: Pictures) -> ImageStack | StoredFeatures:
    """Pictures of a dataset, decoded; of an .npz, or features that it holds; or of any source."""
    if is_dataset(path):
        dataset = Dataset.open(path, asked.split)
        return decoded_stack(dataset, decoding.load_decoder(dataset), asked.num, asked.seed, asked.device)
    if path.endswith(".npz") and asked.size is None:
        if (stored := read_features(Path(path))) is not None:
            return stored.rows(chosen_positions(path, stored.count, asked.num, asked.seed))
        return open_stack(Path(path), asked.num, asked.seed)
    return open_source_stack(path, asked.num, asked.seed, asked.size, asked.crop)
