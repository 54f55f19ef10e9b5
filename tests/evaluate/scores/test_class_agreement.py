"""Class agreement: answers known on paper, and what `lvae score` says where it cannot be had."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lvae.encode.scenes.make import write_scenes
from lvae.evaluate.features.feature_files import read_features
from lvae.evaluate.features.feature_network import PictureFeatures, named_network
from lvae.evaluate.pictures.labels import PictureLabels
from lvae.evaluate.scores.class_agreement import class_agreement
from lvae.manifests.errors import LvaeError
from tests.conftest import lvae

NAMES = ("cat", "dog", "hen")


def features(
    logits: list[tuple[float, float]], numbers: list[int], names: tuple[str, ...] | None = NAMES
) -> PictureFeatures:
    found = np.array(logits, np.float32)
    return PictureFeatures(found, None, found, PictureLabels(np.array(numbers, np.int32), names))


REFERENCE = features([(0, 1), (0, -1), (4, 0), (6, 0), (0, 8), (9, 9)], [0, 0, 1, 1, 2, -1])


@pytest.mark.parametrize(
    ("numbers", "names", "share"),
    [
        ([0, 1, 2], NAMES, 2 / 3),
        ([2, 1, 0], ("hen", "dog", "cat"), 2 / 3),  # another numbering of the same classes
        ([0, 1, 2], None, 2 / 3),  # by number
        ([0, 1, 2], ("0", "1", "2"), 2 / 3),  # as labels of an .npz are called
        ([-1, 1, -1], NAMES, 1.0),
        ([0, 1, 2], ("cow", "dog", "owl"), 1.0),  # classes that the reference has not do not count
        ([0, 0, 0], ("cow",), None),
    ],
)
def test_a_picture_agrees_where_the_centre_of_its_class_is_nearest(
    numbers: list[int], names: tuple[str, ...] | None, share: float | None
) -> None:
    samples = features([(0.5, 0), (4, 1), (2.6, 0)], numbers, names)  # nearest to cat, dog, dog
    assert class_agreement(samples, REFERENCE, named_network("adm", "0")) == share


def test_one_class_alone_says_nothing() -> None:
    cats = features([(0, 1), (0, -1)], [0, 0])
    assert class_agreement(cats, cats, named_network("adm", "0")) is None


class Colours(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)


def test_it_is_left_out_with_a_word_where_it_cannot_be_had(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 24, 32, 0)
    with pytest.warns(DeprecationWarning):  # torch prefers torch.export, whose files it unpickles
        torch.jit.script(Colours()).save(str(tmp_path / "own.pt"))
    own = ("--features", tmp_path / "own.pt")
    score = ("score", "--reference", tmp_path / "scenes", "--json", "--samples")
    without = lvae(*score, tmp_path / "scenes", *own)
    assert "no class agreement: the own network has no logits" in without.stderr
    assert "network_class_agreement" not in json.loads(without.stdout)
    lvae("features", tmp_path / "scenes", tmp_path / "f.npz", *own)
    with np.load(tmp_path / "f.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert sorted(set(arrays["classes"][arrays["labels"]])) == sorted(arrays["classes"])
    before = {name: array for name, array in arrays.items() if name not in ("labels", "classes")}
    np.savez(tmp_path / "before.npz", **before)
    asked = lvae(*score, tmp_path / "before.npz", *own, "--metrics", "agreement")
    assert "no class agreement: the samples have no labels" in asked.stderr
    assert json.loads(asked.stdout)["network_class_agreement"] is None
    assert "class agreement" not in lvae(*score, tmp_path / "before.npz", *own).stderr
    for wrong in ({"labels": arrays["labels"][1:]}, {"labels": arrays["labels"] + 99}, {"classes": np.zeros(99)}):
        np.savez(tmp_path / "wrong.npz", **{**arrays, **wrong})
        with pytest.raises(LvaeError, match="labels that 'lvae features' did not write"):
            read_features(tmp_path / "wrong.npz")
