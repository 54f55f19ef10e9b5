"""Why an image cannot be used."""

MAX_PIXELS = 178_956_970  # twice Pillow's own warning level: half a gigabyte of RGB


class ImageRejected(Exception):  # noqa: N818  a verdict on the image, not an error of ours
    """One image that cannot be used. `reason` is short and the same on every machine: it goes into rejected.jsonl."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason
