"""Which classes `lvae sample --labels` draws, and the labels of a run's drawing.json."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lvae.evaluate.samples.options import labels_of
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.runs.run import latest_checkpoint, read_run
from tests.conftest import lvae, make_once
from tests.evaluate import run_examples

NAMES = ("cat", "dog", "2")
LITTLE = ("--set", "width=8", "--set", "encoder_width=8", "--batch", "8", "--threads", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates of a conditional model, and its dataset of unlike numbers of each class."""

    def make(root: Path) -> None:
        data = run_examples.dataset(root / "data", images=31)
        lvae("train", data.folder.root, root / "run", *LITTLE, "--set", "classes=all", "--steps", "2")

    return make_once(tmp_path_factory, "labels", make)


def test_labels_are_cycled_drawn_named_numbered_or_from_a_file(tmp_path: Path) -> None:
    assert labels_of(None, 5, 3, NAMES, 0).tolist() == [0, 1, 2, 0, 1]
    some = labels_of("random", 300, 3, NAMES, 0)
    assert set(some.tolist()) == {0, 1, 2}
    assert labels_of("random", 20, 3, NAMES, 0).tolist() == some[:20].tolist()
    assert labels_of("dog", 2, 3, NAMES, 0).tolist() == [1, 1]
    assert labels_of("0", 2, 3, NAMES, 0).tolist() == [0, 0]
    (tmp_path / "labels.txt").write_text("dog\n0\n2\n")
    assert labels_of(str(tmp_path / "labels.txt"), 3, 3, NAMES, 0).tolist() == [1, 0, 2]


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=30).filter(any), st.integers(1, 3000), st.integers(0, 2**63)
)
def test_any_number_of_labels_has_the_frequencies_of_the_training_data(
    counts: Sequence[int], number: int, seed: int
) -> None:
    found = labels_of("frequencies", number, len(counts), None, seed, counts=counts)
    expected = number * np.array(counts) / sum(counts)
    assert np.abs(np.bincount(found, minlength=len(counts)) - expected).max() <= 5
    assert not set(found.tolist()) & set(np.flatnonzero(np.array(counts) == 0).tolist())
    assert (
        found[: number // 2].tolist()
        == labels_of("frequencies", number // 2, len(counts), None, seed, counts=counts).tolist()
    )  # more samples add to those that are there


def test_a_run_knows_the_frequencies_of_its_classes(trained: Path, tmp_path: Path) -> None:
    labels = Dataset.open(trained / "data").labels
    counts = np.bincount(labels[labels >= 0], minlength=3)
    assert read_run(trained / "run").dataset.class_counts == tuple(counts.tolist())
    lvae("sample", trained / "run", tmp_path / "s", "-n", "200", "--labels", "frequencies", "--device", "cpu")
    drawn = np.bincount(Dataset.open(tmp_path / "s").labels, minlength=3)
    assert np.abs(drawn - 200 * counts / counts.sum()).max() < 3


@pytest.mark.parametrize("counts", [None, (), (1, 2), (0, 0, 0), (-1, 2, 2)])
def test_frequencies_that_a_run_does_not_say_are_refused(counts: Sequence[int] | None) -> None:
    with pytest.raises(LvaeError, match="does not say how many latents of every class"):
        labels_of("frequencies", 5, 3, NAMES, 0, counts=counts)


def test_labels_of_a_drawing_stand_until_others_are_said(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    drawing = run / "drawing.json"
    said = {"format": "latent-vae-drawing", "version": 1, "output_temperature": 0.5, "labels": "frequencies"}
    drawing.write_text(json.dumps(said))
    for name, words, wanted in (
        ("own", (), "--output-temperature 0.5 --labels frequencies"),
        ("named", ("--labels", "dog"), "--output-temperature 0.5"),
        ("plain", ("--temperature", "1"), None),
    ):
        done = lvae("sample", run, tmp_path / name, "-n", "30", "--device", "cpu", *words)
        assert (f"drawn as {run} says: {wanted}\n" in done.stderr) == (wanted is not None)
    found = {name: Dataset.open(tmp_path / name).labels.tolist() for name in ("own", "named", "plain")}
    assert found["plain"] == [0, 1, 2] * 10 and set(found["named"]) == {1}
    assert found["own"] == labels_of("frequencies", 30, 3, None, 0, counts=_counts(run)).tolist()
    del said["output_temperature"]
    drawing.write_text(json.dumps(said))
    assert "drawn as" not in lvae("sample", run, tmp_path / "dogs", "-n", "3", "--labels", "dog").stderr
    drawing.write_text(json.dumps(said | {"labels": "/etc/hostname"}))
    refused = lvae("sample", run, tmp_path / "file", "-n", "3", check=1).stderr
    assert refused.count("\n") == 1 and "drawing.json" in refused and "labels" in refused


def test_a_sweep_draws_the_labels_of_each_seed(trained: Path, tmp_path: Path) -> None:
    one = ("--means", "0", "--variances", "0", "--temperatures", "1", "-n", "16", "--labels", "frequencies")
    lvae("sweep", trained / "run", tmp_path / "sweep", *one, "--repeats", "2", "--device", "cpu")
    found = sorted(tuple(Dataset.open(path).labels.tolist()) for path in (tmp_path / "sweep/samples").iterdir())
    counts = _counts(trained / "run")
    assert found == sorted(
        tuple(labels_of("frequencies", 16, 3, None, seed, counts=counts).tolist()) for seed in (0, 1)
    )
    assert len(set(found)) == 2


def test_a_run_that_goes_on_far_from_its_dataset_keeps_its_frequencies(trained: Path, tmp_path: Path) -> None:
    data, run, name = shutil.copytree(trained / "data", tmp_path / "data"), tmp_path / "run", f"far-{tmp_path.name}"
    lvae("shard", data, "--format", "webdataset", "--workers", "1")
    words = (run, *LITTLE, "--set", "classes=all")
    lvae("train", data, *words, "--steps", "2")
    before = _counts(run)
    fsspec.filesystem("memory").put(str(data), f"/{name}", recursive=True)
    lvae("train", f"memory://{name}", *words, "--steps", "3")
    assert latest_checkpoint(run).step == 3
    assert _counts(run) == before


@pytest.mark.parametrize("counts", ["[null, 1, 2]", '"abc"', "5", "false", "[1.5, 2, 3]", "{}", "[true, 2, 3]"])
def test_settings_by_a_stranger_are_refused_in_a_line(trained: Path, tmp_path: Path, counts: str) -> None:
    run = shutil.copytree(trained / "run", tmp_path / "run")
    content = json.loads((run / "config.json").read_text())
    content["dataset"]["class_counts"] = json.loads(counts)
    (run / "config.json").write_text(json.dumps(content))
    refused = lvae("sample", run, tmp_path / "s", "-n", "3", "--labels", "frequencies", check=1).stderr
    assert refused.count("\n") == 1 and "class_counts" in refused


def test_counts_of_any_size_name_classes_that_there_are() -> None:
    assert set(labels_of("frequencies", 60, 3, None, 0, counts=[2**62] * 3).tolist()) == {0, 1, 2}


def test_what_is_one_class_is_no_way_to_draw_many(trained: Path, tmp_path: Path) -> None:
    words = ("outpaint", trained / "run", tmp_path / "a.png", tmp_path / "wide.png", "--label", "frequencies")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert "no such class. Choose 0 to 2, cat, dog, 猫.\n" in lvae(*words, check=1).stderr


def _counts(run: Path) -> Sequence[int]:
    counts = read_run(run).dataset.class_counts
    assert counts is not None
    return counts
