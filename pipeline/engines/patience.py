"""Waiting for a storage or a network that fails: longer each time, up to a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import duration
from lvae.manifests.storage.retry import is_outage

T = TypeVar("T")

DEFAULT_SECONDS = 7200.0
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 300.0  # of one wait
RECOVERED_SECONDS = 1800.0  # of a call that went well for so long, what fails then is another failure
ADVICE = "Run the same command again once it answers, or with a longer --patience."


class Patience:
    """limit: seconds from the first failure after which waiting ends; getting anywhere begins it anew."""

    def __init__(self, limit: float, say: Callable[[str], None]):
        self._limit, self._say = limit, say
        self.reset()

    def reset(self) -> None:
        """The job has got somewhere."""
        self._first: float | None = None
        self._delay = FIRST_SECONDS

    def wait(self, problem: str) -> None:
        """Say what failed, and wait. LvaeError where that has been done for long enough."""
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        left = self._first + self._limit - now
        if left <= 0:
            raise LvaeError("", f"the storage failed for {duration(now - self._first)} ({problem})", ADVICE)
        delay = min(self._delay, left)
        self._say(f"the storage failed ({problem}); trying again in {duration(delay)}, for {duration(left)} at most")
        time.sleep(delay)
        self._delay = min(2 * self._delay, LONGEST_SECONDS)

    def call(self, function: Callable[[], T]) -> T:
        """Return the function's result, called again after every failure of the storage."""
        while True:
            start = time.monotonic()
            try:
                return function()
            except OSError as error:
                if not is_outage(error):
                    raise
                if time.monotonic() - start > RECOVERED_SECONDS:
                    self.reset()
                self.wait(describe_failure(error))


def describe_failure(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error or type(error).__name__}"
