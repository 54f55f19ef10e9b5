"""Channels and values as they are written on a command line."""

import numpy as np

from lvae.manifests.errors import LvaeError

MOST_PICTURES = 1024  # in one figure


def parse_values(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not np.isfinite(values).all():
        raise LvaeError(f"--values {text:.60}", "write numbers like -1,0,0.5,2")
    check_count(len(values) ** 2)
    return values


def parse_channels(text: str | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Parse "0:3,1:5": group and channel that are swept across and down."""
    parts = [part.strip().partition(":") for part in (text or "").split(",")]
    if len(parts) != 2 or not all(g.isdigit() and c.isdigit() and len(g) < 6 and len(c) < 6 for g, _, c in parts):
        raise LvaeError(f"--channels {text:.60}", "write two of GROUP:CHANNEL, like 0:3,1:5")
    (first, _, one), (second, _, other) = parts
    return (int(first), int(one)), (int(second), int(other))


def check_count(pictures: int) -> int:
    if pictures > MOST_PICTURES:
        raise LvaeError("", f"{pictures} pictures are too many for one figure", f"Ask for at most {MOST_PICTURES}.")
    return pictures
