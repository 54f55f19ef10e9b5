"""One latent in the bytes of an .npy file, read without running anything."""

import io

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.locations import Watched
from lvae.encode.sources.npz import read_header
from lvae.manifests.errors import LvaeError
from lvae.pipeline.exchange.caches.cache import Shape, array_bytes, entry_shape, number_type


class NpyEntries:
    """Arrays of one shape from the bytes of their files; the header of the first is compared, not read again."""

    def __init__(self, first: bytes, where: str):
        header, self.dtype, self.shape = parse(first, where)
        self._header = first[:header]
        self._bytes = array_bytes(self.shape, self.dtype)

    def fill(self, data: bytes, out: NDArray[np.float32]) -> str | None:
        """The numbers of one file into (C, h, w); why it cannot be used, if so."""
        begin = len(self._header)
        if not data.startswith(self._header) or len(data) != begin + self._bytes:
            try:
                begin, dtype, shape = parse(data, "")
            except LvaeError as error:
                return error.problem
            if shape != self.shape:
                return f"of shape {'x'.join(map(str, shape))} instead of {'x'.join(map(str, self.shape))}"
            out[...] = np.frombuffer(data, dtype, offset=begin).reshape(shape)
            return None
        out[...] = np.frombuffer(data, self.dtype, offset=begin).reshape(self.shape)
        return None


def parse(data: bytes, where: str) -> tuple[int, "np.dtype[np.floating]", Shape]:
    """Where the numbers begin, their type and shape. LvaeError for what is no whole array of one latent."""
    array = read_header(Watched(io.BytesIO(data)), where)
    dtype, shape = number_type(array.dtype, where), entry_shape(array.shape, where)
    if len(data) != array.offset + array_bytes(shape, dtype):
        raise LvaeError(where, f"damaged: {len(data)} bytes, not {array.offset + array_bytes(shape, dtype)}")
    return array.offset, dtype, shape
