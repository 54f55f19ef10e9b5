"""Calls that run at the same time, with results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CONCURRENT = 32  # requests at a time where many files are looked at


def concurrently(call: Callable[[T], R], items: Iterable[T], lanes: int = CONCURRENT) -> Iterator[R]:
    """The results in order, a few calls at a time: for requests that take long and cost nothing."""
    with ThreadPoolExecutor(lanes) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > 2 * lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
