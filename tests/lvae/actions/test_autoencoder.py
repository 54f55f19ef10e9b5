"""`lvae autoencoder fit`: what need not be said again."""

import json
from pathlib import Path

from lvae.encode.sources.subset import choose
from lvae.encode.training.config import FitConfig
from lvae.manifests import records
from tests.conftest import SMALL_KL, lvae


def test_a_run_keeps_the_settings_that_are_not_given_again(scenes: Path, tmp_path: Path) -> None:
    begun = FitConfig(json.loads(SMALL_KL), size=48, steps=99, kl_weight=0.5)
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "fit.json").write_bytes(records.dumps(begun))
    said = json.loads(lvae("autoencoder", "fit", scenes, tmp_path / "stage", "--dry-run", "--size", "32").stdout)
    assert (said["steps"], said["kl_weight"], said["architecture"]["kind"]) == (99, 0.5, "kl")
    assert "without_keys" not in said  # nor in what was begun before it was a setting
    assert said["size"] == 32  # which the run itself refuses, naming both
    done = lvae("autoencoder", "fit", scenes, tmp_path / "stage", "--size", "32", check=1)
    assert "was begun with size 48, not 32" in done.stderr


def test_keys_to_report_on_are_left_out_altogether(scenes: Path, tmp_path: Path) -> None:
    keys = [row.key for row in choose(str(scenes), None, None).rows]
    (tmp_path / "keys.txt").write_text(f"{keys[1]}\n{json.dumps(keys[3])}\n")
    fit = ("autoencoder", "fit", scenes, tmp_path / "stage", "--dry-run", "--without-keys")
    said = json.loads(lvae(*fit, tmp_path / "keys.txt").stdout)
    left = [row.key for row in choose(str(scenes), None, None, tuple(said["without_keys"])).rows]
    assert left == [key for key in keys if key not in (keys[1], keys[3])]
    (tmp_path / "keys.txt").write_text("nobody.png\n")
    assert "no image has 1 of these 1 key, 'nobody.png' for one" in lvae(*fit, tmp_path / "keys.txt", check=1).stderr
