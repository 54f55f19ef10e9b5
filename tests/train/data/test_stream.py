"""Training straight from tar shards at a URL."""

from pathlib import Path

import numpy as np
import pytest

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.data.checks import check_range, local_copy
from lvae.train.data.sources import StoredMeaning
from lvae.train.data.stream import Stream
from lvae.train.devices.device import Device
from tests.conftest import lvae
from tests.manifests.dataset_examples import Example, build
from tests.manifests.shards.test_tar_stream import put_in_memory
from tests.train.test_fit import SMALL, final, losses


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return build(tmp_path_factory.mktemp("tars"), format="webdataset")


@pytest.fixture(scope="module")
def url(tars: Example) -> str:
    return put_in_memory(tars.root, "memory://train/tars")


def stream(dataset: Dataset) -> Stream:
    return Stream(dataset, 1, StoredMeaning(dataset, Device()))


def test_tars_at_a_url_need_no_copy(url: str, tmp_path: Path) -> None:
    assert local_copy(url, None) == url
    build(tmp_path / "zarr")
    with pytest.raises(LvaeError, match=r"--cache DIR, or make a view of tar shards\.$"):
        local_copy(put_in_memory(tmp_path / "zarr", "memory://train/zarr"), None)


def test_every_epoch_holds_every_latent_once_in_another_order(tars: Example, url: str) -> None:
    count = len(tars.open())
    latents, labels = stream(Dataset.open(url)).take(0, 2 * count)
    whole = sorted(latent.tobytes() for latent in np.asarray(tars.open().latents))
    epochs = [[latent.tobytes() for latent in latents[start : start + count].numpy()] for start in (0, count)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == whole and epochs[0] != epochs[1]
    assert sorted(labels[:count].tolist()) == sorted(tars.open().labels.tolist())


@pytest.mark.parametrize("first", [0, 1, 63, 64, 65, 143, 144, 200])
def test_the_sequence_is_the_same_from_any_position_and_in_any_slices(url: str, first: int) -> None:
    dataset = Dataset.open(url)
    latents, labels = stream(dataset).take(0, 260)
    one = stream(dataset)
    for start in range(first, first + 40, 10):  # this rank's five of every ten
        mine, names = one.take(start + 5, 5)
        np.testing.assert_array_equal(mine, latents[start + 5 : start + 10])
        np.testing.assert_array_equal(names, labels[start + 5 : start + 10])


def test_a_label_that_the_model_does_not_have_is_refused() -> None:
    check_range(np.array([-1, 0, 2]), 3)
    check_range(np.array([7]), 0)
    with pytest.raises(LvaeError, match="has label 3, and the model has classes 0 to 2"):
        check_range(np.array([0, 3]), 3)


def test_a_run_on_tars_at_a_url_is_cut_and_goes_on_bit_for_bit(latents: Path, tmp_path: Path) -> None:
    lvae("shard", latents, "--out", tmp_path / "tars", "--format", "webdataset", "--shard-size", "64")
    url = f"file://{tmp_path / 'tars'}"
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    common = ("--preset", "tiny", "--device", "cpu", "--preview", "none", "--validate-every", "4", "--log-every", "2")
    for run, steps in (("whole", 12), ("cut", 4), ("cut", 12)):
        more = [word for setting in settings for word in ("--set", setting)]
        lvae("train", url, tmp_path / run, *common, *more, "--steps", steps)
    assert final(tmp_path / "cut") == final(tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
