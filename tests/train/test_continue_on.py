"""Going on with a dataset that was erased from or grew: what is taken, what is refused, and the same bits after it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.train.data.batches import order
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.run import latest_checkpoint, read_run
from tests.conftest import lvae, make_once

SMALL = ["--set", "width=8", "--set", "encoder_width=8", "--batch", "8", "--threads", "1", "--device", "cpu"]
OFTEN = ["--save-every", "2", "--log-every", "1", "--validate-every", "1", "--preview", "none"]


def train(dataset: Path, run: Path, steps: int, *more: str | Path, check: int = 0) -> str:
    done = lvae("train", dataset, run, *SMALL, *OFTEN, "--steps", str(steps), *more, check=check)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def begun(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four updates, and two smaller views of its dataset: of another normalization, and of the run's own."""

    def make(root: Path) -> None:
        train(latents, root / "run", 4)
        for name, normalization in (("other", "channel"), ("erased", str(root / "run" / "config.json"))):
            shutil.copytree(latents, root / name)
            lvae("shard", root / name, "--limit", "30", "--normalization", normalization, "--workers", "1")

    return make_once(tmp_path_factory, "continue-on", make)


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in latest_checkpoint(run).path.iterdir()}


def test_a_run_goes_on_with_another_dataset_and_from_there_bit_for_bit(
    latents: Path, begun: Path, tmp_path: Path
) -> None:
    erased, once, twice = begun / "erased", tmp_path / "once", tmp_path / "twice"
    for run in (once, twice):
        shutil.copytree(begun / "run", run)
    said = train(latents, once, 8, "--continue-on", erased)
    assert "from now on" in said and f"of {len(Dataset.open(erased))} latents" in said
    train(latents, twice, 6, "--continue-on", erased)
    train(latents, twice, 7, "--continue-on", erased)  # the same command goes on
    train(erased, twice, 8)
    assert weights(once) == weights(twice)
    (change,) = read_run(twice).overrides
    assert (change.step, change.name, change.after["id"]) == (4, "dataset", Dataset.open(erased).manifest.id)
    assert [line["step"] for line in read_metrics(twice) if "overrides" in line] == [5]
    assert read_metrics(once)[-1]["images"] == 64
    best = Checkpoints(once / "checkpoints").open(8).values["best"]
    assert best["step"] > 4  # what the old dataset set aside is no measure any more


def test_the_order_after_it_is_that_of_the_new_dataset() -> None:
    def places(count: int) -> NDArray[np.int64]:
        return order(32, 32, count, seed=0)

    assert (places(60) == order(0, 64, 60, seed=0)[32:]).all()
    assert sorted(order(60, 60, 60, seed=0)) == list(range(60))  # whole epochs follow the one that was begun


def test_without_the_option_it_is_named(begun: Path) -> None:
    assert "--continue-on DATASET" in train(begun / "erased", begun / "run", 8, check=1)


def test_what_does_not_fit_is_refused_in_one_line(latents: Path, scenes: Path, begun: Path, tmp_path: Path) -> None:
    run = begun / "run"
    said = train(latents, run, 8, "--continue-on", begun / "other", check=1)
    assert f"lvae shard {begun / 'other'} --normalization {run}/config.json" in said
    config = json.loads((run / "config.json").read_text())
    for where, value, problem in (
        (("image", "size"), 64, "--size was 64 and is 32"),
        (("image", "mirrored"), False, "--mirror was no and is yes"),
        (("autoencoder", "downsampling_factor"), 8, "its autoencoder is"),
    ):
        other = tmp_path / problem.replace(" ", "")
        shutil.copytree(run, other)
        content = json.loads(json.dumps(config))
        place = content["dataset"]
        for name in where[:-1]:
            place = place[name]
        place[where[-1]] = value
        (other / "config.json").write_text(json.dumps(content))
        assert problem in train(latents, other, 8, "--continue-on", begun / "erased", check=1)


def test_only_an_unconditional_model_takes_more_classes(latents: Path, begun: Path, tmp_path: Path) -> None:
    for conditional, code in ((0, 0), (6, 1)):
        run = tmp_path / str(conditional)
        shutil.copytree(begun / "run", run)
        content = json.loads((run / "config.json").read_text())
        content["dataset"]["classes"] = content["dataset"]["classes"][:6]
        content["model"]["classes"] = conditional
        (run / "config.json").write_text(json.dumps(content))
        said = train(latents, run, 8, "--continue-on", begun / "erased", "--dry-run", check=code)
        assert code == 0 or f"are unknown to {run}, which was trained on" in said


def test_a_dataset_that_numbers_its_classes_otherwise_is_matched_by_name(latents: Path, tmp_path: Path) -> None:
    run, names = tmp_path / "run", Dataset.open(latents).classes
    train(latents, run, 2, "--conditional")
    assert names is not None
    views = (names[2:], names[2:][::-1])  # the same latents, under the run's order of names and under another
    runs = [tmp_path / str(number) for number in range(len(views))]
    for one, view in zip(runs, views, strict=True):
        data = tmp_path / f"data-{one.name}"
        shutil.copytree(latents, data)
        shutil.copytree(run, one)
        chosen = ("--only-classes", ",".join(view), "--normalization", run / "config.json", "--split", "val=20%")
        lvae("shard", data, *chosen, "--workers", "1")
        assert Dataset.open(data).classes == view
        train(latents, one, 4, "--conditional", "--continue-on", data)
        train(data, one, 6)
        assert read_run(one).dataset.classes == names  # as the model knows them
    assert weights(runs[0]) == weights(runs[1])


def test_there_must_be_a_run_that_can_go_on(latents: Path, begun: Path, tmp_path: Path) -> None:
    assert "is no run yet" in train(latents, tmp_path / "new", 4, "--continue-on", latents, check=1)
    said = train(latents, begun / "run", 4, "--continue-on", begun / "erased", check=1)
    assert "all 4 updates" in said and "--steps 8" in said
