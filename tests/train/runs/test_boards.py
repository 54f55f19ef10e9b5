"""Other viewers of a run's log."""

import importlib.util
from pathlib import Path

import pytest

from lvae.manifests.errors import LvaeError
from lvae.train.runs import boards
from tests.conftest import lvae_process
from tests.evaluate.run_examples import dataset


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_gets_the_log_and_takes_a_run_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    dataset(tmp_path / "latents")
    small = ("--set", "width=8", "--set", "encoder_width=8", "--batch", "8", "--log-every", "1", "--preview", "none")
    for steps in ("2", "3"):
        lvae_process("train", tmp_path / "latents", tmp_path / "run", *small, "--steps", steps, "--wandb", "hvae")
    wandb = tmp_path / "run" / "wandb"
    name = (wandb / "id.txt").read_text().strip()
    files = [path.read_bytes() for path in sorted(wandb.glob(f"offline-run-*-{name}/run-{name}.wandb"))]
    assert [data.count(b"peak_memory_bytes") > 0 for data in files] == [True, True]
    assert all(b"learning_rate" in data and b"hvae" in data for data in files)


def test_an_extra_that_is_not_there_is_told_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        LvaeError, match=r"wandb is not installed. Install the extra: pip install 'latent-vae\[wandb\]'"
    ):
        boards.check_wandb("hvae")
    boards.check_wandb(None)
