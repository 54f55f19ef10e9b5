"""The bytes of a pickle, taken one piece after another, never more than there are."""

import struct
from typing import Any

from lvae.manifests.tensors.pickle_objects import MalformedPickleError, TruncatedPickleError


class Stream:
    """Bytes, read from the front. `position` is where the next ones stand."""

    def __init__(self, data: memoryview):
        self._data = data
        self.position = 0

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._data):
            raise TruncatedPickleError(len(self._data))
        piece, self.position = self._data[self.position : end], end
        return piece

    def line(self) -> str:
        """Text up to the next line feed."""
        window = bytes(self._data[self.position : self.position + 4096])
        end = window.find(b"\n")
        if end < 0:
            if len(window) < 4096:
                raise TruncatedPickleError(len(self._data))
            raise MalformedPickleError("a line of more than 4096 characters")
        self.position += end + 1
        return window[:end].decode("utf-8", "replace")

    def number(self, form: str) -> Any:
        """One number in a form of the struct module."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def block(self, form: str, most: int) -> bytes:
        """A number that says how many bytes follow, and these."""
        count = self.number(form)
        if not 0 <= count <= most:
            raise MalformedPickleError(f"a text of {count} bytes")
        return bytes(self.take(count))

    def view(self, form: str, most: int) -> memoryview:
        """Likewise, without copying them."""
        count = self.number(form)
        if not 0 <= count <= most:
            raise MalformedPickleError(f"{count} bytes in one piece")
        return self.take(count)
