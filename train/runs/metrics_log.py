"""RUN/metrics.jsonl, one line per entry of the log, and the same for other viewers of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lvae.manifests import records
from lvae.manifests.storage.folder import Folder

METRICS = "metrics.jsonl"


class Board(Protocol):
    """A viewer of a log."""

    def write(self, step: int, line: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """Appends lines, each flushed. Opened at the step of a checkpoint, it drops the lines that came after that."""

    def __init__(self, run: Path, step: int, boards: Sequence[Board] = ()):
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        Folder(run).write(METRICS, b"".join(map(records.line, kept)))
        self._file = Folder(run).local(METRICS).open("ab")
        self._boards = boards

    def write(self, line: Mapping[str, Any]) -> None:
        """Numbers that are none become null, for JSON knows no NaN."""
        self._file.write(records.line({name: _sayable(value) for name, value in line.items()}))
        self._file.flush()
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}
        for board in self._boards:
            board.write(line["step"], numbers)

    def close(self) -> None:
        self._file.close()
        for board in self._boards:
            board.close()


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All whole lines, in order; what a killed process left of a line is no line."""
    data = Folder(run).read_if_there(METRICS) or b""
    lines = data.split(b"\n")[:-1]
    return [records.loads(line, f"{run}/{METRICS}:{number}") for number, line in enumerate(lines, 1)]


def _sayable(value: Any) -> Any:
    if isinstance(value, list):
        return [_sayable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
