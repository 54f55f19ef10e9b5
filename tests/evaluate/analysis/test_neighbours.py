"""`lvae neighbours`: the nearest training latents, found in one pass, and their pictures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lvae.cli import main
from lvae.evaluate.analysis import neighbours as near
from lvae.evaluate.analysis.neighbour_figures import judge
from lvae.evaluate.analysis.neighbours import Queries
from lvae.evaluate.pictures.decode import decode, load_decoder
from lvae.evaluate.pictures.originals import Originals
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from tests.conftest import lvae_process
from tests.evaluate import run_examples


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """pictures/, and dataset/ of them and their mirror images, encoded by no network at all."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(scenes, folder / "pictures")
    options = ("--autoencoder", "pixels", "--size", "32", "--mirror")
    lvae_process("encode", folder / "pictures", folder / "dataset", *options)
    return folder


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


def queries(dataset: Dataset, *positions: int) -> Queries:
    return Queries.of_dataset(dataset, np.array(positions))


def test_all_are_found_as_by_measuring_every_distance(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "READ_ROWS", 7)
    data = Dataset.open(world / "dataset")
    latents = data.normalization.normalize(data.denormalize(data.read(np.arange(len(data)))[0]), "float32")
    flat = np.asarray(latents, np.float64).reshape(len(data), -1)
    distances = np.linalg.norm(flat[[3, 11, 50], None] - flat[None], axis=2)
    found = near.find_neighbours(queries(data, 3, 11, 50), data, near.Search(5), load_decoder(data))
    rows = np.asarray(data.rows)
    nearer = distances <= np.stack([distances[:, rows == row].min(1) for row in rows], axis=1)  # of image and mirror
    expected = np.argsort(np.where(nearer, distances, np.inf), axis=1)[:, :5]
    assert [[one.position for one in nearest] for nearest in found.found] == expected.tolist()
    lengths = [[one.distance for one in nearest] for nearest in found.found]
    np.testing.assert_allclose(lengths, np.take_along_axis(distances, expected, 1), atol=1e-4)
    assert lengths[0][0] < 1e-4 < lengths[0][1]
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2) + np.where(rows[:, None] == rows, np.inf, 0)
    assert found.searched == len(data) == 96
    assert found.typical == pytest.approx(np.median(apart.min(1)), rel=1e-5)


def test_originals_are_the_pixels_that_were_encoded(world: Path) -> None:
    data = Dataset.open(world / "dataset")
    decoded = decode(load_decoder(data), data.denormalize(data.read(np.arange(20))[0]))
    with Originals(data) as originals:
        for pixels, row, mirrored in zip(decoded, data.rows[:20], data.mirrored[:20], strict=True):
            np.testing.assert_array_equal(originals.open(int(row), bool(mirrored)), pixels)


def test_pictures_come_from_the_source_or_are_marked_as_reconstructions(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "dataset", tmp_path / "dataset")
    arguments = (tmp_path / "dataset", tmp_path / "dataset", tmp_path / "out.png", "-n", "3", "-k", "2", "--json")
    done = lvae("neighbours", *arguments)
    found = json.loads(done.stdout)
    assert (found["space"], found["searched"], found["pictures"]) == ("latent", 96, "source")
    first = found["samples"][0]["neighbours"][0]
    assert (first["position"], first["distance"] < 1e-3) == (0, True)
    assert (world / "pictures" / first["key"]).is_file()
    with Image.open(tmp_path / "out.png") as before:
        shutil.move(world / "pictures", world / "elsewhere")
        try:
            done = lvae("neighbours", *arguments)
        finally:
            shutil.move(world / "elsewhere", world / "pictures")
        assert json.loads(done.stdout)["pictures"] == "reconstructions"
        with Image.open(tmp_path / "out.png") as after:
            assert before.size == after.size


def test_samples_of_a_run_are_drawn_and_guided(tmp_path: Path) -> None:
    data = run_examples.dataset(tmp_path / "dataset")
    run = run_examples.run(tmp_path / "run", data)
    arguments = (
        "neighbours",
        run,
        data.folder,
        tmp_path / "out.png",
        "-n",
        "4",
        "-k",
        "3",
        "--device",
        "cpu",
        "--json",
    )
    plain = json.loads(lvae(*arguments).stdout)
    guided = json.loads(lvae(*arguments, "--guidance", "paper").stdout)
    lvae("sample", run, tmp_path / "samples", "-n", "4", "--device", "cpu")
    stored = json.loads(lvae("neighbours", tmp_path / "samples", *arguments[2:]).stdout)
    assert plain["samples"] == stored["samples"] != guided["samples"]
    assert "guidance of means" in guided["samples_are"]
    assert [one["label"] for one in plain["samples"]] == [0, 1, 2, 0]
    assert "Leave it out" in lvae(*arguments, "--indices", "3", check=1).stderr


def test_latents_of_another_autoencoder_are_refused(world: Path, tmp_path: Path) -> None:
    other = run_examples.dataset(tmp_path / "other")
    done = lvae("neighbours", other.folder, world / "dataset", tmp_path / "out.png", check=1)
    assert "Give the dataset that the model was trained on" in done.stderr
    with pytest.raises(LvaeError, match="too few"):
        near.find_neighbours(queries(other, 0), other, near.Search(200), load_decoder(other))
    assert "not a run or samples" in lvae("neighbours", tmp_path, other.folder, "o.png", check=1).stderr


def test_an_image_and_its_mirror_image_count_once(world: Path) -> None:
    data = Dataset.open(world / "dataset")
    assert data.mirrored.any()
    found = near.find_neighbours(queries(data, 0, 1, 2), data, near.Search(12), load_decoder(data))
    for nearest in found.found:
        assert len({one.row for one in nearest}) == len(nearest) == 12
        assert [one.distance for one in nearest] == sorted(one.distance for one in nearest)


def test_copies_are_told_from_new_pictures(world: Path) -> None:
    data = Dataset.open(world / "dataset")
    copies = near.find_neighbours(queries(data, 0, 1, 2), data, near.Search(2), load_decoder(data))
    assert judge((0, 1, 2), copies).startswith(
        "3 of 3 samples may be copies (#0, #1, #2): clearly nearer to a training image"
    )
    far = replace(copies, found=tuple((replace(one[0], distance=copies.real[-1]), *one[1:]) for one in copies.found))
    assert judge((0, 1, 2), far).startswith("No copies among 3 samples: the nearest to a training image, #0, is")
    assert f"{len(far.real) - 1} are nearer than that to another one" in judge((0, 1, 2), far)


def test_a_dataset_that_the_model_was_not_trained_on_is_told(world: Path, tmp_path: Path) -> None:
    run = run_examples.run(
        tmp_path / "run", Dataset.open(world / "dataset"), run_examples.model_config(resolution=32, classes=8)
    )
    assert near.describe_strange(run, Dataset.open(world / "dataset")) is None
    lvae("shard", world / "dataset", "--seed", "1", "--out", str(tmp_path / "other"))
    warning = near.describe_strange(run, Dataset.open(tmp_path / "other"))
    assert warning is not None
    assert "not what the model was trained on" in warning
