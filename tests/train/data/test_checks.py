"""What is refused before anything is trained, in one line; copies of what lies elsewhere."""

import logging
from pathlib import Path

import pytest

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.data.checks import check_fits, check_shards, local_copy
from tests.manifests.dataset_examples import build, encode, flip, shard, shards_of
from tests.train.trainer_examples import model_config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents of 3x4x4, in three classes and some without."""
    folder = tmp_path_factory.mktemp("data") / "pixels"
    shard(encode(folder, pixels=True), dtype="float16")
    return folder


FITTING = {
    "resolution": 4,
    "channels": 3,
    **dict.fromkeys(("multipliers", "ffn_ratios", "groups", "encoder_blocks"), (1, 1)),
    **dict.fromkeys(("attentions", "heads"), (0, 0)),
}


def test_what_fits_is_accepted(root: Path) -> None:
    check_fits(Dataset.open(root), model_config(**FITTING))
    check_shards(Dataset.open(root))


def test_another_latent_shape_is_refused(root: Path) -> None:
    with pytest.raises(LvaeError, match="latents are 3x4x4, the model is for 4x8x8"):
        check_fits(Dataset.open(root), model_config())


def test_labels_out_of_range_are_refused(root: Path) -> None:
    with pytest.raises(LvaeError, match=r"has label 2, and the model has classes 0 to 1.*classes=3"):
        check_fits(Dataset.open(root), model_config(**FITTING, classes=2))


def test_unlabelled_latents_are_refused_for_a_model_with_classes(tmp_path: Path) -> None:
    shard(encode(tmp_path / "d", pixels=True, classes=None), dtype="float16")
    check_fits(Dataset.open(tmp_path / "d"), model_config(**FITTING))
    with pytest.raises(LvaeError, match=r"have no labels, and the model has 3 classes.*--labels"):
        check_fits(Dataset.open(tmp_path / "d"), model_config(**FITTING, classes=3))


def test_a_few_unlabelled_latents_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_fits(Dataset.open(root), model_config(**FITTING, classes=3))
    assert "20 of 144 latents have no label" in caplog.text


@pytest.mark.parametrize("format_", ["zarr", "webdataset"])
def test_a_flipped_bit_in_a_shard_is_found(tmp_path: Path, format_: str) -> None:
    build(tmp_path / "d", format=format_)
    dataset = Dataset.open(tmp_path / "d")
    name = shards_of(dataset.folder.local(""))[1].path
    flip(tmp_path / "d" / name, 700, 5)
    with pytest.raises(LvaeError, match=r"checksum.*verify --deep") as found:
        check_shards(Dataset.open(tmp_path / "d"))
    assert name in str(found.value)


def test_a_local_dataset_stays_where_it_is(root: Path) -> None:
    assert local_copy(str(root), None) == root


def test_a_remote_dataset_is_copied_with_its_checksums_and_only_once(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    copy = local_copy(f"file://{root}", tmp_path, said.append)
    dataset = Dataset.open(copy)
    check_shards(dataset)
    assert len(said) > 3
    assert (dataset.latents[:] == Dataset.open(root).latents[:]).all()
    assert not (copy / "raw").exists()
    said.clear()
    assert local_copy(f"file://{root}", tmp_path, said.append) == copy
    assert said == []


def test_an_interrupted_copy_goes_on(root: Path, tmp_path: Path) -> None:
    copy = local_copy(f"file://{root}", tmp_path)
    shards = sorted(copy.rglob("latents/c/*/0/0/0"))
    shards[0].unlink()
    shards[1].write_bytes(b"cut")
    said: list[str] = []
    local_copy(f"file://{root}", tmp_path, said.append)
    assert len(said) == 2
    check_shards(Dataset.open(copy))


def test_a_damaged_remote_shard_is_not_taken(tmp_path: Path) -> None:
    build(tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    flip(tmp_path / "d" / shards_of(dataset.folder.local(""))[0].path, 100, 1)
    with pytest.raises(LvaeError, match="checksum"):
        local_copy(f"file://{tmp_path / 'd'}", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("manifest.json"))


def test_a_remote_dataset_wants_a_cache(root: Path) -> None:
    with pytest.raises(LvaeError, match="--cache DIR"):
        local_copy(f"file://{root}", None)
