"""`lvae score` and `lvae reference`: figures that mean what they are called, and input that is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from lvae.cli import main
from lvae.evaluate.inception import InceptionFID
from lvae.evaluate.score import gaussian_samples
from lvae.manifests.dataset import Dataset
from tests.evaluate import run_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_examples.dataset(tmp_path_factory.mktemp("data") / "dataset")


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


def test_latents_are_scored_under_names_of_their_own(data: Dataset, tmp_path: Path) -> None:
    run = run_examples.run(tmp_path / "run", data)
    lvae("sample", run, tmp_path / "s", "-n", "100", "--device", "cpu")
    done = lvae("score", "--samples", tmp_path / "s", "--reference", data.folder, "--json")
    found = json.loads(done.stdout)
    assert (found["samples"], found["reference"], found["dimensions"]) == (100, 144, 48)
    assert not {"fid", "kid", "precision", "recall"} & found.keys()
    assert found["latent_frechet_distance"] > found["linear_latent_frechet_distance"] > 0
    assert "144" not in done.stderr
    assert "100 rows" in done.stderr
    same = json.loads(lvae("score", "--samples", data.folder, "--reference", data.folder, "--json").stdout)
    assert same["latent_frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert (same["latent_precision"], same["latent_recall"]) == (1, 1)
    table = lvae("score", "--samples", data.folder, "--reference", data.folder, "--num", "50").stdout
    assert "latent frechet distance" in table


def test_the_linear_baseline_has_the_mean_and_covariance_of_each_class() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.array([0, 1], np.int32), 400)
    latents = (random.standard_normal((800, 3)) * [1, 2, 3] + labels[:, None] * 10).astype(np.float32)
    drawn = gaussian_samples(latents, labels, 40_000, 0).astype(np.float64)
    for part, rows in ((drawn[drawn[:, 0] < 5], latents[:400]), (drawn[drawn[:, 0] > 5], latents[400:])):
        np.testing.assert_allclose(part.mean(0), rows.mean(0), atol=0.1)
        np.testing.assert_allclose(np.cov(part, rowvar=False), np.cov(rows, rowvar=False), atol=0.3)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"arr_0": np.zeros((4, 8, 8, 3), np.float32)}, "whose range nobody knows"),
        ({"arr_0": np.zeros((4, 8, 8), np.uint8)}, r"where uint8 (N, H, W, 3) belongs"),
        ({"arr_0": np.zeros((1, 8, 8, 3), np.uint8)}, "too few to score"),
        ({"arr_0": np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8))}, "Fortran order"),
        ({"images": np.zeros((4, 8, 8, 3), np.uint8)}, "no array named arr_0"),
    ],
)
def test_archives_that_are_no_pictures_are_refused(
    weights: Path, tmp_path: Path, arrays: dict[str, Any], sentence: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    done = lvae("reference", tmp_path / "a.npz", tmp_path / "r.npz", "--features", weights, check=1)
    assert sentence in done.stderr
    assert not (tmp_path / "r.npz").exists()


def test_a_truncated_archive_is_refused(weights: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((4, 8, 8, 3), np.uint8))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    done = lvae("reference", tmp_path / "b.npz", tmp_path / "r.npz", "--features", weights, check=1)
    assert "not a whole .npz file" in done.stderr


def test_latents_of_another_autoencoder_are_refused(data: Dataset, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run_examples.build(other)
    done = lvae("score", "--samples", other, "--reference", data.folder, check=1)
    assert "Score against the dataset" in done.stderr


def test_pictures_without_a_network_are_refused(data: Dataset, tmp_path: Path) -> None:
    done = lvae("score", "--samples", tmp_path / "a.npz", "--reference", data.folder, check=1)
    assert "--features FILE" in done.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file, as torch.save writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(InceptionFID().state_dict(), path)
    return path


@pytest.mark.slow  # ten passes of a network of 11 billion multiply-adds, and a covariance of 2048 x 2048
def test_pictures_are_scored_against_pictures_and_against_their_statistics(weights: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", arr_0=random.integers(0, 256, (5, 8, 8, 3), np.uint8))
    lvae("reference", tmp_path / "b.npz", tmp_path / "r.npz", "--features", weights)
    with np.load(tmp_path / "r.npz") as file:
        assert {name: file[name].shape for name in ("mu", "sigma", "mu_s", "sigma_s", "arr_0")} == {
            "mu": (2048,),
            "sigma": (2048, 2048),
            "mu_s": (2023,),
            "sigma_s": (2023, 2023),
            "arr_0": (5, 8, 8, 3),
        }
        assert (int(file["n"]), str(file["mode"]), file["mu"].dtype) == (5, "adm", np.float64)
    score = ("score", "--samples", tmp_path / "a.npz", "--features", weights, "--reference")
    found = json.loads(lvae(*score, tmp_path / "b.npz", "--json").stdout)
    assert (found["samples"], found["reference"], found["mode"]) == (5, 5, "adm")
    assert found["fid"] > 0
    done = lvae(*score, tmp_path / "r.npz", "--mode", "clean", check=1)
    assert "made with mode adm, and this is clean" in done.stderr
