"""Calls that run at the same time, with results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

REQUESTS = 32  # at a time, where many files are looked at


def concurrently(
    call: Callable[[T], R],
    items: Iterable[T],
    lanes: int | None = REQUESTS,
    ahead: int | None = None,
    begin: Callable[[], object] | None = None,
) -> Iterator[R]:
    """Yield call(item) for every item, in order; threads work on the next ones meanwhile.

    lanes: threads, None for as many as suit the processor. ahead: items begun before the oldest result is waited for.
    begin: what each thread does before its first item.
    What has not begun when the caller stops is not begun any more.
    """
    ahead = 2 * (lanes or REQUESTS) if ahead is None else ahead
    with ThreadPoolExecutor(lanes, initializer=begin) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
