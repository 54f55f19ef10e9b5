"""The classes of a dataset in the numbers of a run: by name, for datasets may number the same names otherwise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED
from lvae.train.data.checks import check_range
from lvae.train.runs.run import RunConfig

NAMED = 3  # classes named in a sentence


def number_classes(theirs: Sequence[str], ours: Sequence[str]) -> tuple[int, ...]:
    """Our number of each class of theirs: by name, or by number where its name is one; UNLABELLED for none."""
    known = {name: number for number, name in enumerate(ours)}

    def find(name: str) -> int:
        is_number = name.isascii() and name.isdigit() and len(name) < 10
        return known.get(name, int(name) if is_number else UNLABELLED)

    return tuple(map(find, theirs))


def match_classes(config: RunConfig, other: RunConfig) -> tuple[int, ...] | None:
    """The number in another run of each class of a run; None where both number them alike, or not all have names."""
    ours, theirs = config.dataset.classes, other.dataset.classes
    if ours is None or theirs is None or ours == theirs or are_numbers(theirs):
        return None
    return number_classes(ours, theirs[: other.model.classes])[: config.model.classes]


def renumber_classes(config: RunConfig, run: object, dataset: Dataset) -> tuple[int, ...] | None:
    """The number in a run's model of each class of the dataset that it is trained on; None where they are alike.

    LvaeError for a class that the run does not know.
    """
    count, ours, theirs = config.model.classes, config.dataset.classes, dataset.classes
    if not count or ours is None or theirs is None or ours == theirs or are_numbers(ours):
        return None
    numbers = number_classes(theirs, ours[:count])
    unknown = [name for name, number in zip(theirs, numbers, strict=True) if not 0 <= number < count]
    _refuse_unknown(unknown, ours[:count], run, dataset)
    return numbers


def number_labels(config: RunConfig, run: object, dataset: Dataset, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels (n,) of a dataset in the numbers of a run's model; UNLABELLED throughout where it has no classes.

    Matched by name where both have class names. LvaeError for a class that the run does not know.
    """
    count = config.model.classes
    if not count:
        return np.full(len(labels), UNLABELLED, np.int32)
    ours, theirs = config.dataset.classes, dataset.classes
    if ours is None or theirs is None or ours == theirs or are_numbers(ours):
        check_range(labels, count, dataset.folder)
        return labels
    table = np.array([*number_classes(theirs, ours[:count]), UNLABELLED], np.int32)
    found: NDArray[np.int32] = np.where(table < count, table, UNLABELLED)[labels]
    unknown = [theirs[label] for label in np.unique(labels[(found == UNLABELLED) & (labels != UNLABELLED)])]
    _refuse_unknown(unknown, ours[:count], run, dataset)
    return found


def count_labels(config: RunConfig, run: object, dataset: Dataset) -> RunConfig:
    """With the number of latents of every class of the model, which `--labels frequencies` draws by.

    Not where the dataset is streamed: its labels lie among its latents.
    """
    count = config.model.classes
    if not count or dataset.folder.remote:
        return config
    labels = number_labels(config, run, dataset, dataset.labels)
    counts = np.bincount(labels[labels != UNLABELLED], minlength=count)
    return replace(config, dataset=replace(config.dataset, class_counts=tuple(counts.tolist())))


def _refuse_unknown(unknown: Sequence[str], ours: Sequence[str], run: object, dataset: Dataset) -> None:
    if unknown:
        shown = ", ".join(unknown[:NAMED]) + (f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else "")
        noun, verb, them = ("class", "is", "it") if len(unknown) == 1 else ("classes", "are", "them")
        left_out = ",".join(unknown) if len(unknown) <= NAMED else "A,B,..."
        raise LvaeError(
            dataset.folder,
            f"its {noun} {shown} {verb} unknown to {run}, which was trained on {_list_some(ours)}",
            f"Leave {them} out: 'lvae shard {dataset.folder} --out OTHER --without-classes {left_out}'.",
        )


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes are called by their numbers alone, as those are whose labels came without names."""
    return all(name == str(number) for number, name in enumerate(names))


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
