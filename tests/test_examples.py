"""The scripts of examples/ run as they stand."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lvae.manifests.dataset import Dataset
from tests.conftest import lvae
from tests.evaluate import run_examples

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_examples.dataset(tmp_path_factory.mktemp("examples") / "dataset")


def test_statistics_of_a_dataset(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    load("dataset_statistics")["main"](str(data.folder))
    said = capsys.readouterr().out
    assert data.classes is not None
    for part in (*data.classes, "raw mean", "correlation of channels", "longest latent"):
        assert part in said


def test_from_a_checkpoint_to_pictures(data: Dataset, scenes: Path, tmp_path: Path) -> None:
    run = run_examples.run(tmp_path / "run", data)
    images = [str(path) for path in sorted(scenes.rglob("*.png"))[:2]]
    load("pictures")["main"](str(run), str(tmp_path / "out"), *images)
    made = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {"samples.png", "one-class.png", "reconstructions.png", "between.png", "mirrored.png"} <= made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_diffusion_model_trains_on_our_shards(scenes: Path, tmp_path: Path) -> None:
    lvae("encode", scenes, tmp_path / "latents", "--size", "32")
    options = ["--updates", "20", "--batch", "8", "--width", "16", "--steps", "4"]
    load("diffusion")["main"]([str(tmp_path / "latents"), str(tmp_path / "out"), *options])
    assert (tmp_path / "out/config.json").is_file()
    with Image.open(tmp_path / "out/samples.png") as picture:
        assert picture.width > 4 * 32


def test_the_examples_are_short() -> None:
    lines = {path.name: path.read_text().count("\n") for path in EXAMPLES.glob("*.py")}
    assert len(lines) == 3
    assert max(lines.values()) <= 125
