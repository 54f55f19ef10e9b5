"""`lvae study` as a whole."""

import os
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
