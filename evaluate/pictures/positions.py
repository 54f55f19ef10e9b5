"""Which latents of a dataset `--indices` means."""

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError


def positions_of(text: str | None, count: int, limit: int | None) -> NDArray[np.int64]:
    """ "0,5,7-20", or all; at most `limit`."""
    if text is None:
        return np.arange(count if limit is None else min(limit, count))
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash) and len(first) < 16 and len(last) < 16):
            raise LvaeError(f"--indices {part:.40}", "write numbers and ranges like 0,5,7-20")
        start, stop = int(first), int(last or first)
        if start > stop or stop >= count:
            raise LvaeError(f"--indices {part:.40}", f"there are {count}, numbered from 0 to {count - 1}")
        found.extend(range(start, stop + 1))
    return np.array(found[:limit], np.int64)
