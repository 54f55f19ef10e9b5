"""What a person sees while a job runs: a bar on a terminal, a line now and then elsewhere. All of it on stderr."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from lvae.manifests.messages import duration, escape_controls
from lvae.pipeline.progress.display import Display

LINE_SECONDS = 30.0
UNPACED = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}{postfix}"


def say(text: str) -> None:
    """One line on stderr, above a bar if there is one."""
    tqdm.write(escape_controls(text), file=sys.stderr)


class Bar:
    """Progress towards a total, with rate and time left: its own, or where it is not `paced`, those it is told."""

    def __init__(self, what: str, total: int, unit: str, initial: int = 0, paced: bool = True):
        self._what, self._unit, self._initial = what, unit, initial
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=what,
            unit=f" {unit}",
            disable=not self._terminal,
            smoothing=0.1,
            bar_format=None if paced else UNPACED,
        )
        self._paced = paced
        self._total, self._done = total, initial
        self._start = self._last_line = time.monotonic()

    def begin(self, total: int, done: int) -> None:
        """So much is wanted and done, where that is known only now."""
        self._total, self._initial, self._done = total, done, done
        self._bar.total, self._bar.initial, self._bar.n = total, done, done
        self._start = time.monotonic()

    def at(self, done: int, pace: str = "") -> None:
        """So much is done; never fewer than before. `pace`: rate and time left of what is not paced itself."""
        if pace:
            self._bar.set_postfix_str(pace, refresh=False)
        self._bar.update(max(0, done - self._done))
        self._done = max(done, self._done)
        now = time.monotonic()
        if not self._terminal and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            line = self._line(now) if self._paced else self._unpaced_line(pace)
            print(line, file=sys.stderr, flush=True)

    def advance(self, more: int) -> None:
        """So much more is done."""
        self.at(self._done + more)

    def _line(self, now: float) -> str:
        rate = (self._done - self._initial) / (now - self._start)
        left = f", {duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        return f"{self._what}: {self._done} of {self._total} {self._unit}, {rate:.1f}/s{left}"

    def _unpaced_line(self, pace: str) -> str:
        return f"{self._what}: {self._done} of {self._total} {self._unit}" + (f", {pace}" if pace else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


CONSOLE = Display(say, Bar)
