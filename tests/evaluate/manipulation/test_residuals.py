"""Residuals: what is measured is what was left out, and noise drawn from it hangs together alike."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lvae.evaluate.manipulation import residuals
from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_latents
from lvae.evaluate.manipulation.residuals import measure_residuals
from lvae.evaluate.samples import correlated_noise
from lvae.evaluate.samples.correlated_noise import CorrelatedNoise, write_residuals
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.network.noise import draw_noise
from lvae.train.runs.run import RESIDUALS, latest_checkpoint
from tests.evaluate.run_examples import latents, lvae

torch.set_num_threads(1)


def drawn(run: Path, out: Path, *options: str) -> np.ndarray:  # type: ignore[type-arg]
    lvae("sample", run, out, "--device", "cpu", "--output-temperature", "1", *options)
    return latents(out)


def test_the_covariance_is_that_of_what_is_left_out(run: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = LoadedRun.open(run)
    covariance = measure_residuals(loaded, data, 20, seed=3)
    x, labels = read_latents(loaded, data, np.arange(20))
    noise = draw_noise(loaded.model.config, [derive(3, "residuals", index) for index in range(20)])
    with torch.no_grad():
        out = loaded.model(torch.from_numpy(x), torch.from_numpy(labels), noise)
    left = ((x - out.mean.numpy()) / np.exp(out.log_variance.numpy() / 2)).reshape(20, -1)
    np.testing.assert_allclose(covariance, left.T @ left / 20, rtol=1e-4, atol=1e-4 * covariance.max())
    monkeypatch.setattr(residuals, "BATCH", 7)
    other = measure_residuals(loaded, data, 20, seed=3)
    np.testing.assert_allclose(other, covariance, rtol=1e-4, atol=1e-4 * covariance.max())
    monkeypatch.setattr(residuals, "MOST", 47)
    with pytest.raises(LvaeError, match="48 numbers, and residuals are measured up to 47"):
        measure_residuals(loaded, data, 20)


@pytest.mark.parametrize("kept", [96, 20])
def test_noise_has_the_covariance_that_it_was_given(tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, or every variance and most of what goes together."""
    fields = np.random.default_rng(0).normal(size=(500, 3, 4, 8))
    fields[:, 1] += 0.8 * np.roll(fields[:, 0], 1, axis=2)  # channels and neighbours go together
    flat = fields.reshape(500, -1)
    covariance = flat.T @ flat / 500
    monkeypatch.setattr(correlated_noise, "KEPT", kept)
    write_residuals(tmp_path, "0" * 64, covariance)
    noise = CorrelatedNoise.read(tmp_path, "0" * 64, (3, 4, 8))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([noise.draw((3, 4, 8), generator) for _ in range(20_000)]).flatten(1).double().numpy()
    found = drawn.T @ drawn / len(drawn)
    np.testing.assert_allclose(np.diag(found), np.diag(covariance), rtol=0.05)
    beside = ~np.eye(96, dtype=bool)
    missed = np.linalg.norm((found - covariance)[beside]) / np.linalg.norm(covariance[beside])
    assert missed < (0.2 if kept == 96 else 0.75)


def test_samples_take_it_where_it_was_measured(run: Path, data: Dataset, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    correlated = ("--output-noise", "correlated")
    done = lvae("sample", own, tmp_path / "s", "-n", "6", "--output-temperature", "1", *correlated, check=1)
    assert "Measure them: lvae residuals" in done.stderr
    assert not (tmp_path / "s").exists()
    lvae("residuals", "drawn-scenes", data.folder.root, check=1)  # nothing is written into the package
    done = lvae("residuals", own, data.folder.root, "-n", "20", "--device", "cpu")
    assert "over 20 latents" in done.stdout
    one = drawn(own, tmp_path / "one", "-n", "6", *correlated)
    mean = latents_of_mean(own, tmp_path)
    independent = drawn(own, tmp_path / "two", "-n", "6")
    assert np.abs(one - independent).max() > 1e-3
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(drawn(own, tmp_path / "batch", "-n", "6", "--batch", "4", *correlated), one)
    np.testing.assert_array_equal(drawn(own, tmp_path / "one", "-n", "9", *correlated)[:6], one)
    assert np.abs(one - mean).max() > 1e-3
    lvae("sample", own, tmp_path / "one", "-n", "9", "--output-temperature", "1", "--device", "cpu", check=1)


def latents_of_mean(run: Path, root: Path) -> np.ndarray:  # type: ignore[type-arg]
    done = lvae("sample", run, root / "mean", "-n", "6", "--device", "cpu", "--output-noise", "correlated")
    assert "--output-noise: is a kind of noise, and --output-temperature 0 adds none" in done.stderr
    return latents(root / "mean")


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 64])
def test_a_torn_file_is_told_in_one_line(run: Path, tmp_path: Path, content: bytes) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    weights = latest_checkpoint(own).sha256["ema.safetensors"]
    (own / RESIDUALS).mkdir()
    (own / RESIDUALS / f"{weights}.safetensors").write_bytes(content)
    asked = ("--output-temperature", "1", "--output-noise", "correlated")
    done = lvae("sample", own, tmp_path / "s", "-n", "2", "--device", "cpu", *asked, check=1)
    assert "measure anew: lvae residuals" in done.stderr
