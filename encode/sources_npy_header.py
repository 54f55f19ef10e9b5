"""The header of a .npy file, read without numpy's own reader: no pickles, no objects, nothing taken on trust."""

import ast
import math
import re
import struct
from typing import IO, NamedTuple

from lvae.encode.files.locations import Watched
from lvae.manifests.errors import LvaeError

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 4096
INTEGER = re.compile(r"[<>|=]?[iu][1248]")
BROKEN = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class Array(NamedTuple):
    """offset: of the first number, from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def items(self) -> int:
        return math.prod(self.shape)


def read_header(file: IO[bytes] | Watched, where: str) -> Array:
    """From the file's position, which is its start."""
    head = file.read(12)
    if head[:6] != MAGIC or len(head) < 12:
        raise LvaeError(f"{where}: not a .npy file.")
    if head[6] not in (1, 2):
        raise LvaeError(f"{where}: a .npy file of version {head[6]}, which no array of numbers needs.")
    size_bytes = 2 if head[6] == 1 else 4
    (length,) = struct.unpack_from("<H" if head[6] == 1 else "<I", head, 8)
    if length > MAX_HEADER_BYTES:
        raise LvaeError(f"{where}: its header of {length} bytes is too long for an array of numbers.")
    text = head[8 + size_bytes :] + file.read(max(0, length - (4 - size_bytes)))
    try:
        found = ast.literal_eval(text[:length].decode("latin1").strip())
        dtype, shape, fortran = found["descr"], found["shape"], found["fortran_order"]
    except (*BROKEN, KeyError) as error:
        raise LvaeError(f"{where}: its header is damaged.") from error
    if len(text) < length or not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise LvaeError(f"{where}: its header is damaged.")
    if not isinstance(dtype, str) or "O" in dtype:
        raise LvaeError(f"{where}: holds objects or records, not an array of numbers; nothing is unpickled.")
    if fortran is not False and len(shape) > 1:
        raise LvaeError(f"{where}: lies in Fortran's order. Save numpy.ascontiguousarray(images) instead.")
    return Array(dtype, shape, 8 + size_bytes + length)
