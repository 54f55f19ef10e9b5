"""What can only be read forwards (compressed streams, row groups), handed out by number to any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

STREAMS = 3  # at a time: threads stand on both sides of a stream's end
KEPT_BYTES = 64 << 20  # of each
KEPT_ITEMS = 4096

Stream = TypeVar("Stream")


class Forwards(Generic[Stream]):
    """Keeps the place in a few streams and what came last out of them, up to KEPT_BYTES: parts are read in order, so
    that a stream is gone through about once. To go back behind what is kept, it is opened again."""

    def __init__(self, opened: Callable[[Stream], Iterator[bytes | None]]):
        self._opened = opened
        self._lock = threading.Lock()
        self._places: OrderedDict[Stream, _Place] = OrderedDict()

    def read(self, stream: Stream, number: int) -> bytes | None:
        """Item `number` of a stream, whose name is whatever `opened` takes. Raises IndexError after its end."""
        with self._lock:
            place = self._places.get(stream)
            if place is None or place.has_passed(number):
                place = self._places[stream] = _Place(self._opened(stream))
                while len(self._places) > STREAMS:
                    self._places.popitem(last=False)
            self._places.move_to_end(stream)
            try:
                return place.read(number)
            except BaseException:
                del self._places[stream]
                raise

    def close(self) -> None:
        with self._lock:
            self._places.clear()


class _Place:
    def __init__(self, items: Iterator[bytes | None]):
        self._items, self._next, self._bytes = items, 0, 0
        self._kept: OrderedDict[int, bytes | None] = OrderedDict()

    def has_passed(self, number: int) -> bool:
        return number < self._next and number not in self._kept

    def read(self, number: int) -> bytes | None:
        while self._next <= number:
            item = next(self._items, ...)
            if item is ...:
                raise IndexError(f"no item {number}")
            self._kept[self._next] = item
            self._next += 1
            self._bytes += len(item or b"")
            while len(self._kept) > 1 and (self._bytes > KEPT_BYTES or len(self._kept) > KEPT_ITEMS):
                self._bytes -= len(self._kept.popitem(last=False)[1] or b"")
        return self._kept[number]
