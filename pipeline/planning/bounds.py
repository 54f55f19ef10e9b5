"""How many images may be rejected, as it is written on a command line."""

from lvae.manifests.errors import LvaeError


def parse_rejection_bound(text: str, images: int) -> float:
    """How many images "1%" or "100" lets be rejected."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise LvaeError(f"--max-rejected {text:.60}", "cannot be read", "Write 1% or 100.")
    return value * images / 100 if text.endswith("%") else value
