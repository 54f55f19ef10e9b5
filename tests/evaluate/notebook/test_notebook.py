"""`from lvae import Dataset, Run`: what a notebook does with a dataset and a run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvae import Dataset, Run, __version__
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import VERSION
from tests.conftest import lvae, make_once
from tests.evaluate import run_examples


@pytest.fixture(scope="module")
def latents(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        lvae("encode", scenes, folder / "latents", "--autoencoder", "pixels", "--size", "8", "--part-size", "16")

    return make_once(tmp_path_factory, "notebook", make) / "latents"


@pytest.fixture(scope="module")
def run(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = run_examples.model_config(resolution=8, classes=8)
    return Run.open(run_examples.run(tmp_path_factory.mktemp("runs") / "run", Dataset.open(latents), config))


def test_the_names_are_there_and_nothing_heavy_is_imported_for_them() -> None:
    code = (
        "import sys, lvae; assert {'Dataset', 'Run', '__version__'} <= set(dir(lvae));"
        "assert not {'numpy', 'torch'} & set(sys.modules); lvae.Dataset; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert __version__ == VERSION
    with pytest.raises(ImportError):
        from lvae import Datasets  # type: ignore[attr-defined]  # noqa: F401


def test_a_dataset_says_what_it_is(latents: Path) -> None:
    dataset = Dataset.open(latents)
    assert dataset.shape == dataset.latents.shape == (48, 3, 8, 8)
    text = repr(dataset)
    for part in (str(latents), "48 latents of 3x8x8", "8 classes", "pixels"):
        assert part in text
    assert dataset.classes is not None
    assert len(dataset.classes) == 8


def test_a_dataset_is_indexed(latents: Path) -> None:
    dataset = Dataset.open(latents)
    one, label = dataset[5]
    assert one.shape == (3, 8, 8)
    assert label == dataset.labels[5]
    np.testing.assert_array_equal(dataset[-1][0], dataset.latents[47])
    some, labels = dataset[2:6]
    np.testing.assert_array_equal(some, dataset.read([2, 3, 4, 5])[0])
    assert labels.tolist() == dataset.labels[2:6].tolist()
    np.testing.assert_array_equal(dataset[[7, 7, -48]][0], dataset.read([7, 7, 0])[0])
    assert sum(1 for _ in dataset) == 48
    for wrong in (48, -49):
        with pytest.raises(IndexError, match="48 latents, numbered from 0 to 47"):
            dataset[wrong]


def test_a_key_names_the_image_of_its_latent(latents: Path, scenes: Path) -> None:
    dataset = Dataset.open(latents)
    assert dataset.classes is not None
    assert len(dataset.keys) == 48
    assert sorted(dataset.keys) == sorted(path.relative_to(scenes).as_posix() for path in scenes.rglob("*.png"))
    assert [key.split("/")[0] for key in dataset.keys[:]] == [dataset.classes[label] for label in dataset.labels]
    assert dataset.keys[-1] == dataset.keys[47]
    with pytest.raises(IndexError):
        dataset.keys[48]


def test_a_picture_is_what_the_latent_was_made_of(latents: Path, scenes: Path) -> None:
    dataset = Dataset.open(latents)
    picture = dataset.picture(5)
    assert picture.size == (8, 8)
    image = Image.open(scenes / dataset.keys[5]).convert("RGB").resize((8, 8), Image.Resampling.BOX)
    assert np.abs(np.asarray(picture, float) - np.asarray(image, float)).mean() < 20
    several = dataset.decode(dataset[4:6][0])
    np.testing.assert_array_equal(several.pixels[1], np.asarray(picture))
    with pytest.raises(LvaeError, match="3x8x8"):
        dataset.decode(np.zeros((4, 4)))


def test_pictures_show_themselves(run: Run, tmp_path: Path) -> None:
    pictures = run.sample(3, labels=2)
    assert pictures._repr_png_() is not None
    pictures.save(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes() == pictures._repr_png_()
    assert isinstance(pictures[0], Image.Image)
    assert np.asarray(pictures).shape == (3, 8, 8, 3)
    assert len(pictures[1:]) == 2
    assert repr(pictures) == "<3 pictures of 8x8 px>"


def test_a_run_draws_what_the_command_draws(run: Run, tmp_path: Path) -> None:
    lvae("sample", run.loaded.run, tmp_path / "samples", "-n", "5", "--seed", "3", "--guidance", "paper")
    command = Dataset.open(tmp_path / "samples")
    pictures = run.sample(5, seed=3, guidance="paper")
    np.testing.assert_allclose(pictures.latents, command[:][0], rtol=1e-3, atol=1e-3)  # values to 40, in float32
    assert pictures.labels.tolist() == command.labels.tolist()
    assert np.abs(run.sample(5, seed=3).latents - pictures.latents).max() > 1e-3
    same = run.sample(5, seed=3, guidance=((0, 1.5), 3))
    np.testing.assert_allclose(same.latents, run.sample(5, seed=3, guidance=((0, 1.5), (3, 3.0))).latents)
    assert command.keys[4] == "sample 4"


def test_labels_are_numbers_names_or_one_each(run: Run) -> None:
    assert run.classes is not None
    name = run.classes[3]
    assert run.sample(labels=[3, name, "1"]).labels.tolist() == [3, 3, 1]
    assert run.sample(2, labels=name).captions == (name, name)
    assert len(run.sample()) == 8
    for wrong, problem in ((8, "8"), ("cat", "cat"), ([1, 2, 3], "3 for 2 pictures")):
        with pytest.raises(LvaeError, match=problem):
            run.sample(2, labels=wrong)


def test_images_go_in_in_any_form(run: Run, scenes: Path) -> None:
    path = next(scenes.rglob("*.png"))
    image = Image.open(path)
    array = np.asarray(image.convert("RGB"))
    expected = run.encode(path)
    assert expected.shape == (1, 3, 8, 8)
    for form in (str(path), image, array, array[None]):
        np.testing.assert_array_equal(run.encode(form), expected)
    many = run.encode([path, image, np.stack([array, array])])
    np.testing.assert_array_equal(many, np.repeat(expected, 4, axis=0))
    back = run.decode(expected)
    np.testing.assert_array_equal(run.encode(back), expected)
    wrong = (array.astype(np.float32), array[0], 5, [], path.parent / "no.png", image.convert("I;16"))
    for images in wrong:
        with pytest.raises(LvaeError):
            run.encode(images)  # type: ignore[arg-type]


def test_an_interpolation_ends_in_the_reconstructions(run: Run, scenes: Path) -> None:
    first, second = sorted(scenes.rglob("*.png"))[:2]
    ends = run.reconstruct([first, second], labels=[0, 1], mean=True)
    way = run.interpolate(first, second, 4, labels=[0, 1], mean=True)
    np.testing.assert_array_equal(way.pixels[[0, -1]], ends.pixels)
    assert way.labels.tolist() == [0, 0, 1, 1]
    assert way.captions == ("0.00", "0.33", "0.67", "1.00")
    with pytest.raises(LvaeError, match="two images, not 3"):
        run.interpolate([first, first], second)


def test_a_run_that_is_none_is_said_to_be_none(latents: Path) -> None:
    with pytest.raises(LvaeError, match="is a dataset, not a run"):
        Run.open(latents)


def test_a_run_says_what_it_is(run: Run) -> None:
    for part in ("update 7", "8 px", "3x8x8", "8 classes"):
        assert part in repr(run)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": -3}, {"temperature": -1}, {"output_temperature": -0.5}])
def test_what_cannot_be_drawn_is_told(run: Run, wrong: dict[str, float]) -> None:
    with pytest.raises(LvaeError):
        run.sample(**{"count": 2, **wrong})  # type: ignore[arg-type]


def test_weights_that_are_not_there_are_told(run: Run) -> None:
    with pytest.raises(LvaeError, match="no such weights"):
        Run.open(run.loaded.run, weights="EMA")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"labels": "wolf"}, "labels='wolf': no such class, and no such file. Choose 0 to 7, "),
        ({"labels": ["wolf"]}, "labels='wolf': no such class"),
        ({"labels": 9}, "labels: 9 is not a class; they are 0 to 7"),
        ({"labels": 1.5}, "labels=1.5: is no class. Give its number or name"),
        ({"guidance": "strong"}, "guidance='strong': there is no such guidance. Give (weight of means"),
        ({"guidance": ((1, 2, 3), 1)}, "guidance='1,2,3': 3 numbers for 2 resolutions"),
        ({"temperature": "hot"}, "temperature='hot': is no number"),
    ],
)
def test_what_was_wrong_is_named_as_python_has_it(run: Run, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(LvaeError) as refused:
        run.sample(None if isinstance(wrong.get("labels"), list) else 2, **wrong)  # type: ignore[arg-type]
    assert said in str(refused.value) and "--" not in str(refused.value)


def test_a_run_and_a_dataset_taken_for_each_other_are_told(run: Run, latents: Path) -> None:
    run.loaded.run.joinpath("metrics.jsonl").touch()
    for open_wrong, place in ((Run.open, latents), (Dataset.open, run.loaded.run)):
        with pytest.raises(LvaeError, match=r"made, or open it as a (Dataset|Run)\.$"):
            open_wrong(place)


def test_a_dtype_that_is_none_is_told(latents: Path) -> None:
    dataset = Dataset.open(latents)
    for wrong in ("foo", "str", object):
        with pytest.raises(LvaeError, match="there is no such dtype of numbers"):
            dataset.read([1], wrong)
    assert dataset.read([1], "float64")[0].dtype == np.float64


def test_pictures_are_saved_as_png_alone(run: Run, tmp_path: Path) -> None:
    pictures = run.sample(1)
    for name in ("x.foo", "x.jpg", "x"):
        with pytest.raises(LvaeError, match=r"does not end in \.png\. Name it "):
            pictures.save(tmp_path / name)
    pictures.save(tmp_path / "x.png")
    pictures.save(tmp_path / "x.png")
    (tmp_path / "own.png").write_bytes(b"mine")
    with pytest.raises(LvaeError, match="no lvae command wrote it"):
        pictures.save(tmp_path / "own.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.png", "x.png"]


def test_explore_answers_a_dataset_in_the_place_of_a_run(run: Run, latents: Path) -> None:
    said = lvae("explore", latents, check=1).stderr
    assert "is a dataset, not a run. Write 'lvae explore [RUN] --dataset DATASET'." in said
    assert "is a run, not a dataset" in lvae("explore", run.loaded.run, "--dataset", run.loaded.run, check=1).stderr
