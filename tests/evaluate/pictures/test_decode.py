"""`lvae decode`: pictures of samples and datasets, as files, grid and archive."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lvae.cli import main
from lvae.evaluate.pictures.decode import positions_of, to_uint8
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from tests.evaluate import run_examples
from tests.manifests.dataset_examples import Contents, build


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_examples.dataset(tmp_path_factory.mktemp("data") / "dataset")


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


def expected(data: Dataset) -> np.ndarray:  # type: ignore[type-arg]
    raw = data.denormalize(np.asarray(data.read(np.arange(len(data)), np.float32)[0]))
    return np.rint((raw.transpose(0, 2, 3, 1) + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("batch", ["1", "7", "1000"])
def test_an_archive_holds_every_picture_and_label_in_order(data: Dataset, tmp_path: Path, batch: str) -> None:
    out = tmp_path / "images.npz"
    lvae("decode", data.folder, out, "--batch", batch, "--device", "cpu")
    with np.load(out) as file:
        np.testing.assert_array_equal(file["arr_0"], expected(data))
        np.testing.assert_array_equal(file["arr_1"], data.labels)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


def test_chosen_pictures_become_files_and_a_grid(data: Dataset, tmp_path: Path) -> None:
    done = lvae("decode", data.folder, tmp_path / "out", "--indices", "0,5,7-9", "--device", "cpu")
    assert "5 reconstructions, levels rounded" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000000.png", "000005.png", "000007.png", "000008.png", "000009.png"]
    with Image.open(tmp_path / "out/000007.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected(data)[7])
    lvae("decode", data.folder, tmp_path / "grid.png", "--limit", "9", "--device", "cpu")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > grid.height
    many = ",".join(["0-143"] * 8)
    done = lvae("decode", data.folder, tmp_path / "g.png", "--indices", many, "--device", "cpu", check=1)
    assert "too many for one grid" in done.stderr


def test_levels_are_rounded_or_cut_off() -> None:
    image = np.full((1, 3, 1, 1), 0.999, np.float32)
    assert to_uint8(image, "nearest").ravel().tolist() == [255] * 3
    assert to_uint8(image, "truncate").ravel().tolist() == [254] * 3
    assert to_uint8(image * 5, "truncate").ravel().tolist() == [255] * 3


@pytest.mark.parametrize("text", ["5-3", "10", "a", "1-", "", "-1"])
def test_positions_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(LvaeError, match="--indices"):
        positions_of(text, 10, None)


def test_a_decoder_with_another_fingerprint_is_refused(tmp_path: Path) -> None:
    example = build(tmp_path / "kl", Contents(images=20, rejected=frozenset()))
    weights = example.root / f"weights/{'5' * 64}.safetensors"
    weights.unlink()
    assert "Give --weights FILE" in lvae("decode", example.root, tmp_path / "o.npz", check=1).stderr
