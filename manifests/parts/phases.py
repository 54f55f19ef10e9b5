"""What a task is at, told while it works: how long it may take without a result depends on it."""

from typing import Literal, Protocol

Phase = Literal["loading", "reading", "computing", "writing"]


class Progress(Protocol):
    def begin(self, part: int) -> None:
        """What follows is about this part."""

    def working(self, done: int) -> None:
        """So many items are done."""

    def enter(self, phase: Phase) -> None:
        """From now on the task waits for this."""


class NoProgress:
    """For those who do not ask."""

    def begin(self, part: int) -> None:
        pass

    def working(self, done: int) -> None:
        pass

    def enter(self, phase: Phase) -> None:
        pass


NO_PROGRESS = NoProgress()
