"""`lvae study` as a whole."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lvae.encode.scenes.make import write_scenes
from tests.conftest import lvae_process
from tests.pipeline.faults import wait_for


@pytest.mark.slow  # some minutes
@pytest.mark.timeout(900)
def test_table_1_killed_while_it_trains_comes_out_the_same(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 200, 64, 0)
    words = ("study", "table1", tmp_path / "scenes", tmp_path / "out", "--minutes", "2", "--seeds", "1", "-n", "32")
    arm = tmp_path / "out" / "arms" / "latent-VAE"
    process = subprocess.Popen([sys.executable, "-m", "lvae", *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        wait_for("a checkpoint", lambda: [*arm.glob("seed-0/run-0/checkpoints/*/checksums.json")], 600)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    lvae_process(*words, patience=800)
    resumed = (tmp_path / "out" / "table.json").read_bytes()
    assert b"holds" in resumed or b"one seed" in resumed
    assert b"upsampling stack, autoencoder" in resumed
    assert (tmp_path / "out" / "page.html").stat().st_size > 20_000
    shutil.rmtree(arm)
    for result in (tmp_path / "out" / "results").glob("latent-VAE-*"):
        result.unlink()
    lvae_process(*words, patience=800)
    assert (tmp_path / "out" / "table.json").read_bytes() == resumed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_guidance_is_chosen_by_other_seeds_and_compared(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 200, 32, 0)
    out = tmp_path / "out"
    words = (
        "study",
        "table3",
        tmp_path / "scenes",
        out,
        "--minutes",
        "0.2",
        "--size",
        "32",
        "--seeds",
        "2",
        "-n",
        "24",
    )
    lvae_process(*words, patience=800)
    table = json.loads((out / "table.json").read_bytes())
    (reading,) = table["readings"]
    sets = {"unguided": 2, "guided": 2, "class Gaussians": 2, "reconstructions": 1, "real pictures": 1}
    assert {arm: len(seeds) for arm, seeds in reading["figures"].items()} == sets
    assert all("network_class_agreement" in one for seeds in reading["figures"].values() for one in seeds)
    weights = re.findall(r"seed (\d): means by ([\d.]+) but at 1x1, variances by ([\d.]+)", table["chosen"])
    assert [seed for seed, _, _ in weights] == ["0", "1"]
    for seed, mean, variance in weights:
        plan = json.loads((out / f"arms/unguided/seed-{seed}/samples-guided/samples.json").read_bytes())
        lowest, *above = plan["guidance_mean"]
        assert lowest == 0 and set(above) == {float(mean)} and set(plan["guidance_variance"]) == {float(variance)}
    page = (out / "page.html").read_text()
    for shown in (
        "sample 11, guided",
        "draw 11, class Gaussians",
        "reconstruction 11",
        "picture 11 of those set aside",
    ):
        assert f'alt="{shown}"' in page
    before = (out / "table.json").read_bytes()
    (out / "table.json").unlink()
    lvae_process(*words, patience=300)
    assert (out / "table.json").read_bytes() == before
