"""What the figures of a run mean, in plain sentences at the top of its report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.analysis.sweep_figures import describe_setting, metric_title
from lvae.evaluate.metrics import Spread
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.report.cache import load_or_make
from lvae.evaluate.report.inputs import UNGUIDED, ReportInputs
from lvae.evaluate.scores.real_level import REAL_IN_WORDS
from lvae.evaluate.scores.score_table import APART, format_number
from lvae.manifests.dataset import Dataset
from lvae.manifests.messages import counted

LOOKED_AT = 32  # pictures whose sharpness is measured
NOISY, SHARP, SOFT = 1.25, 0.8, 0.5  # contrast of neighbouring pixels, as a share of that of reconstructions
PRECISION_RECALL = ("latent_precision", "latent_recall")
VARIED, LESS_VARIED = 0.7, 0.3  # recall, as a share of that of real latents


@dataclass(frozen=True)
class Verdict:
    """headline: one line. sentences: what it rests on, with the figures."""

    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Copies:
    """How many of the samples that were looked at may be copies, and the sentence that says so."""

    count: int
    sentence: str


def judge_run(inputs: ReportInputs, copies: Copies | None) -> Verdict | None:
    """Judge the samples of the best setting; None without the dataset."""
    if inputs.dataset is None:
        return None
    share = _measure_sharpness(inputs, inputs.dataset)
    sharpness, looks = _judge_sharpness(share)
    sentences = [looks]
    variety = _judge_variety(inputs)
    if variety is not None:
        sentences.append(variety[1])
    if copies is not None:
        sentences.append(copies.sentence)
    guidance = _judge_guidance(inputs)
    if guidance is not None:
        sentences.append(guidance)
    words = [sharpness, *([variety[0]] if variety is not None else [])]
    found = ""
    if copies is not None:
        found = "; no copies were found" if copies.count == 0 else "; some may be copies"
    headline = f"The samples ({describe_setting(inputs.best)}) are {' and '.join(words)}{found}."
    return Verdict(headline, tuple(sentences))


def _measure_sharpness(inputs: ReportInputs, data: Dataset) -> float:
    """The mean difference of neighbouring pixels of samples, as a share of that of reconstructions."""
    samples = inputs.samples_of(inputs.best)
    key = {"samples": samples.manifest.id, "dataset": data.manifest.id, "count": LOOKED_AT}

    def make() -> dict[str, float]:
        pairs = ((one, np.arange(min(LOOKED_AT, len(one)))) for one in (samples, data))
        found = [decode(inputs.network, one.denormalize(one.read(at, np.float32)[0])) for one, at in pairs]
        drawn, real = map(_contrast, found)
        return {"share": drawn / max(real, 1e-9)}

    kept: dict[str, Any] = load_or_make(inputs.cache, "sharpness", key, make)
    return float(kept["share"])


def _contrast(pixels: NDArray[np.uint8]) -> float:
    """Mean absolute difference of neighbouring pixels, (n, H, W, 3) -> levels."""
    values = pixels.astype(np.float64)
    return float(np.abs(np.diff(values, axis=1)).mean() + np.abs(np.diff(values, axis=2)).mean())


def _judge_sharpness(share: float) -> tuple[str, str]:
    if share > NOISY:
        word, what = "noisy", "more restless than"
    elif share >= SHARP:
        word, what = "sharp", "about as sharp as"
    else:
        word, what = ("soft", "softer than") if share >= SOFT else ("blurred", "far softer than")
    return word, (
        f"Sharpness: the samples are {what} reconstructions, which are as sharp as this autoencoder can be: "
        f"neighbouring pixels differ {share:.2f} times as much."
    )


def _judge_variety(inputs: ReportInputs) -> tuple[str, str] | None:
    record = inputs.record
    found = [(record.spread(inputs.best, name), record.real_spread(name)) for name in PRECISION_RECALL]
    (precision, real_precision), (recall, real_recall) = found
    if precision is None or recall is None or real_precision is None or real_recall is None:
        return None
    share = recall.mean / max(real_recall.mean, 1e-9)
    if share >= VARIED:
        word, what = "varied", "nearly as varied as real latents"
    elif share >= LESS_VARIED:
        word, what = "less varied than real pictures", "less varied than real latents"
    else:
        word, what = "hardly varied", "hardly varied"
    reserve = ""
    if share < LESS_VARIED and precision.mean > real_precision.mean / 2:
        reserve = f"; a precision of {format_number(precision.mean)} says little then, since dull samples reach it too"
    return word, (
        f"Variety: the samples are {what}: they cover {_percent(recall.mean)} of the training latents (recall), where "
        f"as many real ones cover {_percent(real_recall.mean)} ({REAL_IN_WORDS}){reserve}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 or share == 0 else f"{100 * share:.2g} %"


def _judge_guidance(inputs: ReportInputs) -> str | None:
    """What guidance changes beyond the spread over seeds; None of models without it, or of a single seed."""
    if not inputs.guidable or inputs.options.repeats < 2:
        return None
    record, changes = inputs.record, []
    for metric in record.metrics:
        plain, guided = record.spread(UNGUIDED, metric), record.spread(inputs.best, metric)
        if plain is not None and guided is not None and _apart(plain, guided):
            way = "raises" if guided.mean > plain.mean else "lowers"
            values = f"{format_number(plain.mean)} to {format_number(guided.mean)}"
            changes.append(f"{way} the {metric_title(metric)} from {values}")
    what = f"Guidance ({describe_setting(inputs.best)})"
    if not changes:
        return f"{what} changes no score beyond the spread over {counted(inputs.options.repeats, 'seed')}."
    return f"{what} {', '.join(changes)}; what else changes is within the spread."


def _apart(one: Spread, other: Spread) -> bool:
    return abs(one.mean - other.mean) > APART * (one.std + other.std)
