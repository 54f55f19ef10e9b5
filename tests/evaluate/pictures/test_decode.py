"""`lvae decode`: pictures of samples and datasets, as files, grid and archive."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from lvae.cli import main
from lvae.encode.autoencoder import load
from lvae.encode.catalogue.published import OURS
from lvae.encode.networks.base import save_safetensors
from lvae.encode.quality.fidelity import to_pixels
from lvae.evaluate.pictures.decode import find_decoder
from lvae.evaluate.pictures.positions import positions_of
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.manifests.parts.plan import UNKNOWN, AutoencoderRecord
from lvae.manifests.storage.folder import Folder
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
    assert names == [".decoded.json", "000000.png", "000005.png", "000007.png", "000008.png", "000009.png"]
    with Image.open(tmp_path / "out/000007.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected(data)[7])
    lvae("decode", data.folder, tmp_path / "grid.png", "--limit", "9", "--device", "cpu")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > grid.height
    many = ",".join(["0-143"] * 8)
    done = lvae("decode", data.folder, tmp_path / "g.png", "--indices", many, "--device", "cpu", check=1)
    assert "too many for one grid" in done.stderr


@pytest.mark.parametrize("more", [(), ("--workers", "1")], ids=["here", "workers"])
def test_pictures_are_not_written_among_other_files(data: Dataset, tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "000000.png").write_bytes(b"somebody's own")
    (tmp_path / "notes.txt").touch()
    done = lvae("decode", data.folder, tmp_path, "--limit", "1", *more, check=1)
    assert "is a folder of images (000000.png), not a place for a folder of pictures" in done.stderr
    assert (tmp_path / "000000.png").read_bytes() == b"somebody's own"


def test_levels_are_rounded_or_cut_off() -> None:
    image = torch.full((1, 3, 1, 1), 0.999)
    assert to_pixels(image, "nearest").ravel().tolist() == [255] * 3
    assert to_pixels(image, "truncate").ravel().tolist() == [254] * 3
    assert to_pixels(image * 5, "truncate").ravel().tolist() == [255] * 3


@pytest.mark.parametrize("text", ["5-3", "10", "a", "1-", "", "-1"])
def test_positions_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(LvaeError, match="--indices"):
        positions_of(text, 10, None)


def test_a_decoder_with_another_fingerprint_is_refused(tmp_path: Path) -> None:
    example = build(tmp_path / "kl", Contents(images=20, rejected=frozenset()))
    weights = example.root / f"weights/{'5' * 64}.safetensors"
    weights.unlink()
    assert "Give --weights FILE" in lvae("decode", example.root, tmp_path / "o.npz", check=1).stderr


def test_a_dataset_without_its_weights_is_decoded_by_the_package(tmp_path: Path) -> None:
    lvae("encode", "synthetic:4", tmp_path / "data", "--autoencoder", "default", "--size", "32", "--workers", "1")
    lvae("decode", tmp_path / "data", tmp_path / "with.npz", "--device", "cpu")
    shutil.rmtree(tmp_path / "data/weights")
    lvae("decode", tmp_path / "data", tmp_path / "without.npz", "--device", "cpu")
    assert (tmp_path / "with.npz").read_bytes() == (tmp_path / "without.npz").read_bytes()


def test_every_way_to_decode_compares_the_fingerprint(tmp_path: Path) -> None:
    lvae("encode", "synthetic:4", tmp_path / "data", "--autoencoder", "default", "--size", "32", "--workers", "1")
    (weights,) = (tmp_path / "data/weights").iterdir()
    network = load("default", "random:5")
    weights.write_bytes(save_safetensors(network))
    for command in (
        ("decode", tmp_path / "data", tmp_path / "o.npz"),
        ("inspect", tmp_path / "data", "--preview", tmp_path / "p.png"),
    ):
        told = lvae(*command, check=1).stderr
        assert f"weights {network.fingerprint[:12]}" in told
        assert "Give the weights that it was encoded with" in told


def test_a_url_names_a_dataset_as_a_path_does(data: Dataset) -> None:
    assert is_dataset(str(data.folder))
    assert is_dataset(f"file://{data.folder}")
    assert not is_dataset(f"file://{data.folder}/weights")
    assert not is_dataset("https://localhost:1/pictures.tar")


def test_latents_of_an_unknown_autoencoder_are_decoded_by_weights_that_fit(tmp_path: Path) -> None:
    record = AutoencoderRecord("unknown", {}, UNKNOWN, 4, 4, "sample")
    assert find_decoder(record, Folder(tmp_path), str(OURS)) is not None
    with pytest.raises(LvaeError, match="default, f=4 with 4 channels; the latents are f=16 with 4"):
        find_decoder(replace(record, downsampling_factor=16), Folder(tmp_path), str(OURS))
