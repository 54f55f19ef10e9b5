"""The best checkpoint by validation is kept and can be sampled from; a run may end where it no longer improves."""

from dataclasses import replace
from pathlib import Path

import pytest

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.devices.device import Device
from lvae.train.fit import Result, fit
from lvae.train.loop.session import Execution, Watching
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.resolve import resolve_config
from lvae.train.runs.run import CHECKPOINTS, find_checkpoint, load_model
from tests.conftest import lvae
from tests.evaluate.run_examples import dataset

OFTEN = Execution(log=1, save=1000, validate=1, keep_recent=1)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x4 latents of 3 channels, a quarter of them held out."""
    root = tmp_path_factory.mktemp("best") / "latents"
    dataset(root)
    lvae("shard", root, "--split", "val=25%")
    return root


def run_here(latents: Path, run: Path, updates: int, execution: Execution = OFTEN, rate: str = "0.001") -> Result:
    given = {"width": "8", "encoder_width": "8", "batch": "8", "updates": str(updates), "ema": "0"}
    config = resolve_config(Dataset.open(latents), None, "tiny", given | {"learning_rate": rate})
    return fit(run, config, Dataset.open(latents), Device(), execution, Watching())


def validations(run: Path) -> dict[int, float]:
    return {line["step"]: line["validation_loss_nats"] for line in read_metrics(run)}


@pytest.fixture(scope="module")
def diverging(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rate grows until it does harm."""
    run = tmp_path_factory.mktemp("diverging") / "run"
    assert run_here(latents, run, 100, replace(OFTEN, patience=3), rate="3").finished
    return run


def test_a_run_ends_where_validation_no_longer_improves(latents: Path, diverging: Path) -> None:
    found = validations(diverging)
    best = min(found, key=lambda step: found[step])
    assert max(found) == best + 3 < 100
    assert Checkpoints(diverging / CHECKPOINTS).steps() == [best, best + 3]
    assert find_checkpoint(diverging, "best", ("ema",)).step == best
    assert find_checkpoint(diverging, "last").step == best + 3
    again = run_here(latents, diverging, 100, replace(OFTEN, patience=3), rate="3")
    assert again == Result(best + 3, True)  # nothing to do


def test_samples_come_from_the_checkpoint_that_is_named(diverging: Path, tmp_path: Path) -> None:
    steps = Checkpoints(diverging / CHECKPOINTS).steps()
    for name, step in (("best", steps[0]), ("last", steps[1]), (str(steps[0]), steps[0])):
        said = lvae("sample", diverging, tmp_path / name, "-n", "2", "--step", name, "--device", "cpu").stderr
        assert f"weights of update {step};" in said
    refused = lvae("sample", diverging, tmp_path / "none", "--step", "77", "--device", "cpu", check=1).stderr
    assert f"has no checkpoint of step 77. There are: {steps[0]}, {steps[1]}." in refused
    assert "must be a number" in lvae("sample", diverging, tmp_path / "none", "--step", "soon", check=1).stderr
    assert load_model(diverging, step="best").config == load_model(diverging).config


def test_without_validation_no_checkpoint_is_the_best(latents: Path, tmp_path: Path) -> None:
    run_here(latents, tmp_path / "run", 1, replace(OFTEN, validate=0))
    with pytest.raises(LvaeError, match="was never validated"):
        find_checkpoint(tmp_path / "run", "best")
