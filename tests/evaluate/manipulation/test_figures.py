"""`lvae traverse`, `interpolate`, `outpaint` and `depths`: pictures and arrays of datasets and image files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from lvae.cli import main
from lvae.evaluate.manipulation.loaded_run import LoadedRun, encode_files, read_images
from lvae.manifests.dataset import Dataset
from tests.evaluate import run_examples

torch.set_num_threads(1)

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a conditional run and one with N(0, I) on it."""
    root = tmp_path_factory.mktemp("manipulated")
    data = run_examples.dataset(root / "dataset")
    run_examples.run(root / "run", data)
    run_examples.run(root / "plain", data, run_examples.model_config(classes=0, hierarchical_prior=False))
    return root


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


def made(folder: Path, tmp_path: Path, command: str, run: str, *options: str | Path) -> Arrays:
    """Run a command on the dataset, check that its picture opens, and read its arrays."""
    out, arrays = tmp_path / "out.png", tmp_path / "out.npz"
    given = options if any(Path(str(option)).exists() for option in options) else (folder / "dataset", *options)
    lvae(command, folder / run, *given, out, "--arrays", arrays, "--device", "cpu")
    with Image.open(out) as picture:
        assert picture.width >= 480 and picture.height > 100
    with np.load(arrays) as file:
        return dict(file)


@pytest.mark.parametrize("run", ["run", "plain"])
def test_interpolations_join_each_image_with_the_next(folder: Path, tmp_path: Path, run: str) -> None:
    found = made(folder, tmp_path, "interpolate", run, "--indices", "3,0,7", "--steps", "2")
    assert found["pairs"].tolist() == [[0, 1], [1, 2]]
    assert found["latents"].shape == (2, 4, 3, 4, 4)
    assert found["pixels"].dtype == np.uint8
    for row, (first, second) in zip(found["latents"], found["pairs"], strict=True):
        np.testing.assert_array_equal(row[0], found["reconstructions"][first])
        np.testing.assert_array_equal(row[-1], found["reconstructions"][second])
    np.testing.assert_allclose(found["shares"], [0, 1 / 3, 2 / 3, 1])
    data = Dataset.open(folder / "dataset")
    np.testing.assert_array_equal(found["originals"], data.read([3, 0, 7], np.float32)[0].clip(-4, 4))


def test_all_pairs_the_arc_and_the_means(folder: Path, tmp_path: Path) -> None:
    options = ("--indices", "0-3", "--steps", "1")
    found = made(folder, tmp_path, "interpolate", "plain", *options, "--pairs", "all", "--path", "spherical")
    assert len(found["latents"]) == 6
    drawn = made(folder, tmp_path, "interpolate", "plain", *options)
    mean = made(folder, tmp_path, "interpolate", "plain", *options, "--posterior", "mean")
    assert not np.array_equal(drawn["reconstructions"], mean["reconstructions"])
    by_z, by_noise = (
        made(folder, tmp_path, "interpolate", "run", *options, "--space", space) for space in ("z", "noise")
    )
    np.testing.assert_array_equal(by_z["latents"][:, [0, -1]], by_noise["latents"][:, [0, -1]])
    assert not np.allclose(by_z["latents"][:, 1], by_noise["latents"][:, 1])


def test_everything_is_a_function_of_the_seed(folder: Path, tmp_path: Path) -> None:
    commands = {
        "traverse": ("--steps", "2", "--images", "16"),
        "interpolate": ("--indices", "0,1", "--steps", "1"),
        "outpaint": ("--indices", "0", "--draws", "1"),
        "depths": ("--indices", "0", "--images", "16"),
    }
    for command, options in commands.items():
        pictures = []
        for seed in ("5", "5", "6"):
            found = made(folder, tmp_path, command, "run", *options, "--seed", seed)
            pictures.append(((tmp_path / "out.png").read_bytes(), (tmp_path / "out.npz").read_bytes(), found))
        assert pictures[0][:2] == pictures[1][:2], command
        assert not np.array_equal(pictures[0][2]["latents"], pictures[2][2]["latents"]), command


def test_a_traversal_takes_the_most_informative_channels_or_those_named(folder: Path, tmp_path: Path) -> None:
    found = made(folder, tmp_path, "traverse", "plain", "--steps", "3", "--images", "20")
    np.testing.assert_allclose(found["across"], [-2.25, 0, 2.25])
    assert found["latents"].shape == (3, 3, 3, 4, 4)
    assert [found[f"group_and_channel_{way}"][0] for way in ("across", "down")] == [0, 1]
    drawn = f"{float(found['drawn_across'].ravel()[0])!r},0"
    out = tmp_path / "named.png"
    channel = found["group_and_channel_across"][1]
    lvae(
        "traverse", folder / "plain", out, "--channels", f"0:{channel},1:0", "--values", drawn, "--arrays",
        tmp_path / "named.npz", "--device", "cpu",
    )  # fmt: skip
    with np.load(tmp_path / "named.npz") as named:
        assert named["across"][0] == pytest.approx(float(drawn.split(",")[0]))
    done = lvae("traverse", folder / "plain", out, "--device", "cpu", check=1)
    assert "Name a DATASET after RUN, or two channels" in done.stderr
    done = lvae("traverse", folder / "plain", out, "--channels", "0:1", "--device", "cpu", check=1)
    assert "GROUP:CHANNEL" in done.stderr
    done = lvae("traverse", folder / "plain", out, "--channels", "0:0,9:9", "--device", "cpu", check=1)
    assert "groups 0 to 2 of channels 0 to 1" in done.stderr


@pytest.mark.parametrize("run", ["run", "plain"])
def test_outpainting_goes_on_at_every_side(folder: Path, tmp_path: Path, run: str) -> None:
    sides = ("--left", "1", "--right", "2", "--top", "3")
    found = made(folder, tmp_path, "outpaint", run, "--indices", "0,2", *sides)
    assert found["latents"].shape == (2, 2, 3, 7, 7)
    assert not np.array_equal(found["latents"][:, 0], found["latents"][:, 1])
    assert made(folder, tmp_path, "outpaint", run, "--indices", "0")["latents"].shape[-2:] == (4, 8)


def test_guidance_is_for_models_that_have_labels(folder: Path, tmp_path: Path) -> None:
    free = made(folder, tmp_path, "outpaint", "run", "--indices", "0")
    guided = made(folder, tmp_path, "outpaint", "run", "--indices", "0", "--guidance", "paper")
    assert not np.array_equal(free["latents"], guided["latents"])
    np.testing.assert_array_equal(free["reconstructions"], guided["reconstructions"])
    done = lvae(
        "outpaint", folder / "plain", folder / "dataset", tmp_path / "x.png", "--guidance", "paper", "--device", "cpu",
        check=1,
    )  # fmt: skip
    assert "guidance needs a model with classes" in done.stderr


def test_depths_show_a_picture_a_resolution_or_a_group_and_the_nats(folder: Path, tmp_path: Path) -> None:
    found = made(folder, tmp_path, "depths", "run", "--indices", "0,1", "--images", "16")
    assert found["groups_given"].tolist() == [0, 1, 3]
    np.testing.assert_array_equal(found["latents"][:, -1], found["reconstructions"])
    nats = tmp_path / "nats.png"
    beside = ("--beside", str(folder / "plain"), str(folder / "dataset"))
    lvae(
        "depths", folder / "run", folder / "dataset", tmp_path / "d.png", "--every-group",
        "--arrays", tmp_path / "d.npz", "--nats", nats, *beside, "--images", "16", "--device", "cpu",
    )  # fmt: skip
    with np.load(tmp_path / "d.npz") as every:
        assert every["groups_given"].tolist() == [0, 1, 2, 3]
    with Image.open(nats) as picture:
        assert picture.width >= 480 and picture.height > 200


def test_image_files_are_encoded_as_the_dataset_was(folder: Path, tmp_path: Path) -> None:
    """The pixels of a dataset's image, as a file, give the latents that the dataset has."""
    loaded = LoadedRun.open(folder / "plain")
    data = Dataset.open(folder / "dataset")
    images = read_images(loaded, data, np.array([4, 9]))
    for number, image in enumerate(images):
        Image.fromarray(image.pixels).save(tmp_path / f"{number}.png")
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for image, again in zip(images, encode_files(loaded, files), strict=True):
        np.testing.assert_allclose(again.latents, image.latents, atol=2e-3)  # float16 shards
        np.testing.assert_array_equal(again.pixels, image.pixels)
    found = made(folder, tmp_path, "interpolate", "plain", *files, "--steps", "1")
    assert found["latents"].shape == (1, 3, 3, 4, 4)


def test_labels_of_image_files_are_named(folder: Path, tmp_path: Path) -> None:
    loaded = LoadedRun.open(folder / "run")
    Image.fromarray(np.full((9, 5, 3), 90, np.uint8)).save(tmp_path / "a.png")
    assert encode_files(loaded, [tmp_path / "a.png"])[0].label == -1
    found = made(folder, tmp_path, "depths", "run", tmp_path / "a.png", "--label", "dog")
    assert found["labels"].tolist() == [1]
    done = lvae("depths", folder / "run", tmp_path / "a.png", tmp_path / "o.png", "--label", "tench", check=1)
    assert "no such class" in done.stderr and "Choose 0 to 2" in done.stderr


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    out, run, data = tmp_path / "o.png", folder / "run", folder / "dataset"
    for arguments, message in (
        (("interpolate", run, tmp_path / "broken.png", tmp_path / "broken.png", out), "cannot be used"),
        (("interpolate", run, tmp_path / "nowhere.jpg", tmp_path / "nowhere.jpg", out), "no such file or folder"),
        (("interpolate", run, data, out, "--indices", "0"), "needs two images"),
        (("interpolate", run, data, out, "--indices", "0,999"), "numbered from 0 to 143"),
        (("interpolate", run, tmp_path, out), "lies in the source"),
        (("interpolate", run, out), "Name a DATASET or image files after RUN"),
        (("depths", run, tmp_path / "broken.png", out, "--nats", tmp_path / "n.png"), "cannot be used"),
        (("depths", run, data, out, "--beside", run, data), "adds a model to the chart of --nats"),
        (("traverse", run, data, out, "--values", "a,b"), "write numbers"),
        (("depths", tmp_path / "no run", data, out), "a run is wanted"),
    ):
        done = lvae(*arguments, check=1)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert message in done.stderr
    done = CliRunner().invoke(main, ["interpolate", str(run), str(data)])
    assert done.exit_code == 2
    assert "does not end in .png" in done.stderr


def test_inspecting_a_run_measures_rate_and_active_units(folder: Path) -> None:
    done = lvae("inspect", folder / "run", folder / "dataset", "--json", "--images", "40", "--device", "cpu")
    rates = json.loads(done.stdout)["rates"]
    assert rates["images"] == 40
    assert [group["resolution"] for group in rates["groups"]] == [1, 4, 4]
    for group in rates["groups"]:
        assert group["rate_nats"] == pytest.approx(sum(group["rate_per_channel_nats"]))
        assert all(0 <= active <= group["units_per_channel"] for active in group["active_units_per_channel"])
    assert rates["rate_nats"] == pytest.approx(sum(rates["rate_per_resolution_nats"].values()))
    shown = lvae("inspect", folder / "run", folder / "dataset", "--images", "10", "--device", "cpu").stdout
    assert "active units" in shown and "update 7" in shown
    assert "3: 2 of 4x4, 1 of 1x1" in lvae("inspect", folder / "run").stdout
    done = lvae("inspect", folder / "dataset", folder / "dataset", check=1)
    assert "is no run" in done.stderr
