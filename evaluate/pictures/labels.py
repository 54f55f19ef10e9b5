"""Labels of a set of pictures, with the names of their classes where these have some."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.train.runs.classes import are_numbers, number_classes


@dataclass(frozen=True)
class PictureLabels:
    """numbers: int32 (N,), -1 where a picture has none. classes: names in the order of the numbers, or None."""

    numbers: NDArray[np.int32]
    classes: tuple[str, ...] | None

    def rows(self, chosen: NDArray[np.int64]) -> "PictureLabels":
        """Those of some pictures."""
        return PictureLabels(self.numbers[chosen], self.classes)

    def numbered_as(self, other: "PictureLabels") -> NDArray[np.int32]:
        """Numbers (N,) as another set counts its classes: by name, or by number where either has no other names.

        -1 where the other set has none such.
        """
        if self.classes is None or other.classes is None or are_numbers(other.classes):
            return self.numbers
        table = np.array([*number_classes(self.classes, other.classes), -1], np.int32)  # whose last entry is that of -1
        return table[self.numbers]


def labels_if_any(numbers: Sequence[int] | NDArray[np.int32], classes: tuple[str, ...] | None) -> PictureLabels | None:
    """None where no picture has a label."""
    found = np.asarray(numbers, np.int32)
    return PictureLabels(found, classes) if (found >= 0).any() else None
