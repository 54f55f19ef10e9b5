"""Whole runs: killed and continued, on several ranks, with bad input, and what they leave behind."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from lvae.cli import main
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.devices.device import Device
from lvae.train.fit import Result, fit
from lvae.train.loop import session
from lvae.train.loop.session import Execution, Watching
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.resolve import resolve_config
from lvae.train.runs.run import latest_checkpoint, load_model, read_run
from tests.conftest import lvae, make_once
from tests.manifests.dataset_examples import flip

SMALL = {"width": "8", "encoder_width": "8", "batch": "8", "warm_up_updates": "3"}
OFTEN = Execution(log=2, save=4, validate=0, preview=0, keep_recent=2)
TIMED = ("images_per_second", "data_wait_share", "peak_memory_bytes")


def run_here(
    latents: Path,
    run: Path,
    updates: int,
    intervals: Execution = OFTEN,
    watching: Watching = Watching(),  # noqa: B008
    **settings: Any,
) -> Result:
    """Train in this process."""
    dataset = Dataset.open(latents)
    given = SMALL | {name: str(value) for name, value in settings.items()} | {"updates": str(updates)}
    config = resolve_config(dataset, None, "tiny", given)
    return fit(run, config, dataset, Device(), intervals, watching)


def command(latents: Path, run: Path, updates: int, *more: str) -> list[str]:
    """The same as a command, on one thread."""
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    every = ["--log-every", "2", "--save-every", "4", "--validate-every", "0", "--preview", "none"]
    start = [sys.executable, "-m", "lvae", "train", str(latents), str(run), "--preset", "tiny", "--device", "cpu"]
    return [*start, *settings, *every, "--threads", "1", "--steps", str(updates), *more]


def losses(run: Path) -> list[dict[str, Any]]:
    """The log, without what depends on the clock."""
    return [{name: value for name, value in line.items() if name not in TIMED} for line in read_metrics(run)]


def final(run: Path) -> dict[str, bytes]:
    """The files of the last checkpoint."""
    return {path.name: path.read_bytes() for path in latest_checkpoint(run).path.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 updates, as a command."""

    def make(root: Path) -> None:
        subprocess.run(command(latents, root / "run", 40), check=True, capture_output=True)

    return make_once(tmp_path_factory, "undisturbed", make) / "run"


def kill_and_go_on(start: list[str], run: Path, kind: signal.Signals, seed: int) -> int:
    """Send a signal at a random update; how many times that hit a living process."""
    chosen, hits = random.Random(seed), 0
    for _ in range(3):
        process = subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        after = len(read_metrics(run)) + chosen.randint(1, 4)
        while process.poll() is None and len(read_metrics(run)) < after:
            time.sleep(0.01)
        time.sleep(chosen.random() * 0.2)
        process.send_signal(kind)
        _, said = process.communicate()
        if kind is signal.SIGTERM and process.returncode != 0:
            assert process.returncode == 130, said
            assert "the same command goes on from here" in said
        hits += process.returncode != 0
    subprocess.run(start, check=True, capture_output=True)
    return hits


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_bit_for_bit(
    latents: Path, undisturbed: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    run = tmp_path / "run"
    assert kill_and_go_on(command(latents, run, 40), run, kind, seed=int(kind)) >= 1
    assert losses(run) == losses(undisturbed)
    assert final(run) == final(undisturbed)


def test_a_stopped_run_may_go_on_for_longer(latents: Path, tmp_path: Path) -> None:
    assert run_here(latents, tmp_path / "a", 6) == Result(6, True)
    begun = list[tuple[int, int]]()  # what a bar is told, so that it reckons from where the run stands
    watching = Watching(lambda updates, step: begun.append((updates, step)))
    run_here(latents, tmp_path / "a", 12, watching=watching)
    assert begun == [(12, 6)]
    run_here(latents, tmp_path / "b", 12)
    assert final(tmp_path / "a") == final(tmp_path / "b")
    assert run_here(latents, tmp_path / "a", 12) == Result(12, True)


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(
    latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, updates in (("whole", 12), ("damaged", 8)):
        run_here(latents, tmp_path / name, updates)
    flip(tmp_path / "damaged/checkpoints/step-00000008/optimizer.safetensors", 5000, 2)
    with caplog.at_level(logging.WARNING):
        run_here(latents, tmp_path / "damaged", 12)
    assert "step-00000008" in caplog.text
    assert final(tmp_path / "damaged") == final(tmp_path / "whole")
    assert losses(tmp_path / "damaged") == losses(tmp_path / "whole")


def ranks(count: int, start: list[str]) -> list[str]:
    """The same command under torchrun, which finds a free port."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [start[0], *launcher, *start[1:]]


@pytest.mark.parametrize("more", [(), ("--accumulate", "2", "--set", "classes=all")])
def test_two_ranks_give_the_losses_of_one(latents: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, start in (("one", lambda c: c), ("two", lambda c: ranks(2, c))):
        done = subprocess.run(
            start(command(latents, tmp_path / name, 12, *more)), env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("took ") == 1  # one rank speaks
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 6
    for line, other in zip(one, two, strict=True):
        assert line["images"] == other["images"]
        for name in ("loss_nats", "reconstruction_nats", "rate_nats", "spectral", "gradient_norm"):
            # float32: sums over half batches, then a few updates with what came of them
            assert line[name] == pytest.approx(other[name], rel=1e-4), name
    assert Checkpoints(tmp_path / "two" / "checkpoints").steps() == [4, 8, 12]


def test_ranks_stop_together_and_one_goes_on(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    start = ranks(2, command(latents, run, 4000))
    process = subprocess.Popen(
        start, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and len(read_metrics(run)) < 3:
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate()
    stopped = latest_checkpoint(run).step
    assert "the same command goes on from here" in said
    assert 6 <= stopped < 4000
    done = subprocess.run(command(latents, run, stopped + 2), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert latest_checkpoint(run).step == stopped + 2


def test_what_a_run_leaves_behind(latents: Path, tmp_path: Path) -> None:
    shown: list[tuple[int, NDArray[np.float32]]] = []
    said: list[str] = []
    watching = Watching(line=lambda step, text: said.append(text), preview=lambda *sample: shown.append(sample))
    run = tmp_path / "run"
    run_here(latents, run, 10, Execution(log=5, save=0, validate=5, preview=5), watching, classes="all", seed=3)
    assert [line["step"] for line in read_metrics(run)] == [5, 10]
    line = read_metrics(run)[-1]
    groups = sum(read_run(run).model.groups)
    assert len(line["rate_per_group_nats"]) == groups
    assert sum(line["rate_per_group_nats"]) == pytest.approx(line["rate_nats"], rel=1e-5)
    assert line["images"] == 80
    assert line["learning_rate"] == pytest.approx(3e-3)
    assert line["validation_loss_nats"] == pytest.approx(
        line["validation_reconstruction_nats"] + line["validation_rate_nats"]
    )
    assert [step for step, _ in shown] == [5, 10]
    assert all(samples.shape == (16, 3, 8, 8) and np.isfinite(samples).all() for _, samples in shown)
    assert "validation" in said[-1]
    assert Checkpoints(run / "checkpoints").steps() == [10]
    config = read_run(run)
    assert config.dataset.id == Dataset.open(latents).manifest.id
    assert (config.model.classes, config.training.seed, config.preset) == (8, 3, "tiny")


def test_trained_weights_come_back_as_a_model(latents: Path, tmp_path: Path) -> None:
    run_here(latents, tmp_path / "run", 8, ema=0.5)
    averaged, raw = load_model(tmp_path / "run"), load_model(tmp_path / "run", "raw")
    assert averaged.sample(2).shape == (2, 3, 8, 8)
    assert not torch.equal(averaged.outproj.weight, raw.outproj.weight)
    assert torch.equal(load_model(tmp_path / "run", step=8).outproj.weight, averaged.outproj.weight)


def test_a_run_may_begin_with_the_weights_of_another(latents: Path, tmp_path: Path) -> None:
    run_here(latents, tmp_path / "first", 8)
    start = [*command(latents, tmp_path / "second", 1), "--init", str(tmp_path / "first")][3:]
    assert CliRunner().invoke(main, start).exit_code == 0
    first, second = load_model(tmp_path / "first"), load_model(tmp_path / "second", "raw")
    assert torch.equal(first.outproj.weight, second.outproj.weight)  # the first update has a rate of 0
    assert read_run(tmp_path / "second").init is not None
    assert CliRunner().invoke(main, start).exit_code == 0
    shutil.rmtree(tmp_path / "second" / "checkpoints")  # as if it had been killed before its first
    refused = CliRunner().invoke(main, start[: start.index("--init")])
    assert refused.exit_code == 1 and "Give the --init that it had" in refused.stderr
    assert CliRunner().invoke(main, start).exit_code == 0
    assert torch.equal(load_model(tmp_path / "second", "raw").outproj.weight, second.outproj.weight)


# --- what is refused ---


def refusal(latents: Path, run: Path, **settings: Any) -> str:
    with pytest.raises(LvaeError) as found:
        run_here(latents, run, 4, **settings)
    return str(found.value)


def test_a_run_of_other_settings_names_the_difference(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_here(latents, run, 4)
    before = final(run)
    assert "width was 8 and is 16 now" in refusal(latents, run, width=16, encoder_width=16)
    assert "learning_rate was 0.003 and is 0.01 now" in refusal(latents, run, learning_rate=0.01)
    assert "seed was 0 and is 1 now" in refusal(latents, run, seed=1)
    assert final(run) == before


def test_another_dataset_is_a_difference(latents: Path, tmp_path: Path) -> None:
    run_here(latents, tmp_path / "run", 4)
    shutil.copytree(latents, tmp_path / "other")
    assert CliRunner().invoke(main, ["shard", str(tmp_path / "other"), "--seed", "1"]).exit_code == 0
    assert "was trained on dataset" in refusal(tmp_path / "other", tmp_path / "run")
    asked = ["train", str(tmp_path / "other"), str(tmp_path / "run"), "--preset", "small", "--device", "cpu"]
    assert "its preset was tiny, and this is small. Leave --preset out" in CliRunner().invoke(main, asked).stderr


def test_a_copied_dataset_is_the_same(latents: Path, tmp_path: Path) -> None:
    run_here(latents, tmp_path / "run", 4)
    shutil.copytree(latents, tmp_path / "elsewhere")
    assert run_here(tmp_path / "elsewhere", tmp_path / "run", 6).finished


def test_an_unknown_setting_offers_the_nearest(latents: Path, tmp_path: Path) -> None:
    assert "learning_rate" in refusal(latents, tmp_path / "run", lerning_rate=1)
    assert "width" in refusal(latents, tmp_path / "run", widht=1)
    assert "must be" in refusal(latents, tmp_path / "run", width="wide")


def test_settings_are_numbers_lists_and_words(latents: Path) -> None:
    given = {"groups": "1,1,1", "attention": "published", "clip": "null", "ema": "0.5", "hierarchical_prior": "true"}
    config = resolve_config(Dataset.open(latents), None, "tiny", given)
    assert (config.model.groups, config.model.attention, config.model.hierarchical_prior) == (
        (1, 1, 1),
        "published",
        True,
    )
    assert (config.training.clip, config.training.ema) == (None, 0.5)


class Four(Device):
    """One of four ranks."""

    world = 4

    def __init__(self) -> None:
        super().__init__()
        self.world = 4


def test_a_batch_that_devices_cannot_share_is_refused(latents: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(latents)
    config = resolve_config(dataset, None, "tiny", {"batch": "30"})
    with pytest.raises(LvaeError, match=r"--batch 30: 4 devices cannot take equal slices of it. Take 32"):
        fit(tmp_path / "run", config, dataset, Four(), OFTEN, Watching())
    assert not (tmp_path / "run").exists()


def test_a_loss_that_stays_no_number_ends_the_run_and_keeps_its_checkpoint(
    latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(latents, tmp_path / "run", 4)
    checkpoint = latest_checkpoint(tmp_path / "run")
    weights = checkpoint.read("model") | {
        "outproj.bias": torch.full_like(checkpoint.read("model")["outproj.bias"], 1e38)
    }
    groups = {"model": weights, "ema": checkpoint.read("ema"), "optimizer": checkpoint.read("optimizer")}
    Checkpoints(tmp_path / "run" / "checkpoints").save(6, groups, {"step": 6, "position": 48})
    monkeypatch.setattr(session, "USELESS_UPDATES", 6)
    with pytest.raises(LvaeError, match=r"no finite loss for 6 updates. The checkpoint of step 6 is kept"):
        run_here(latents, tmp_path / "run", 100)
    assert latest_checkpoint(tmp_path / "run").step == 6
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def one_line(*arguments: str | Path) -> str:
    """What the command says when it refuses."""
    done = CliRunner().invoke(main, ["train", *map(str, arguments)])
    assert (done.exit_code, done.stdout) == (1, "")
    return done.stderr.splitlines()[-1]


def test_the_command_refuses_in_one_line(latents: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "no such preset" in one_line(latents, run, "--preset", "hughe")
    assert "made for latents of 4x32x32, not 3x8x8" in one_line(latents, run, "--preset", "church256-f8")
    assert "is an empty folder, not a dataset" in one_line(tmp_path, run)
    assert "KEY=VALUE" in one_line(latents, run, "--set", "width")
    assert not run.exists()
    damaged = tmp_path / "damaged"
    shutil.copytree(latents, damaged)
    flip(next(damaged.rglob("train.zarr/latents/c/0/0/0/0")), 999, 1)
    assert "checksum" in one_line(damaged, run, "--steps", "1")


def test_minutes_end_a_run_that_goes_on_and_classes_must_be_the_datasets(latents: Path, tmp_path: Path) -> None:
    start = ("train", latents, tmp_path / "run", "--device", "cpu", "--preview", "none", "--steps", "4")
    done = lvae(*start, "--conditional", "--minutes", "0.0001")
    assert "0.0001 min are over, 1 of 4 updates are done" in done.stdout
    assert "4 updates are done" in lvae(*start).stdout
    there = len(Dataset.open(latents).classes or ())
    assert read_run(tmp_path / "run").model.classes == there
    other = ("train", latents, tmp_path / "other", "--set", f"classes={there + 2}")
    assert f"has {there} classes. Say --conditional" in lvae(*other, check=1).stderr


def test_a_dry_run_shows_settings_and_trains_nothing(latents: Path, tmp_path: Path) -> None:
    arguments = ["train", latents, tmp_path / "run", "--preset", "tiny", "--batch", "4", "--dry-run"]
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert (shown["model"]["resolution"], shown["training"]["batch"]) == (8, 4)
    assert shown["estimate"]["parameters"] > 10_000
    assert shown["time"]["seconds"] > 0 and "by a trial" in shown["time"]["by"]
    assert "updates an epoch" in done.stderr and "time, about" in done.stderr and len(done.stderr.splitlines()) < 14
    assert shown["data"]["placement"] == "memory"
    assert shown["data"]["update_bytes"] == 4 * 2 * shown["model"]["channels"] * 8 * 8  # float16
    assert not (tmp_path / "run").exists()


def test_training_loads_no_images_no_autoencoder_and_no_beam() -> None:
    code = "import sys, lvae.train.fit; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"apache_beam", "PIL", "lvae.encode", "lvae.pipeline", "zarr", "webdataset"} & set(loaded)
