"""Ranks that see or hold different things: the first one decides, and differences are told instead of trained on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvae.train.loop.agreement import fingerprint
from lvae.train.runs.checkpoints import Checkpoints
from tests.train.test_fit import losses, run_here


@given(st.integers(0, 999), st.integers(0, 31), st.integers(0, 999))
def test_any_bit_changes_the_fingerprint_and_cutting_does_not(place: int, bit: int, cut: int) -> None:
    numbers = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    whole = fingerprint([numbers])
    assert whole == fingerprint([numbers[:cut], numbers[cut:]])
    assert -(1 << 63) <= whole < 1 << 63
    numbers.view(torch.int32)[place] ^= torch.tensor((1 << bit) - (1 << 32 if bit == 31 else 0), dtype=torch.int32)
    assert fingerprint([numbers]) != whole


def test_numbers_in_other_places_are_other_numbers() -> None:
    assert fingerprint([torch.tensor([1.0, 2.0])]) != fingerprint([torch.tensor([2.0, 1.0])])
    assert fingerprint([torch.ones(3, dtype=torch.bfloat16)]) != fingerprint([torch.ones(3)])


def alter(run: Path, group: str, name: str) -> None:
    """Save the last checkpoint again, with one more in the first tensor of this name."""
    checkpoints = Checkpoints(run / "checkpoints")
    last = checkpoints.open(checkpoints.steps()[-1])
    groups = {each: last.read(each) for each in last.groups}
    next(tensor for key, tensor in groups[group].items() if key.endswith(name)).add_(1)
    shutil.rmtree(last.path)
    checkpoints.save(last.step, groups, last.values)


@pytest.mark.slow
def test_the_first_rank_decides_and_differences_are_told(latents: Path, tmp_path: Path) -> None:
    run_here(latents, tmp_path / "whole", 8)
    run_here(latents, tmp_path / "other", 4, seed=1)
    whole, steps = tmp_path / "whole", Checkpoints(tmp_path / "whole" / "checkpoints")
    out = tmp_path / "out"
    for case in ("bit", "contents", "counts", "missing", "newer", "settings", "vectors"):
        for rank in (0, 1):
            shutil.copytree(whole, out / case / str(rank))
            name = f"{case}/{rank}"
            if name not in ("newer/1", "missing/0", "missing/1", "settings/1"):
                shutil.rmtree(out / name / "checkpoints" / steps.at(8).name)
            if name in ("missing/1", "settings/1"):
                shutil.rmtree(out / name / "checkpoints")
            if name == "settings/1":
                (out / name / "config.json").unlink()
            if name == "contents/1":
                first = out / name / "checkpoints" / steps.at(4).name
                shutil.rmtree(first)
                shutil.copytree(tmp_path / "other" / "checkpoints" / steps.at(4).name, first)
    alter(out / "vectors" / "1", "ema", "singular_vectors")  # which has them, too, and is read last
    alter(out / "counts" / "1", "optimizer", "counts.applied")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "tests.train.loop.agreement_ranks", str(latents), str(out)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["newer"] == second["newer"] == "step 8"  # of 4, though the second one had 8
    for line, other in zip(losses(out / "newer" / "0"), losses(whole), strict=True):
        assert line["loss_nats"] == pytest.approx(other["loss_nats"], rel=1e-4)  # float32: sums over halves of a batch
    assert (
        "has no checkpoint of update 8, from which rank 0 goes on. All ranks must see the same RUN" in second["missing"]
    )
    assert first["missing"] == "rank 1: cannot begin, so no rank does. Its own message says why."
    for found in (first, second):
        assert "rank 1 has other weights after update 4 than rank 0" in found["contents"]
        assert "rank 1 has other vectors after update 4 than rank 0" in found["vectors"]
        assert "rank 1 has other counts after update 4 than rank 0" in found["counts"]
        assert "rank 1 has other settings than rank 0" in found["settings"]
        assert "rank 1 has other weights after update 8 than rank 0" in found["bit"]
    assert Checkpoints(out / "bit" / "0" / "checkpoints").steps() == [4]  # nothing wrong is saved
