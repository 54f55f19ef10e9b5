"""Figures of sets beside each other: means over sets of other seeds, their spread, and which of two sets is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Figures = Mapping[str, float | None]  # by the metric's name; None where what is at hand does not tell it

APART = 2.0  # standard deviations on both sides that leave no overlap
HIGHER_IS_BETTER = ("inception_score", "precision", "recall", "psnr_db", "ssim")


@dataclass(frozen=True)
class Line:
    """What one kind of set scores. sets: figures of each, of other seeds. what: in words, for a person."""

    name: str
    what: str
    sets: tuple[Figures, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.sets[0])

    def mean(self, metric: str) -> float | None:
        """None where it is not available."""
        values = [found for figures in self.sets if (found := figures.get(metric)) is not None]
        return float(np.mean(values)) if len(values) == len(self.sets) else None

    def spread(self, metric: str) -> float | None:
        """The sample standard deviation over sets; None of a single one."""
        if len(self.sets) < 2 or self.mean(metric) is None:
            return None
        return float(np.std([float(figures[metric] or 0.0) for figures in self.sets], ddof=1))


@dataclass(frozen=True)
class Scores:
    """lines: the samples first, then what stands around them. settings: what they were computed from, and with."""

    lines: tuple[Line, ...]
    settings: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Flat: a metric of the samples by its name, of another line as LINE_METRIC; NAME_std with several sets."""
        found: dict[str, Any] = {}
        for number, line in enumerate(self.lines):
            for metric in line.metrics:
                name = metric if number == 0 else f"{line.name}_{metric}"
                found[name] = line.mean(metric)
                if (spread := line.spread(metric)) is not None:
                    found[f"{name}_std"] = spread
        return {**found, **self.settings, "verdicts": self.verdicts(), "warnings": list(self.warnings)}

    def verdicts(self) -> dict[str, str]:
        """Of every metric, how the samples stand against the linear baseline; empty where there is none."""
        baseline = next((line for line in self.lines if line.name == "linear"), None)
        if baseline is None:
            return {}
        return {metric: compare(self.lines[0], baseline, metric) for metric in self.lines[0].metrics}

    def table(self) -> str:
        """For people."""
        metrics = self.lines[0].metrics
        heads = ["", *(metric.replace("_", " ") for metric in metrics)]
        rows = [[line.name, *(_show(line, metric) for metric in metrics)] for line in self.lines]
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        text = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in (heads, *rows)
        ]
        text += [""] + [f"{line.name}: {line.what}" for line in self.lines]
        if verdicts := self.verdicts():
            text += ["", "samples against the linear baseline:"]
            text += [f"  {metric.replace('_', ' ')}: {verdict}" for metric, verdict in verdicts.items()]
        text += [""] + [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in self.settings.items()]
        return "\n".join(text)


def compare(one: Line, other: Line, metric: str) -> str:
    """ "better", "worse", or why neither may be said: an ordering needs spreads that part."""
    first, second = one.mean(metric), other.mean(metric)
    if first is None or second is None:
        return "not available"
    spreads = one.spread(metric), other.spread(metric)
    if spreads[0] is None or spreads[1] is None:
        return "not told apart: the spread of a single set is unknown"
    if abs(first - second) <= APART * (spreads[0] + spreads[1]):
        return "not told apart: the spreads overlap"
    return "better" if (first > second) == metric.endswith(HIGHER_IS_BETTER) else "worse"


def several(name: str, what: str, sets: Sequence[Figures]) -> Line:
    count = f" ({len(sets)} sets)" if len(sets) > 1 else ""
    return Line(name, what + count, tuple(sets))


def _show(line: Line, metric: str) -> str:
    mean, spread = line.mean(metric), line.spread(metric)
    if mean is None:
        return "not available"
    return f"{mean:.6g}" + ("" if spread is None else f" ± {spread:.2g}")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
