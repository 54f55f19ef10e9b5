"""Figures of sets beside each other: means over sets of other seeds, their spread, and which of two sets is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Figures = Mapping[str, float | None]  # by the metric's name; None where what is at hand does not tell it

APART = 2.0  # standard deviations on both sides that leave no overlap
FEW = 10_000  # rows below which a Fréchet distance is mostly its bias
CORRECTED = "_corrected"  # what the corrected twin of a Fréchet distance is called by
SHOWN_AS = {"real": "real against real"}  # names of lines, for people
FRECHET = ("latent_frechet_distance", "network_frechet_distance", "fid", "sfid")
SINGLE_SET = "not told apart: the spread of a single set is unknown"
OVERLAP = "not told apart: the spreads overlap"
CURES = {
    SINGLE_SET: "give --samples several times, with samples of other seeds",
    OVERLAP: "give more samples, or more sets of them",
}
HIGHER_IS_BETTER = ("inception_score", "precision", "recall", "agreement", "psnr_db", "ssim")


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
        return {metric: compare(self.lines[0], baseline, metric) for metric in self.shown}

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that a person may compare, see `shown_metrics`."""
        few = [self.settings.get(name) for name in ("samples", "reference")]
        available = {metric: self.lines[0].mean(metric) is not None for metric in self.lines[0].metrics}
        return shown_metrics(available, any(isinstance(count, int) and count < FEW for count in few))

    def table(self) -> str:
        """For people."""
        metrics = self.shown
        heads = ["", *map(label_metric, metrics)]
        rows = [
            [SHOWN_AS.get(line.name, line.name), *(_show(line, metric) for metric in metrics)] for line in self.lines
        ]
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        text = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in (heads, *rows)
        ]
        text += [""] + [f"{SHOWN_AS.get(line.name, line.name)}: {line.what}" for line in self.lines]
        if verdicts := self.verdicts():
            text += ["", "samples against the linear baseline:"]
            text += [f"  {line}" for line in group_verdicts(verdicts)]
        text += [""] + [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in self.settings.items()]
        return "\n".join(text)


def compare(one: Line, other: Line, metric: str) -> str:
    """ "better", "worse", or why neither may be said: an ordering needs spreads that part."""
    first, second = one.mean(metric), other.mean(metric)
    if first is None or second is None:
        return "not available"
    spreads = one.spread(metric), other.spread(metric)
    if spreads[0] is None or spreads[1] is None:
        return SINGLE_SET
    if abs(first - second) <= APART * (spreads[0] + spreads[1]):
        return OVERLAP
    return "better" if (first > second) == metric.endswith(HIGHER_IS_BETTER) else "worse"


def label_metric(metric: str) -> str:
    """ "latent_frechet_distance_corrected" -> "latent Fréchet distance, corrected"."""
    return metric.replace(CORRECTED, ", corrected").replace("_", " ").replace("frechet", "Fréchet")


def shown_metrics(available: Mapping[str, bool], few: bool) -> tuple[str, ...]:
    """The metrics that a person may compare, of those that were computed, by whether the samples have a value.

    few: of few samples a Fréchet distance would rank dull pictures ahead of real ones. Its corrected twin stands in its
    place, and where even that cannot be had, none.
    """
    hidden = {name for name in FRECHET if few} | {f"{name}{CORRECTED}" for name in FRECHET if not few}
    names = (name for name, there in available.items() if there or not name.endswith(CORRECTED))
    return tuple(in_order([name for name in names if name not in hidden and "_std_over_" not in name]))


def in_order(metrics: Sequence[str]) -> list[str]:
    """The class agreement last, as it was computed: what was kept as JSON comes back by names."""
    return sorted(metrics, key=lambda metric: metric.endswith("agreement"))


def explain_few(available: Mapping[str, bool], counts: Sequence[int]) -> str | None:
    """The warning that belongs to Fréchet distances of so few rows."""
    distances = [name for name in FRECHET if name in available]
    if min(counts) >= FEW or not distances:
        return None
    where = f"{min(counts):,} rows"
    if any(available.get(f"{name}{CORRECTED}") for name in distances):
        return f"{where}: Fréchet distances of so few are mostly bias; they are shown corrected for it"
    return f"{where}: too few for a Fréchet distance, which would rank dull samples ahead of real ones; not shown"


def group_verdicts(verdicts: Mapping[str, str]) -> list[str]:
    """A line a verdict: the metrics it is passed on, and what would tell them apart where they are not."""
    groups: dict[str, list[str]] = {}
    for metric, verdict in verdicts.items():
        groups.setdefault(verdict, []).append(label_metric(metric))
    lines = []
    for verdict, names in groups.items():
        cure = f" ({CURES[verdict]})" if verdict in CURES else ""
        lines.append(f"{', '.join(names)}: {verdict}{cure}")
    return lines


def several(name: str, what: str, sets: Sequence[Figures]) -> Line:
    count = f" ({len(sets)} sets)" if len(sets) > 1 else ""
    return Line(name, what + count, tuple(sets))


def format_number(value: float) -> str:
    """Three significant digits: 0.00786, 1.00, 245, 1,234."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".removesuffix(".")


def format_spread(mean: float, spread: float | None) -> str:
    """The mean and its standard deviation: two digits of it, and 0 where it is far below what is shown of the mean.

    spread: None or NaN of a single set.
    """
    if spread is None or np.isnan(spread):
        return format_number(mean)
    if spread <= 1e-4 * abs(mean):
        return f"{format_number(mean)} ± 0"
    return f"{format_number(mean)} ± {f'{spread:,.0f}' if spread >= 99.5 else f'{spread:.2g}'}"


def _show(line: Line, metric: str) -> str:
    mean = line.mean(metric)
    return "not available" if mean is None else format_spread(mean, line.spread(metric))


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
