"""Crops as a function of their position, and which pictures are set aside."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lvae.encode.scenes.make import write_scenes
from lvae.encode.sources.subset import choose, held_out
from lvae.encode.training.config import FitConfig
from lvae.encode.training.data import PIXELS, Pictures, prepare
from lvae.manifests.storage.folder import Folder

TINY = {"kind": "tiny", "latent_channels": 3, "width": 8, "blocks": 1, "multipliers": [1, 2], "patch": 2}


def prepared(source: Path, out: Path, config: FitConfig) -> Pictures:
    index = prepare(Folder(out), str(source), config, lambda done, total: None)
    return Pictures(out / PIXELS, index, config)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures of one colour each, so that a crop tells which it is from; of many shapes."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(30):
        size = (40 + 7 * number, 120 - 2 * number)
        Image.new("RGB", size, (8 * number, 100, 200)).save(folder / f"{number:02d}.png")
    return folder


CONFIG = FitConfig(TINY, size=32, shorter_side=(40, 64), validation=0.2)


def test_every_epoch_shows_every_training_picture_once(source: Path, tmp_path: Path) -> None:
    pictures = prepared(source, tmp_path / "out", CONFIG)
    count = len(pictures.index.train)
    assert 15 < count < 30
    epochs = [[int(pictures.crop(epoch * count + i)[0, 0, 0]) // 8 for i in range(count)] for epoch in range(2)]
    trained = sorted(int(picture.key[:2]) for picture in pictures.index.train)
    assert sorted(epochs[0]) == sorted(epochs[1]) == trained
    assert epochs[0] != epochs[1]


def test_a_crop_depends_on_seed_and_position_alone(source: Path, tmp_path: Path) -> None:
    pictures = prepared(source, tmp_path / "out", CONFIG)
    forwards = [pictures.crop(position) for position in range(10)]
    again = prepared(source, tmp_path / "elsewhere", CONFIG)
    assert all(np.array_equal(forwards[p], again.crop(p)) for p in reversed(range(10)))
    assert forwards[0].shape == (3, 32, 32)
    assert forwards[0].dtype == np.uint8


def test_crops_come_from_everywhere_and_both_ways_round(tmp_path: Path) -> None:
    """A picture whose red grows to the right and whose green grows downwards."""
    ramp = np.zeros((120, 200, 3), np.uint8)
    ramp[:, :, 0], ramp[:, :, 1] = np.arange(200)[None, :], np.arange(120)[:, None]
    (tmp_path / "source").mkdir()
    Image.fromarray(ramp).save(tmp_path / "source" / "a.png")
    config = FitConfig(TINY, size=32, shorter_side=(60, 120), validation=0)
    pictures = prepared(tmp_path / "source", tmp_path / "out", config)
    crops = np.stack([pictures.crop(position) for position in range(200)]).astype(int)
    mirrored = crops[:, 0, 16, 0] > crops[:, 0, 16, -1]
    assert 0.3 < mirrored.mean() < 0.7
    middles = crops[:, 0, 16, 16]
    assert middles.min() < 40
    assert middles.max() > 160
    spans = np.abs(crops[:, 0, 16, -1] - crops[:, 0, 16, 0])  # 31 pixels at the largest size, 62 at the smallest
    assert spans.min() < 36
    assert spans.max() > 55


def test_pictures_are_opened_once(source: Path, tmp_path: Path) -> None:
    first = prepared(source, tmp_path / "out", CONFIG)
    opened: list[int] = []
    prepare(Folder(tmp_path / "out"), str(source), CONFIG, lambda done, total: opened.append(done))
    assert opened == []
    Image.new("RGB", (50, 50)).save(source / "new.png")
    index = prepare(Folder(tmp_path / "out"), str(source), CONFIG, lambda done, total: opened.append(done))
    assert len(opened) == 31
    assert len(index.train) + len(index.validation) == len(first.index.train) + len(first.index.validation) + 1


def test_stored_pictures_keep_their_shape_and_are_not_enlarged(source: Path, tmp_path: Path) -> None:
    index = prepared(source, tmp_path / "out", CONFIG).index
    sizes = {picture.key: (picture.width, picture.height) for picture in (*index.train, *index.validation)}
    assert sizes["00.png"] == (40, 120)
    assert sizes["20.png"] == (144, 64)  # was 180 x 80


@given(key=st.text(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_share_holds_out_all_that_a_smaller_one_does(key: str, shares: tuple[float, float]) -> None:
    low, high = sorted(shares)
    assert held_out(key, low) <= held_out(key, high)
    assert held_out(key, 1.0)
    assert not held_out(key, 0.0)


def test_what_is_held_out_does_not_depend_on_the_other_pictures(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 80, 16, 0)
    rows = choose(str(tmp_path / "scenes"), None, None).rows
    out = {row.key for row in rows if held_out(row.key, 0.25)}
    fewer = choose(str(tmp_path / "scenes"), None, 40).rows
    assert len(fewer) == 40
    assert {row.key for row in fewer if held_out(row.key, 0.25)} == out & {row.key for row in fewer}
    assert 8 <= len(out) <= 32
