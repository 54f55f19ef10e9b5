"""What a job needs to tell a person how it gets on. Who that person is, and by what means, it does not know."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class Bar(Protocol):
    """Progress towards a total."""

    def at(self, done: int, pace: str = "") -> None: ...

    def advance(self, more: int) -> None: ...


class NewBar(Protocol):
    """what: is done. total: so many of a unit, of which `initial` are done. paced: it tells its rate by itself."""

    def __call__(
        self, what: str, total: int, unit: str, initial: int = 0, paced: bool = True
    ) -> AbstractContextManager[Bar]: ...


@dataclass(frozen=True)
class Display:
    """say: one line for a person. progress: a new bar."""

    say: Callable[[str], None]
    progress: NewBar
