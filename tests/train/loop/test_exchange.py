"""Gradients averaged over ranks in buckets, while a backward pass still runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lvae.train.loop.parameters import _bucket_starts
from tests.evaluate.run_examples import dataset


def run(count: int, out: Path, precision: str = "float32", reduced: str = "float32") -> list[dict[str, Any]]:
    """What each of so many ranks found."""
    out.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *launcher, "-m", "tests.train.loop.exchange_ranks", str(out), precision, reduced]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(count)]


@pytest.mark.slow
def test_ranks_exchange_early_in_one_order_and_learn_what_one_does(tmp_path: Path) -> None:
    alone = run(1, tmp_path / "1")[0]
    for count in (2, 4):
        ranks = run(count, tmp_path / str(count))
        for found in ranks:
            for name in ("losses", "norm", "weights"):
                assert found[name] == pytest.approx(alone[name], rel=1e-5)  # float32: sums over slices
            assert found["state"] == ranks[0]["state"]
            assert found["order"] == list(reversed(range(len(found["order"]))))
            assert len(found["order"]) > 3
            assert found["early"] >= len(found["order"]) // 2  # begun before the backward pass reached the first layer
            assert found["bytes"] == 4 * found["numbers"]  # once an update, whatever the micro-batches
            assert found["reckoned"] == [found["bytes"]] * 2
            assert not [name for name in found["threads"] if "gloo" in name]  # one that ends with its process aborts it


@pytest.mark.slow
def test_gradients_in_half_precision_are_summed_and_exchanged_in_full(tmp_path: Path) -> None:
    alone = run(1, tmp_path / "1", "bfloat16")[0]
    ranks = run(2, tmp_path / "2", "bfloat16")
    for found in ranks:
        for name in ("losses", "norm", "weights"):
            assert found[name] == pytest.approx(alone[name], rel=2e-3)  # bfloat16: each rank rounds its own gradients
        assert found["state"] == ranks[0]["state"]
        assert found["early"] >= len(found["order"]) // 2
        assert found["bytes"] == 4 * found["numbers"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_half_the_bytes_are_sent_and_ranks_stay_equal_bit_for_bit(tmp_path: Path, precision: str) -> None:
    full = run(2, tmp_path / "full", precision)[0]
    ranks = run(2, tmp_path / "half", precision, "bfloat16")
    for found in ranks:
        assert found["bytes"] == 2 * found["numbers"] == full["bytes"] // 2
        assert found["reckoned"] == [found["bytes"]] * 2
        assert found["state"] == ranks[0]["state"]
        assert found["early"] >= len(found["order"]) // 2
        for name in ("losses", "norm", "weights"):
            assert found[name] == pytest.approx(full[name], rel=2e-3)  # gradients rounded to 8 bits, each number once
    assert ranks[0]["weights"] != full["weights"]


@pytest.mark.slow
def test_a_dry_run_says_what_an_update_sends(tmp_path: Path) -> None:
    dataset(tmp_path / "latents")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "lvae", "train", tmp_path / "latents", tmp_path / "run", "--device", "cpu", "--dry-run"]
    command = [sys.executable, *launcher, *train, "--reduce-precision", "bfloat16"]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    parameters, sent = found["estimate"]["parameters"], found["exchanged_bytes"]
    assert 2 * parameters <= sent < 2.2 * parameters  # parameters begin at multiples of 64 numbers
    assert f"gradients           {sent / (1 << 20):.1f} MiB a rank and update, in bfloat16" in done.stderr


def test_buckets_begin_at_parameters() -> None:
    assert _bucket_starts([0, 10, 20, 90, 100], 20) == [0, 20, 90]
    assert _bucket_starts([0], 20) == [0]
