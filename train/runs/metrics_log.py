"""RUN/metrics.jsonl, one line per entry of the log, and the same for TensorBoard where it is installed."""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvae.manifests import records
from lvae.manifests.storage.folder import Folder

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricsLog:
    """Appends lines, each flushed. Opened at the step of a checkpoint, it drops the lines that came after that."""

    def __init__(self, run: Path, step: int):
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        Folder(run).write(METRICS, b"".join(map(records.line, kept)))
        self._file = Folder(run).local(METRICS).open("ab")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(Folder(run).local(TENSORBOARD)), purge_step=step + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Numbers that are none become null, for JSON knows no NaN."""
        self._file.write(records.line({name: _sayable(value) for name, value in line.items()}))
        self._file.flush()
        if self._board is not None:
            for name, value in line.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(name, value, line["step"])
            self._board.flush()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All whole lines, in order; what a killed process left of a line is no line."""
    data = Folder(run).read_if_there(METRICS) or b""
    lines = data.split(b"\n")[:-1]
    return [records.loads(line, f"{run}/{METRICS}:{number}") for number, line in enumerate(lines, 1)]


def _sayable(value: Any) -> Any:
    if isinstance(value, list):
        return [_sayable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
