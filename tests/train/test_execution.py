"""What an update is, against how it is executed: a run may move, and its settings change only where that is written."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lvae.train.config import TrainConfig
from lvae.train.runs.estimates import Memory, choose_micro_batch
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.run import CONFIG, read_run
from tests.conftest import lvae
from tests.evaluate.run_examples import dataset

SETTINGS = ("width=8", "encoder_width=8", "warm_up_updates=3")
NUMBERS = ("loss_nats", "reconstruction_nats", "rate_nats", "gradient_norm")


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x4 latents of 3 channels."""
    root = tmp_path_factory.mktemp("execution") / "latents"
    dataset(root)
    return root


def train(latents: Path, run: Path, steps: int, *more: str, check: int = 0) -> str:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    often = ("--log-every", "1", "--save-every", "2", "--preview", "none", "--device", "cpu", "--threads", "1")
    return lvae("train", latents, run, *settings, *often, "--steps", str(steps), *more, check=check).stderr


def losses(run: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in (*NUMBERS, "images")} for line in read_metrics(run)]


@pytest.fixture(scope="module")
def whole(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four updates of eight latents, each in one portion."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(latents, run, 4, "--batch", "8")
    return run


@pytest.mark.parametrize("more", [("--micro-batch", "2"), ("--accumulate", "4", "--batch", "2")])
def test_a_run_goes_on_in_smaller_portions(latents: Path, whole: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    train(latents, run, 2, "--batch", "8")
    assert "8 latents an update, in 4 micro-batches of 2 a device" in train(latents, run, 4, *more)
    for line, other in zip(losses(whole), losses(run), strict=True):
        assert line == pytest.approx(other, rel=1e-4)  # float32: sums over portions
    again = train(latents, run, 5)
    assert "4 micro-batches of 2" in again  # what it was last executed in, so that it goes on bit for bit


def test_precision_and_recomputation_may_change(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(latents, run, 2, "--batch", "8")
    train(latents, run, 3, "--precision", "bfloat16", "--set", "recompute_from=4")
    config = read_run(run)
    assert (config.training.precision, config.training.recompute_from) == ("bfloat16", 4)
    assert config.execution is not None
    assert config.execution.precision == "bfloat16"


def test_what_an_update_sees_may_not(latents: Path, whole: Path) -> None:
    said = train(latents, whole, 4, "--batch", "16", check=1)
    assert "an update saw 8 latents and sees 16 now" in said
    assert "--override" in said


def test_an_override_is_taken_and_written_down(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(latents, run, 2, "--batch", "8")
    rate = read_run(run).training.learning_rate
    said = train(latents, run, 4, "--override", "learning_rate=1e-5", "--override", "batch=4")
    assert f"learning_rate was {rate} and is 1e-05 from now on" in said
    config, lines = read_run(run), read_metrics(run)
    assert [(one.step, one.name, one.after) for one in config.overrides] == [
        (2, "batch", 4),
        (2, "learning_rate", 1e-5),
    ]
    assert lines[2]["overrides"] == {"batch": [8, 4], "learning_rate": [rate, 1e-5]}
    assert "overrides" not in lines[3]
    assert [line["images"] for line in lines] == [8, 16, 20, 24]
    assert lines[2]["learning_rate"] < lines[1]["learning_rate"]
    train(latents, run, 5)  # from now on these are the run's own
    assert (read_run(run).training.learning_rate, len(read_run(run).overrides)) == (1e-5, 2)
    assert read_metrics(run)[-1]["images"] == 28


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("width=16", "is a setting of the model"),
        ("lerning_rate=1", "Did you mean learning_rate?"),
        ("learning_rate", "say --override KEY=VALUE"),
    ],
)
def test_an_override_that_makes_no_sense_is_refused(latents: Path, whole: Path, override: str, problem: str) -> None:
    assert problem in train(latents, whole, 4, "--override", override, check=1)


def test_a_run_that_is_not_there_has_nothing_to_override(latents: Path, tmp_path: Path) -> None:
    said = train(latents, tmp_path / "run", 4, "--override", "learning_rate=1", check=1)
    assert "there is no run yet" in said


def test_a_run_from_before_these_settings_goes_on(latents: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    content = json.loads((run / CONFIG).read_text())
    del content["execution"], content["overrides"]
    content["training"] |= {"precision": "float32", "batch": 4, "accumulate": 2}
    (run / CONFIG).write_text(json.dumps(content))
    assert "2 micro-batches of 4" in train(latents, run, 5)


def test_a_batch_alone_is_what_an_update_sees(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(latents, run, 1, "--batch", "4", "--accumulate", "2")
    for size in ("8", "4"):  # of an update, or as the run was begun
        train(latents, run, 1, "--batch", size)
    assert read_run(run).training.update_size == 8


def test_a_micro_batch_that_does_not_divide_is_refused(latents: Path, whole: Path) -> None:
    assert "Take 4, for example" in train(latents, whole, 4, "--micro-batch", "3", check=1)


def test_the_micro_batch_is_the_largest_that_fits() -> None:
    memory = Memory(parameters=1, state_bytes=100, latent_bytes=10)
    assert choose_micro_batch(64, 64, memory, None) == 64
    assert choose_micro_batch(64, 64, memory, 1000) == 64  # three quarters, less 100: room for 65
    assert choose_micro_batch(64, 64, memory, 900) == 32  # for 57
    assert choose_micro_batch(64, 16, memory, 1000) == 16
    assert choose_micro_batch(64, 64, memory, 1) == 1


def test_an_update_sees_batch_times_accumulate() -> None:
    assert TrainConfig(batch=8, accumulate=4).update_size == 32


def test_a_profile_says_where_updates_went(latents: Path, whole: Path, tmp_path: Path) -> None:
    said = train(latents, tmp_path / "run", 4, "--batch", "8", "--profile", "1")
    assert "where 1 updates went" in said
    events = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if "cat" in event]
    assert (names.count("aten::_fused_adam_"), names.count("aten::silu") > 10) == (1, True)
    assert "aten::convolution" in (tmp_path / "run" / "profile" / "table.txt").read_text()
    assert losses(tmp_path / "run") == losses(whole)[:4]


def test_deterministic_training_refuses_what_differs_from_run_to_run(
    latents: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        train(latents, tmp_path / "run", 4, "--batch", "8", "--deterministic")
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        with pytest.raises(RuntimeError, match="deterministic"):
            torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert losses(tmp_path / "run") == losses(whole)[:4]  # CPUs need nothing
