"""A run and a dataset that numbers its classes otherwise: labels are matched by name, wherever the two meet."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lvae.evaluate.analysis.neighbours import Queries
from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_images, read_latents
from lvae.evaluate.manipulation.rates import measure
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.model import HierarchicalVAE
from lvae.train.runs.classes import count_labels, match_classes, number_classes
from lvae.train.runs.fine_tuning import weights_that_fit
from lvae.train.runs.run import read_run
from tests.evaluate import run_examples
from tests.manifests.dataset_examples import CLASSES, resign

torch.set_num_threads(1)

FIRST = np.arange(12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classes")
    run_examples.run(root / "run", run_examples.dataset(root / "dataset"))
    return root


def renamed(folder: Path, tmp_path: Path, classes: Sequence[str] | None) -> Dataset:
    """The same latents and labels, and other names of their classes."""
    shutil.copytree(folder / "dataset", tmp_path / "renamed")
    resign(tmp_path / "renamed", lambda content: content.update(classes=classes and list(classes)))
    return Dataset.open(tmp_path / "renamed")


def test_labels_are_matched_by_name(folder: Path, tmp_path: Path) -> None:
    loaded, data = LoadedRun.open(folder / "run"), renamed(folder, tmp_path, CLASSES[::-1])
    own = data.labels[FIRST]
    told = read_latents(loaded, data, FIRST)[1]
    assert set(own.tolist()) >= {0, 2}
    assert told.tolist() == [label if label < 0 else 2 - label for label in own.tolist()]
    for image, label in zip(read_images(loaded, data, FIRST), own, strict=True):
        assert label < 0 or image.name.endswith(f": {CLASSES[::-1][label]}")


def test_latents_of_every_class_are_counted_in_the_numbers_of_the_run(folder: Path, tmp_path: Path) -> None:
    config, data = read_run(folder / "run"), renamed(folder, tmp_path, CLASSES[::-1])
    theirs = [int((data.labels == label).sum()) for label in range(3)]
    assert len(set(theirs)) > 1
    assert count_labels(config, folder / "run", data).dataset.class_counts == tuple(theirs[::-1])


def test_a_class_that_the_run_does_not_know_is_named_and_refused(folder: Path, tmp_path: Path) -> None:
    loaded, data = LoadedRun.open(folder / "run"), renamed(folder, tmp_path, (CLASSES[0], "bonsai", CLASSES[1]))
    said = f"its class bonsai is unknown to {folder / 'run'}, which was trained on {', '.join(CLASSES)}"
    with pytest.raises(LvaeError, match=said) as refused:
        read_latents(loaded, data, FIRST)
    assert f"Leave it out: 'lvae shard {data.folder} --out OTHER --without-classes bonsai'" in refused.value.advice
    with pytest.raises(LvaeError, match=said):
        measure(loaded, data)
    known = FIRST[data.labels[FIRST] == 2]
    assert set(read_latents(loaded, data, known)[1].tolist()) == {1}


def test_without_names_numbers_hold_and_are_checked(folder: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path, None)
    assert (read_latents(LoadedRun.open(folder / "run"), data, FIRST)[1] == data.labels[FIRST]).all()
    smaller = run_examples.run(tmp_path / "smaller", data, run_examples.model_config(classes=2))
    with pytest.raises(LvaeError, match=r"has label 2, and the model has classes 0 to 1\. Leave the others out"):
        read_latents(LoadedRun.open(smaller), data, FIRST)


def test_names_that_are_numbers_are_those_classes() -> None:
    assert number_classes(("2", "fish", "0"), ("cow", "dog", "fish")) == (2, 2, 0)
    assert number_classes(("3", "5"), tuple("0123456")) == (3, 5)
    assert number_classes(("cat",), ("cow",)) == (-1,)


def test_a_run_begun_from_another_takes_what_was_learned_of_each_name(folder: Path, tmp_path: Path) -> None:
    old = read_run(folder / "run")
    names = (CLASSES[2], "bonsai", CLASSES[0], CLASSES[1])
    data = renamed(folder, tmp_path, names)
    new = read_run(run_examples.run(tmp_path / "new", data, run_examples.model_config(classes=4)))
    classes = match_classes(new, old)
    assert classes == (2, -1, 0, 1) and match_classes(old, old) is None
    weights = HierarchicalVAE(old.model, 1).state_dict()
    found = weights_that_fit(new.model, old.model, weights, 0, classes)["embed.weight"]
    assert torch.equal(found[[0, 2, 3, 4]], weights["embed.weight"][[2, 0, 1, 3]])
    assert torch.equal(found[1], HierarchicalVAE(new.model, 0).state_dict()["embed.weight"][1])


def test_of_as_many_classes_in_another_order_each_keeps_its_own(folder: Path) -> None:
    model = read_run(folder / "run").model
    weights = HierarchicalVAE(model, 1).state_dict()
    found = weights_that_fit(model, model, weights, 0, (2, 1, 0))["embed.weight"]
    assert torch.equal(found, weights["embed.weight"][[2, 1, 0, 3]])


def test_samples_beside_another_dataset_keep_their_names(folder: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path, CLASSES[::-1])
    asked = Queries.of_dataset(Dataset.open(folder / "dataset"), FIRST)
    assert asked.name_class(0, data) == CLASSES[0]
