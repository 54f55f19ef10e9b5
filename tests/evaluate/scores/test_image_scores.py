"""`lvae score` and `lvae reference`: figures that mean what they are called, and input that is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from lvae.cli import main
from lvae.encode.scenes.make import write_scenes
from lvae.evaluate.inception import InceptionFID
from lvae.evaluate.scores.latent_scores import gaussian_samples
from lvae.evaluate.scores.score_table import compare, several
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
    assert set(found["verdicts"].values()) == {"not told apart: the spread of a single set is unknown"}
    same = json.loads(lvae("score", "--samples", data.folder, "--reference", data.folder, "--json").stdout)
    assert same["latent_frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert (same["latent_precision"], same["latent_recall"]) == (1, 1)
    table = lvae("score", "--samples", data.folder, "--reference", data.folder, "--num", "50").stdout
    assert "latent Fréchet distance, corrected" in table and "real against real" in table


def test_sets_of_other_seeds_have_a_spread_and_a_set_counts_once(data: Dataset, tmp_path: Path) -> None:
    run = run_examples.run(tmp_path / "run", data)
    sets: list[str | Path] = []
    for seed in range(3):
        lvae("sample", run, tmp_path / f"s{seed}", "-n", "80", "--seed", str(seed), "--device", "cpu")
        sets += ["--samples", tmp_path / f"s{seed}"]
    found = json.loads(lvae("score", *sets, "--reference", data.folder, "--json").stdout)
    alone = [
        json.loads(lvae("score", "--samples", tmp_path / f"s{n}", "--reference", data.folder, "--json").stdout)
        for n in range(3)
    ]
    for name in ("latent_frechet_distance", "latent_kernel_distance", "latent_precision"):
        values = [one[name] for one in alone]
        assert found[name] == pytest.approx(np.mean(values), rel=1e-9)
        assert found[f"{name}_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-12)
    assert found["verdicts"]["latent_kernel_distance"] == "worse"
    again = lvae("score", *sets[:2], *sets[:2], "--reference", data.folder, check=1)
    assert "the same samples as" in again.stderr


def test_an_ordering_needs_spreads_that_part() -> None:
    def line(name: str, *values: float) -> Any:
        return several(name, "", [{"latent_precision": value, "fid": value} for value in values])

    high, low, wide = line("samples", 0.8, 0.82, 0.81), line("linear", 0.5, 0.52, 0.51), line("linear", 0.2, 0.9, 0.6)
    assert compare(high, low, "latent_precision") == "better"
    assert compare(low, high, "latent_precision") == "worse"
    assert compare(high, low, "fid") == "worse"
    assert "overlap" in compare(high, wide, "latent_precision")
    assert "single set" in compare(line("samples", 0.8), low, "fid")


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
        ({"arr_0": np.zeros((4, 8, 8, 3), np.float32)}, "Pictures are uint8, 0 to 255"),
        ({"arr_0": np.zeros((4, 3, 8, 8), np.uint8)}, "channels first"),
        ({"arr_0": np.zeros((1, 8, 8, 3), np.uint8)}, "too few to score"),
        ({"arr_0": np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8))}, "Fortran's order"),
        ({"pictures": np.zeros((4, 8, 8, 3), np.uint8)}, "has no arr_0 or images, but 'pictures'"),
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
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((4, 8, 8, 3), np.uint8))
    done = lvae("score", "--samples", tmp_path / "a.npz", "--reference", data.folder, check=1)
    assert "--features FILE" in done.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file, as torch.save writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(InceptionFID().state_dict(), path)
    return path


class Colours(torch.nn.Module):
    """A feature network of a user's own: means over quarters of the picture."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "colours.pt"
    with pytest.warns(DeprecationWarning):  # torch prefers torch.export, whose files it unpickles
        torch.jit.script(Colours()).save(str(path))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_scenes(folder, 40, 32, 0)
    return folder


def test_a_network_of_ones_own_scores_any_source_under_its_own_name(own: Path, pictures: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "other", 40, 32, 1)
    score = ("score", "--features", own, "--samples")
    found = json.loads(lvae(*score, tmp_path / "other", "--reference", pictures, "--json").stdout)
    assert found["network_frechet_distance"] > 0
    assert (found["mode"], found["samples"], found["reference_pictures"]) == ("own", 40, 40)
    assert not {"fid", "kid", "precision"} & found.keys()
    assert {"real_network_frechet_distance", "real_network_frechet_distance_std"} <= found.keys()
    same = json.loads(lvae(*score, pictures, "--reference", pictures, "--json").stdout)
    assert same["network_frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert same["network_precision"] == 1
    lvae("reference", pictures, tmp_path / "r.npz", "--features", own)
    stored = json.loads(lvae(*score, tmp_path / "other", "--reference", tmp_path / "r.npz", "--json").stdout)
    assert stored["network_frechet_distance"] == pytest.approx(found["network_frechet_distance"], rel=1e-6)
    some = json.loads(
        lvae(*score, tmp_path / "other", "--reference", pictures, "--num", "20", "--metrics", "pr", "--json").stdout
    )
    assert (some["samples"], some["reference"]) == (20, 20)
    assert "network_frechet_distance" not in some
    wrong = lvae(*score, pictures, "--reference", pictures, "--metrics", "fid", check=1)
    assert "the own network has frechet, kernel, pr" in wrong.stderr


def test_mixed_sizes_need_a_crop_and_lossy_pictures_are_named(own: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(12):
        image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32 + number, 3), np.uint8))
        image.save(folder / f"{number:02}.png", "JPEG")
    score = ("score", "--features", own, "--samples", folder, "--reference", pictures)
    assert "01.png has 33x32 pixels and 00.png 32x32" in lvae(*score, check=1).stderr
    done = lvae(*score, "--size", "32", "--json")
    assert "12 of 12 pictures are JPEG or WebP" in done.stderr
    other = lvae(*score[:-1], folder, "--size", "16")
    assert "network kernel distance" in other.stdout
    assert "Fréchet" not in other.stdout and "12 rows: too few for a Fréchet distance" in other.stderr
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:300])
    assert "mixed: 05.png cannot be scored" in lvae(*score, "--size", "32", check=1).stderr


def test_what_stands_around_a_score_of_pictures(own: Path, pictures: Path, tmp_path: Path) -> None:
    lvae("encode", pictures, tmp_path / "latents", "--size", "32", "--autoencoder", "pixels-f2")
    arguments = ("--samples", pictures, "--reference", pictures, "--features", own, "--around", tmp_path / "latents")
    found = json.loads(lvae("score", *arguments, "--extrapolate", "--json").stdout)
    name = "network_frechet_distance"
    assert found[name] <= found[f"ceiling_{name}"] < found[f"linear_{name}"] < found[f"bottom_{name}"]
    assert f"{name}_infinite" in found


def test_reconstructions_are_scored_by_the_pictures_that_were_encoded(
    own: Path, pictures: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "latents"
    lvae("encode", pictures, dataset, "--size", "32", "--autoencoder", "pixels", "--mirror")
    exact = json.loads(lvae("score", "--samples", dataset, "--json").stdout)
    assert (exact["pairs"], exact["psnr_db"], exact["ssim"]) == (80, None, pytest.approx(1))
    lvae("encode", pictures, tmp_path / "half", "--size", "32", "--autoencoder", "pixels-f2")
    half = json.loads(lvae("score", "--samples", tmp_path / "half", "--features", own, "--json").stdout)
    assert 15 < half["psnr_db"] < 45
    assert 0.4 < half["ssim"] < 1
    assert half["network_frechet_distance"] > 0
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((4, 8, 8, 3), np.uint8))
    assert "only a DATASET" in lvae("score", "--samples", tmp_path / "a.npz", check=1).stderr


def test_a_file_that_torch_would_unpickle_is_refused(own: Path, pictures: Path, tmp_path: Path) -> None:
    program = torch.export.export(Colours(), (torch.zeros(2, 3, 8, 8, dtype=torch.uint8),))
    torch.export.save(program, tmp_path / "a.pt2")
    done = lvae("reference", pictures, tmp_path / "r.npz", "--features", tmp_path / "a.pt2", check=1)
    assert "never done here" in done.stderr
    (tmp_path / "b.pt").write_bytes(own.read_bytes()[:-400])
    assert lvae("reference", pictures, tmp_path / "r.npz", "--features", tmp_path / "b.pt", check=1).stderr
    assert not (tmp_path / "r.npz").exists()


@pytest.mark.parametrize("form", ["images", "grey", "flat", "compressed", "npy"])
def test_arrays_that_encode_takes_are_scored(own: Path, tmp_path: Path, form: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    np.savez(tmp_path / "plain.npz", arr_0=grey.repeat(3, axis=3))
    other, labels = tmp_path / "other.npz", np.arange(40)
    match form:
        case "images":
            np.savez(other, images=grey.repeat(3, axis=3), labels=labels)
        case "grey":
            np.savez(other, arr_0=grey)
        case "flat":
            np.savez(other, images=grey[..., 0], arr_1=labels)
        case "compressed":
            np.savez_compressed(other, arr_0=grey)
        case "npy":
            other = tmp_path / "other.npy"
            np.save(other, grey)
    for num in ((), ("--num", "30")):
        score = ("score", "--features", own, "--samples", other, "--reference", tmp_path / "plain.npz", "--json", *num)
        assert json.loads(lvae(*score).stdout)["network_frechet_distance"] == pytest.approx(0, abs=1e-9)


class Logarithm(torch.nn.Module):
    """A feature network that gives an infinite feature for a black picture."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1).log()


def test_a_picture_without_finite_features_is_named(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        torch.jit.script(Logarithm()).save(str(tmp_path / "log.pt"))
    pixels = np.random.default_rng(0).integers(100, 256, (40, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "good.npz", arr_0=pixels)
    pixels[35] = 0
    folder = tmp_path / "bad"
    folder.mkdir()
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number:02}.png")
    np.savez(tmp_path / "bad.npz", arr_0=pixels)
    lvae("encode", folder, tmp_path / "data", "--size", "16", "--autoencoder", "pixels", "--workers", "1")
    position = int(np.flatnonzero(Dataset.open(tmp_path / "data").rows == 35)[0])
    names = {folder: "35.png", tmp_path / "bad.npz": "000035", tmp_path / "data": f"position {position}"}
    network = ("--features", tmp_path / "log.pt")
    for bad, name in names.items():
        told = f"lvae: {bad}: the features of {name} are not finite"
        for sets in ((bad, tmp_path / "good.npz"), (tmp_path / "good.npz", bad)):
            assert told in lvae("score", *network, "--samples", sets[0], "--reference", sets[1], check=1).stderr
        for command in ("features", "reference"):
            assert told in lvae(command, bad, tmp_path / "o.npz", *network, check=1).stderr
            assert not (tmp_path / "o.npz").exists()
    done = lvae("score", *network, "--samples", tmp_path / "data", check=1)
    assert f"{tmp_path / 'data'}: the features of row 35 are not finite" in done.stderr


def test_statistics_that_are_not_finite_are_named(own: Path, pictures: Path, tmp_path: Path) -> None:
    lvae("reference", pictures, tmp_path / "r.npz", "--features", own)
    with np.load(tmp_path / "r.npz") as file:
        arrays = dict(file)
    score = ("score", "--features", own, "--samples", pictures, "--reference")
    for name, what in (("mu", "means"), ("sigma", "covariances")):
        changed = arrays[name].copy()
        changed[3] = np.nan
        np.savez(tmp_path / "nan.npz", **{**arrays, name: changed})
        told = lvae(*score, tmp_path / "nan.npz", check=1).stderr
        assert f"nan.npz: the {what}" in told
        assert "of feature 3 are not finite" in told
    np.savez(tmp_path / "huge.npz", **{**arrays, "mu": arrays["mu"] + 1e200})
    told = lvae(*score, tmp_path / "huge.npz", check=1).stderr
    assert f"lvae: {pictures} against {tmp_path / 'huge.npz'}: " in told
    assert told.count("\n") == 1


def test_a_latent_that_is_not_finite_is_named(data: Dataset, tmp_path: Path) -> None:
    shutil.copytree(data.folder.root, tmp_path / "data")
    found = Dataset.open(tmp_path / "data")
    np.asarray(found.latents)
    for path in (tmp_path / "data/shards").rglob("c/0/0/0/0"):
        content = bytearray(path.read_bytes())
        content[10 * 96 : 10 * 96 + 2] = np.array(np.nan, "<f2").tobytes()
        path.write_bytes(content)
    told = f"lvae: {tmp_path / 'data'}: the latents of position 10 are not finite"
    assert told in lvae("decode", tmp_path / "data", tmp_path / "o.npz", "--device", "cpu", check=1).stderr
    assert told in lvae("score", "--samples", data.folder, "--reference", tmp_path / "data", check=1).stderr
    assert told in lvae("score", "--samples", tmp_path / "data", "--reference", data.folder, check=1).stderr


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
