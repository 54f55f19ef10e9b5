"""`lvae autoencoder fit`: what need not be said again."""

import json
from pathlib import Path

from lvae.encode.training.config import FitConfig
from lvae.manifests import records
from tests.conftest import SMALL_KL, lvae


def test_a_run_keeps_the_settings_that_are_not_given_again(scenes: Path, tmp_path: Path) -> None:
    begun = FitConfig(json.loads(SMALL_KL), size=48, steps=99, kl_weight=0.5)
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "fit.json").write_bytes(records.dumps(begun))
    said = json.loads(lvae("autoencoder", "fit", scenes, tmp_path / "stage", "--dry-run", "--size", "32").stdout)
    assert (said["steps"], said["kl_weight"], said["architecture"]["kind"]) == (99, 0.5, "kl")
    assert said["size"] == 32  # which the run itself refuses, naming both
    done = lvae("autoencoder", "fit", scenes, tmp_path / "stage", "--size", "32", check=1)
    assert "was begun with size 48, not 32" in done.stderr
