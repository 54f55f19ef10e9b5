"""What a user says of samples, made exact: labels, guidance, temperature."""

import bisect
import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.seeds import derive
from lvae.manifests.storage.given_files import read_given_file
from lvae.train.config import ModelConfig
from lvae.train.presets import paper_guidance

Convention = Literal["extra", "scale"]
SEEDED = {"random", "frequencies"}  # labels that another seed draws otherwise
WORDS, GOLDEN = 1 << 64, 0x9E3779B97F4A7C15  # the golden ratio as a share of 2^64


def _show(option: str, text: str) -> str:
    """What was given, as it was written: --labels fish, or labels='fish' in Python."""
    return f"{option} {text:.60}" if option.startswith("-") else f"{option}={text[:60]!r}"


def numbers(option: str, text: str, levels: int) -> tuple[float, ...]:
    """ "1.5", or one per resolution, "0,1.5,1.5", lowest first -> one per resolution."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise LvaeError(_show(option, text), "write a number, or one per resolution like 0,1.5,1.5") from None
    if not np.isfinite(values).all():
        raise LvaeError(_show(option, text), "every number must be finite")
    if len(values) not in (1, levels):
        raise LvaeError(
            _show(option, text),
            f"{counted(len(values), 'number')} for {counted(levels, 'resolution')}",
            f"Give one or {levels}.",
        )
    return tuple(values * levels if len(values) == 1 else values)


def guidance_weights(
    config: ModelConfig,
    mean: str | None,
    variance: str | None,
    named: str | None,
    convention: Convention,
    options: tuple[str, str] = ("--guidance-mean", "--guidance-variance"),
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights of means and variances for every resolution, lowest first; 0 is off (the paper's convention).

    options: what a person called the two, for messages.
    """
    levels = len(config.groups)
    off = 1.0 if convention == "scale" else 0.0
    if named is not None and (mean is not None or variance is not None):
        raise LvaeError("", "--guidance paper sets both weights", "Leave --guidance-mean and --guidance-variance out.")
    if named == "paper":
        means, variances = paper_guidance(config)
    else:
        given = zip(options, (mean, variance), strict=True)
        means, variances = (
            (0.0,) * levels if text is None else tuple(v - off for v in numbers(option, text, levels))
            for option, text in given
        )
    if any((*means, *variances)) and not (config.classes and config.hierarchical_prior):
        raise LvaeError(
            "",
            ("guidance needs a model with classes and a hierarchical prior, and this one has not both"),
            "Leave the guidance weights out.",
        )
    return means, variances


def parse_step(text: str) -> int | Literal["best", "last"]:
    """Which checkpoint --step means."""
    if text == "best":
        return "best"
    if text == "last":
        return "last"
    if text.isascii() and text.isdecimal():
        return int(text)
    raise LvaeError(f"--step {text:.60}", "must be a number, best or last")


def temperatures(text: str, levels: int) -> tuple[float, ...]:
    found = numbers("--temperature", text, levels)
    if min(found) < 0:
        raise LvaeError(f"--temperature {text:.60}", "must not be negative")
    return found


def labels_of(
    text: str | None,
    count: int,
    classes: int,
    names: tuple[str, ...] | None,
    seed: int,
    option: str = "--labels",
    counts: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """A label for every sample (n,): cycle, random, frequencies, a number, a class's name or a file; else -1.

    option: what a person called it, for messages. counts: latents of every class in the training data.
    """
    if classes == 0:
        if text is not None:
            raise LvaeError(option, "this model is unconditional", "Leave it out.")
        return np.full(count, -1, np.int32)
    if text is None or text == "cycle":
        return (np.arange(count) % classes).astype(np.int32)
    if text == "random":
        return np.array([derive(seed, "label", index) % classes for index in range(count)], np.int32)
    if text == "frequencies":
        return _in_frequencies(count, classes, counts, seed, option)
    if (label := _label(text, classes, names, option)) is not None:
        return np.full(count, label, np.int32)
    path = Path(text)
    if not path.is_file():
        advice = f"{_list_classes(text, classes, names)}; or cycle, random, frequencies, or a file with one a line."
        raise LvaeError(_show(option, text), "no such class, and no such file", advice)
    return _labels_in(path, count, classes, names)


def label_of(text: str, classes: int, names: tuple[str, ...] | None, option: str = "--label") -> int:
    """One class of a conditional model, by number or name. LvaeError where there is none."""
    if classes == 0:
        raise LvaeError(option, "this model is unconditional", "Leave it out.")
    if (label := _label(text, classes, names, option)) is None:
        raise LvaeError(_show(option, text), "no such class", f"{_list_classes(text, classes, names)}.")
    return label


def _in_frequencies(
    count: int, classes: int, counts: Sequence[int] | None, seed: int, option: str
) -> NDArray[np.int32]:
    """Classes as often as in the training data, to a few samples whatever their number: quantiles by the golden ratio.

    Sample i's is a function of (seed, i).
    """
    if counts is None or len(counts) != classes or min(counts) < 0 or sum(counts) == 0:
        problem = "this run does not say how many latents of every class it was trained on"
        advice = "'lvae train DATASET RUN' again, with the dataset on this machine, counts them; or take cycle."
        raise LvaeError(_show(option, "frequencies"), problem, advice)
    ends, first = list(itertools.accumulate(counts)), derive(seed, "label", "frequencies")
    quantiles = ((first + index * GOLDEN) % WORDS * ends[-1] // WORDS for index in range(count))
    return np.array([bisect.bisect_right(ends, quantile) for quantile in quantiles], np.int32)


def _list_classes(text: str, classes: int, names: tuple[str, ...] | None) -> str:
    """What may be said instead: the names, the nearest where they are many."""
    known = (names or ())[:classes]
    some = known if len(known) <= 12 else (*difflib.get_close_matches(text, known, 5, 0.4), "...")
    named = f", {', '.join(some)}" if known else ""
    return f"Choose 0 to {classes - 1}{named}"


def _label(text: str, classes: int, names: tuple[str, ...] | None, option: str = "--labels") -> int | None:
    if names is not None and text in names and names.index(text) < classes:
        return names.index(text)
    if text.isascii() and text.isdigit():
        if int(text) >= classes:
            raise LvaeError(option, f"{text:.20} is not a class; they are 0 to {classes - 1}")
        return int(text)
    return None


def _labels_in(path: Path, count: int, classes: int, names: tuple[str, ...] | None) -> NDArray[np.int32]:
    lines = read_given_file(path).decode(errors="replace").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) < count:
        raise LvaeError(
            path,
            f"{counted(len(lines), 'label')} for {counted(count, 'sample')}",
            f"Give -n {len(lines)} or more labels.",
        )
    found = [_label(line.strip(), classes, names) for line in lines[:count]]
    if None in found:
        line = found.index(None) + 1
        raise LvaeError(
            f"{path}, line {line}", f"{lines[line - 1]:.40} is no class", "Write a number or a class's name."
        )
    return np.array(found, np.int32)
