"""Numbers and foreign names in sentences."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """1 image, 2 images; `many` where it is not `one` with an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def printable(name: str) -> str:
    """A name out of a file, for a message: files may hold any."""
    if name.isprintable() and len(name) <= 100:
        return name
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
