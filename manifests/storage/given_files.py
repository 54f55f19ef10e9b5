"""Small files that a person names on the command line: keys, labels, descriptions."""

import stat
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.retry import raise_outage

LARGEST_BYTES = 1 << 30  # of a list of keys or labels: some ten million lines


def read_given_file(path: Path, where: str = "", limit: int = LARGEST_BYTES) -> bytes:
    """LvaeError for what is no file, a device or a pipe too, and for one of more bytes than the limit.

    where: how the user named it.
    """
    where = where or str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LvaeError(where, "is not a regular file", "Give a file; no folder, device or pipe.")
        with path.open("rb") as file:
            data = file.read(limit + 1) if status.st_size <= limit else b""  # of /proc the size is not known before
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise_outage(error)
        raise LvaeError(where, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if max(len(data), status.st_size) > limit:
        raise LvaeError(where, f"has more than {limit >> 20} MiB", "Give a smaller file.")
    return data
