"""`lvae encode --preset` and `lvae stats --preset` as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lvae.cli import main
from lvae.encode.catalogue.presets import ALIASES, PRESETS
from lvae.encode.scenes.make import write_scenes
from lvae.manifests.dataset import Dataset
from tests.conftest import lvae


@pytest.fixture(scope="module")
def church(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, and a dataset made of them by a preset and nothing else."""
    root = tmp_path_factory.mktemp("church")
    write_scenes(root / "in", 12, 64, 0)
    lvae("encode", root / "in", root / "out", "--preset", "church32-rgb")
    return root / "in", root / "out"


@pytest.mark.parametrize("name", ["imagenet256", "church256", "church256-f4", "bedroom256-f16", "church256-upsampler"])
def test_a_preset_needs_nothing_but_a_source(scenes: Path, tmp_path: Path, name: str) -> None:
    arguments = ("--preset", name, "--dry-run", "--images-per-second", "1", "--json")
    told = json.loads(CliRunner().invoke(main, ["encode", str(scenes), str(tmp_path / "out"), *arguments]).stdout)
    preset = PRESETS[ALIASES.get(name, name)]
    image, autoencoder, view = told["encoding"]["image"], told["encoding"]["autoencoder"], told["view"]
    assert (image["size"], image["crop"], image["mirrored"]) == (256, preset.crop, False)
    assert (autoencoder["name"], autoencoder["store"]) == (preset.autoencoder, "mode")
    channels = autoencoder["latent_channels"]
    if preset.normalization.startswith("{"):
        assert (view["shift"], view["scale"]) == ([preset.shift] * channels, [preset.scale] * channels)
    else:
        assert view["normalization"] == preset.normalization
    assert view["dtype"] == preset.dtype


def test_the_dataset_of_a_preset(church: tuple[Path, Path]) -> None:
    dataset = Dataset.open(church[1])
    assert dataset.latents.shape == (12, 3, 32, 32) and dataset.latents.dtype == np.uint8
    assert dataset.manifest.image.crop == "lsun"
    assert dataset.normalization.shift == (0.0,) * 3 and dataset.normalization.scale == (1.0,) * 3


def test_the_same_command_again_does_nothing(church: tuple[Path, Path]) -> None:
    before = (church[1] / "manifest.json").read_bytes()
    lvae("encode", *church, "--preset", "church32-rgb")
    assert (church[1] / "manifest.json").read_bytes() == before


def test_a_preset_over_another_dataset_is_refused(church: tuple[Path, Path]) -> None:
    assert "was made with" in lvae("encode", *church, "--preset", "imagenet256", check=1).stderr.splitlines()[-1]


def test_what_is_given_wins_and_is_announced(church: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ("--preset", "imagenet256", "--autoencoder", "pixels-f2", "--size", "32", "--normalization", "scalar")
    said = lvae("encode", church[0], tmp_path / "out", *arguments).stderr
    announced = [line for line in said.splitlines() if line.startswith("not as in preset")]
    assert len(announced) == 1 and "--size 32 instead of 256" in announced[0] and "--crop" not in announced[0]
    assert "warning: preset imagenet256 has 1000 classes, these images have 8" in said
    manifest = Dataset.open(tmp_path / "out").manifest
    assert (manifest.image.size, manifest.image.crop, manifest.normalization.kind) == (32, "adm", "scalar")


def test_a_preset_with_a_network_asks_for_weights(scenes: Path, tmp_path: Path) -> None:
    shown = lvae("encode", scenes, tmp_path / "out", "--preset", "church256", check=1).stderr
    assert "kl-f8: needs weights. Fetch them with" in shown.splitlines()[-1]
    assert not (tmp_path / "out" / "plan.json").exists()


@pytest.mark.parametrize("command", ["encode", "stats"])
def test_help_lists_the_presets_and_a_misspelt_one_is_answered(
    command: str, church: tuple[Path, Path], tmp_path: Path
) -> None:
    shown = CliRunner().invoke(main, [command, "--help"]).output
    assert all(name in shown for name in (*PRESETS, *ALIASES))
    arguments = (church[0], tmp_path / "out") if command == "encode" else (church[1],)
    line = lvae(command, *arguments, "--preset", "chuch256", check=1).stderr
    assert line.count("\n") == 1 and "Did you mean church256" in line


def test_stats_stand_beside_the_constants_of_the_paper(church: tuple[Path, Path]) -> None:
    dataset = Dataset.open(church[1])
    told = json.loads(lvae("stats", church[1], "--preset", "bedroom256-f4", "--json").stdout)["preset"]
    assert (told["name"], told["shift"], told["scale"]) == ("bedroom256-f4", 0.075, 0.84)
    first = told["channels"]["0"]
    assert first["mean_minus_shift"] == pytest.approx(dataset.statistics.mean[0] - 0.075, abs=1e-12)
    assert first["std_minus_scale"] == pytest.approx(dataset.statistics.std[0] - 0.84, abs=1e-12)
    # What a trainer would see of all channels together, from the pictures themselves.
    values = (dataset.denormalize(dataset.latents[:]).astype(np.float64) - 0.075) / 0.84
    assert told["channels"]["all"]["normalized_mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert told["channels"]["all"]["normalized_std"] == pytest.approx(values.std(), abs=1e-6)
    shown = lvae("stats", church[1], "--preset", "bedroom256-f4")
    assert "shift 0.075 and scale 0.84" in shown.stdout and f"{first['mean_minus_shift']:.6f}" in shown.stdout
    assert "warning" in shown.stderr and "vq-f4" in shown.stderr
    assert "warning" not in lvae("stats", church[1], "--preset", "church32-rgb").stderr


def test_stats_beside_constants_that_do_not_exist_are_refused(church: tuple[Path, Path]) -> None:
    assert "there are no constants" in lvae("stats", church[1], "--preset", "church256-f16", check=1).stderr
