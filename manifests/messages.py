"""Numbers and foreign names in sentences."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

# What lies in an unfinished dataset is the same, whichever of these was stopped.
RESUME = "Run the command that made it again: lvae encode, shard --out, merge or latents import."


def counted(count: int, one: str, many: str | None = None) -> str:
    """1 image, 2 images; `many` where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """ "Did you mean A or B?" of the known names that are like a wrong one; `otherwise` where none is."""
    near = difflib.get_close_matches(name, list(known), 3)
    likeness = [difflib.SequenceMatcher(None, one, name).ratio() for one in near]
    near = [one for one, like in zip(near, likeness, strict=True) if like > likeness[0] - 0.1]
    *others, last = near or [""]
    return f"Did you mean {', '.join(others)}{' or ' if others else ''}{last}?" if near else otherwise


def duration(seconds: float) -> str:
    """H:MM:SS."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def printable(name: str) -> str:
    """A name out of a file, for a message: files may hold any."""
    if name.isprintable() and len(name) <= 100:
        return name
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:57]}..."


UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def escape_controls(text: str) -> str:
    """Text for a terminal: control characters, marks of direction and bytes that are not UTF-8 escaped, as \\x1b.

    Line ends and tabs stay.
    """
    return UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(found[0])[1:-1]


def composed(name: str) -> str:
    """NFC: what names that look the same share, whichever of their Unicode forms a file system has kept."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


OPTIONS = {
    "image.size": "--size",
    "image.crop": "--crop",
    "image.min_size": "--min-size",
    "image.resample": "--crop",
    "image.mirrored": "--mirror",
    "autoencoder.store": "--store",
    "autoencoder.weights_sha256": "--weights",
    "normalization": "--normalization",
    "shift": "--normalization",
    "scale": "--normalization",
    "shard_size": "--shard-size",
    "part_size": "--part-size",
    "selection.only_classes": "--only-classes",
    "selection.class_map": "--only-classes",
    "selection.unlabelled": "--without-classes",
    "selection.without_keys": "--without-keys",
    "selection.split": "--split",
    "selection.limit": "--limit",
    **{name: f"--{name}" for name in ("weights", "limit", "seed", "batch", "precision", "format", "dtype")},
}


def option_of(setting: str) -> str:
    """A dotted setting as a person types it. Fields of an architecture stay named; what has no option stays itself."""
    if setting in OPTIONS:
        return OPTIONS[setting]
    if setting.startswith("autoencoder."):
        return f"--autoencoder with {setting.rpartition('.')[2]}"
    if setting.startswith("selection.split."):
        return "--split"
    return setting


def value_of(value: object) -> str:
    """A setting's value in a sentence, not too long."""
    text = {True: "yes", False: "no", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
