"""Numbers and foreign names in sentences."""

import unicodedata


def counted(count: int, one: str, many: str | None = None) -> str:
    """1 image, 2 images; `many` where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


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


def composed(name: str) -> str:
    """NFC: what names that look the same share, whichever of their Unicode forms a file system has kept."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


OPTIONS = {
    "image.size": "--size",
    "image.crop": "--crop",
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
