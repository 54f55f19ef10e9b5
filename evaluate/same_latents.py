"""Whether latents may be compared with those of a dataset: made by the same autoencoder, of the same shape."""

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.plan import AutoencoderRecord


def expect_same_latents(shape: tuple[int, ...], record: AutoencoderRecord, dataset: Dataset) -> None:
    """LvaeError where they are of another network, or of another shape (C, h, w)."""
    other = dataset.manifest.autoencoder
    if record.weights_sha256 != other.weights_sha256 or shape != dataset.manifest.view.shape:
        raise LvaeError(
            f"{dataset.folder}: latents {dataset.manifest.view.shape} of {other.name}, but the samples are {shape} of "
            f"{record.name} with other weights or shape. Give the dataset that the model was trained on."
        )
