"""The level of real data: what as many real ones score as there are samples; one name and one value everywhere."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.scores.score_table import SHOWN_AS, Figures, Line, several
from lvae.manifests.seeds import derive

REAL = "real"
REAL_IN_WORDS = SHOWN_AS[REAL]
RIVAL_SETS = 3  # draws of each baseline, and of the real ones

Rows = NDArray[np.int64]


def real_line(rows: int, count: int, seed: int, figures: Callable[[Rows, Rows, int], Figures]) -> Line:
    """Compare a seeded choice of `count` of so many rows (half of them at most) with the others, three times.

    figures: of some rows against others, and the number of the draw.
    """
    few = min(count, rows // 2)
    sets = []
    for number in range(RIVAL_SETS):
        order = np.random.default_rng(derive(seed, "real against real", number)).permutation(rows)
        sets.append(figures(order[:few], order[few:], number))
    fewer = "" if few == count else f", fewer than the {count:,} samples"
    return several(REAL, f"{few:,} real ones against the other {rows - few:,}{fewer}", sets)
