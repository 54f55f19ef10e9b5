"""The best linear code of patches (principal components): what a first stage has to beat to be worth its name."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lvae.encode.quality.fidelity import Pixels


@dataclass(frozen=True)
class LinearCode:
    """Patches of f x f pixels as `channels` numbers: float64 mean (3 f f,), components (3 f f, channels)."""

    factor: int
    mean: NDArray[np.float64]
    components: NDArray[np.float64]

    @classmethod
    def fitted(cls, pictures: list[Pixels], factor: int, channels: int) -> Self:
        """The principal components of all patches of these pictures (H, W, 3), f dividing H and W."""
        side = 3 * factor**2
        count, total, products = 0, np.zeros(side), np.zeros((side, side))
        for picture in pictures:
            patches = _patches(picture, factor)
            count += len(patches)
            total += patches.sum(0)
            products += patches.T @ patches
        mean = total / count
        covariance = products / count - np.outer(mean, mean)
        return cls(factor, mean, np.linalg.eigh(covariance)[1][:, ::-1][:, :channels])

    def through(self, picture: Pixels) -> Pixels:
        """A picture coded and decoded: uint8 (H, W, 3)."""
        patches = _patches(picture, self.factor) - self.mean
        decoded = patches @ self.components @ self.components.T + self.mean
        height, width = picture.shape[0] // self.factor, picture.shape[1] // self.factor
        grid = decoded.reshape(height, width, self.factor, self.factor, 3).transpose(0, 2, 1, 3, 4)
        result: Pixels = grid.reshape(picture.shape).round().clip(0, 255).astype(np.uint8)
        return result


def _patches(picture: Pixels, factor: int) -> NDArray[np.float64]:
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    grid = picture.reshape(height, factor, width, factor, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(height * width, factor * factor * 3).astype(np.float64)
