"""`lvae.Dataset`: a dataset for notebooks, whose latents become pictures."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED

if TYPE_CHECKING:
    from PIL.Image import Image

    from lvae.encode.networks.base import Autoencoder
    from lvae.evaluate.notebook.picture_set import PictureSet


BATCH = 32  # latents decoded at a time


def as_batch(latents: ArrayLike, shape: tuple[int, ...], where: object) -> NDArray[Any]:
    """Latents (n, C, h, w) of one or several; LvaeError where they are of another shape."""
    found = np.asarray(latents)
    found = found[None] if found.ndim == 3 else found
    if found.ndim != 4 or found.shape[1:] != tuple(shape) or not len(found):
        wanted = "x".join(map(str, shape))
        raise LvaeError(where, f"decodes latents (n, C, h, w) of {wanted}, not an array of shape {np.shape(latents)}")
    return found


class DecodableDataset(Dataset):
    """A dataset opened for reading, as in `lvae.manifests.dataset`, that decodes with the weights it carries.

        dataset = Dataset.open("latents")
        dataset.picture(5)                     # what latent 5 decodes to
        dataset.decode(dataset[:8][0])         # pictures of the first eight

    torch is imported with the first picture, not with the dataset.
    """

    _network: "Autoencoder | None" = None

    def split(self, name: str) -> Self:
        """Another split of the same dataset."""
        other = super().split(name)
        other._network = self._network
        return other

    def load_decoder(self, weights: str | None = None) -> "Autoencoder":
        """The autoencoder of this dataset, loaded once.

        weights: a file of them, where the dataset does not carry any. LvaeError where they are nowhere, or are those
        of another autoencoder.
        """
        if self._network is None or weights is not None:
            from lvae.encode.devices import choose_device
            from lvae.evaluate.pictures.decode import load_decoder

            self._network = load_decoder(self, weights).to(choose_device("auto"))
        return self._network

    def decode(self, latents: ArrayLike) -> "PictureSet":
        """Normalized latents (n, C, h, w), or one (C, h, w), as `read` gives them -> pictures, uint8 (n, H, W, 3).

        LvaeError for another shape, and where the autoencoder's weights are not there.
        """
        from lvae.encode.devices import choose_device
        from lvae.evaluate.notebook.picture_set import PictureSet
        from lvae.evaluate.pictures.decode import DecodeSettings, decode

        given = as_batch(latents, self.shape[1:], self.folder)
        network, settings = self.load_decoder(), DecodeSettings(choose_device("auto"))
        raw = self.denormalize(given if given.dtype == np.uint8 else given.astype(np.float32))
        batches = (raw[start : start + BATCH] for start in range(0, len(raw), BATCH))
        pixels = np.concatenate([decode(network, some, settings) for some in batches])
        return PictureSet(pixels, given, np.full(len(given), UNLABELLED, np.int32))

    def picture(self, index: int) -> "Image":
        """What the latent at a position decodes to, as an image of Pillow, which notebooks show."""
        return self.decode(self[index][0])[0]

    def __getstate__(self) -> dict[str, Any]:
        """Networks are loaded anew in another process."""
        return {**super().__getstate__(), "_network": None}
