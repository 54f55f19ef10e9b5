"""Whether sets of samples are seeds of one another: only such sets are pooled, and their spread means something.

And whether they are of the classes of what they are compared with.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted, value_of
from lvae.manifests.parts.plan import first_difference
from lvae.manifests.publishing.samples import SAMPLES, SamplesPlan

ENOUGH = 10  # latents a class: with fewer, by chance, one may have none
APART = "Score sets of unlike settings one by one."
OPTIONS = {"count": "-n", "labels": "--labels", "temperature": "--temperature", "step": "--step"}


def refuse_unlike(sets: Sequence[Dataset], num: int | None) -> None:
    """LvaeError where sets differ in more than their seed. num: of each set, that is scored; None for all."""
    for one in sets[1:]:
        difference = _find_difference(sets[0], one, num)
        if difference is not None:
            name, first, other = difference
            option = OPTIONS.get(name.partition(".")[0], name)
            problem = f"was made with {option} {value_of(other)}, and {sets[0].folder} with {value_of(first)}"
            raise LvaeError(one.folder, f"{problem}: they are not seeds of one setting", APART)


def refuse_unequal_counts(places: Sequence[str], counts: Sequence[int]) -> None:
    for place, count in zip(places, counts, strict=True):
        if count != counts[0]:
            problem = (
                f"has {counted(count, 'picture')}, and {places[0]} has {counts[0]}: they are not seeds of one setting"
            )
            raise LvaeError(place, problem, f"{APART} Or give --num {min(counts)}.")


def describe_other_classes(samples: Dataset, reference: Dataset) -> str | None:
    """A line for labelled samples of other classes than the reference's, which every distance then measures, too."""
    named = samples.classes is not None and reference.classes is not None
    ours, theirs = (_find_classes(one, named) for one in (samples, reference))
    if not ours or not theirs or ours == theirs:
        return None
    parts = []
    for verb, names in (("has no", ours - theirs), ("alone has", theirs - ours)):
        if names:
            first = ", ".join(sorted(names)[:3]) if named else f"number {', '.join(sorted(names)[:3])}"
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{verb} class {first}{more}" if len(names) == 1 else f"{verb} classes {first}{more}")
    counts = f"the samples are of {counted(len(ours), 'class', 'classes')}, {reference.folder} of {len(theirs)}"
    return f"{counts}: it {' and '.join(parts)}; the distances measure this, too"


def _find_classes(dataset: Dataset, named: bool) -> set[str]:
    """Those that latents are of; all that are known where a set is too small to have each. Names, or numbers."""
    labels = np.unique(dataset.labels)
    found = set(labels[labels >= 0].tolist())
    if found and dataset.classes is not None and len(dataset) < ENOUGH * len(dataset.classes):
        found = set(range(len(dataset.classes)))
    return {dataset.classes[label] if named and dataset.classes else str(label) for label in found}


def _find_difference(first: Dataset, other: Dataset, num: int | None) -> tuple[str, object, object] | None:
    plans = [_read_plan(one) for one in (first, other)]
    if plans[0] is not None and plans[1] is not None:
        one, two = (replace(plan, seed=0, labels_sha256="") for plan in (plans[0], plans[1]))
        if num is not None and num <= min(one.count, two.count):
            one, two = replace(one, count=num), replace(two, count=num)
        return first_difference(one, two)
    if len(first) != len(other) and (num is None or num > min(len(first), len(other))):
        return "count", len(first), len(other)
    return None


def _read_plan(one: Dataset) -> SamplesPlan | None:
    data = one.folder.read_if_there(SAMPLES)
    return None if data is None else records.parse(SamplesPlan, data, one.folder.place(SAMPLES))
