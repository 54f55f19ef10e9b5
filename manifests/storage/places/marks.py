"""A mark in files that this program writes, by which it knows them again: only such a file is ever replaced.

PNG: a text chunk "Software". .npz: the comment of the zip. HTML: <meta name="generator">. Readers pass over all three.
"""

import struct
import zlib
from pathlib import Path

MARK = b"latent-vae"
GENERATOR = f'<meta name="generator" content="{MARK.decode()}">'
_CHUNK = b"tEXtSoftware\0" + MARK
PNG_CHUNK = struct.pack(">I", len(_CHUNK) - 4) + _CHUNK + struct.pack(">I", zlib.crc32(_CHUNK))
HEADER = 33  # bytes of a PNG before its second chunk: signature and IHDR
NO_COMMENT = b"\0\0"  # at the end of a zip: the length of its comment


def mark_png(data: bytes) -> bytes:
    """The same picture with the mark behind its header."""
    return data[:HEADER] + PNG_CHUNK + data[HEADER:]


def mark_npz(data: bytes) -> bytes:
    """The same archive, which has no comment, with the mark as its comment."""
    assert data.endswith(NO_COMMENT)
    return data.removesuffix(NO_COMMENT) + struct.pack("<H", len(MARK)) + MARK


def is_marked(path: Path) -> bool:
    """Whether this program wrote a file; LvaeError-free: what cannot be read is not ours."""
    ending = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if ending == ".npz":
                file.seek(-min(len(MARK), path.stat().st_size), 2)
                return file.read() == MARK
            start = file.read(1024)
    except OSError:
        return False
    return start[HEADER:].startswith(PNG_CHUNK) if ending == ".png" else GENERATOR.encode() in start
