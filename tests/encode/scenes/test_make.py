import hashlib
from pathlib import Path

import numpy as np
import pytest

from lvae.encode.scenes.drawing import CLASSES
from lvae.encode.scenes.make import count_scenes, scene, write_scenes
from lvae.encode.sources.open import open_source
from lvae.manifests.errors import LvaeError
from tests.conftest import lvae


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", 20, 32, seed=3)
    write_scenes(tmp_path / "b", 20, 32, seed=3)
    write_scenes(tmp_path / "c", 20, 32, seed=4)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert not set(hashes(tmp_path / "a").values()) & set(hashes(tmp_path / "c").values())


def test_a_picture_does_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    write_scenes(tmp_path / "few", 5, 16, seed=0)
    write_scenes(tmp_path / "many", 12, 16, seed=0)
    assert hashes(tmp_path / "few").items() <= hashes(tmp_path / "many").items()


def test_classes_are_balanced_folders(tmp_path: Path) -> None:
    write_scenes(tmp_path, 8 * 3, 16, seed=0)
    source = open_source(str(tmp_path))
    labels = [row.label for row in source.rows()]
    assert source.classes == CLASSES == tuple(sorted(CLASSES))
    assert np.bincount(labels).tolist() == [3] * 8


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    told: list[int] = []
    write_scenes(tmp_path / "whole", 16, 16, seed=0)
    write_scenes(tmp_path / "cut", 16, 16, seed=0)
    removed = sorted((tmp_path / "cut/fish").iterdir())[0]
    removed.rename(removed.with_suffix(".unfinished"))
    kept = sorted((tmp_path / "cut/boat").iterdir())[0]
    before = kept.stat().st_mtime_ns
    write_scenes(tmp_path / "cut", 16, 16, seed=0, progress=told.append)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert kept.stat().st_mtime_ns == before
    assert sum(told) == 16


def test_a_world_knows_how_many_pictures_it_is_to_have(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    assert count_scenes(tmp_path) == 0
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path, 20, 8, seed=0, progress=stop)
    assert count_scenes(tmp_path) == 20
    write_scenes(tmp_path, 20, 8, seed=0)
    with pytest.raises(LvaeError, match="holds 20 pictures, and 8 are asked for"):
        write_scenes(tmp_path, 8, 8, seed=0)


def test_a_world_does_not_grow_unasked(tmp_path: Path) -> None:
    lvae("scenes", tmp_path, "--count", "8", "--size", "8")
    before = hashes(tmp_path)
    lvae("scenes", tmp_path, "--size", "8")
    assert hashes(tmp_path) == before
    assert "11 pictures of 8 px, 3 of them new" in lvae("scenes", tmp_path, "--count", "11", "--size", "8").stdout


@pytest.mark.parametrize(("size", "seed"), [(24, 0), (16, 1)])
def test_pictures_of_another_world_are_not_mixed_in(tmp_path: Path, size: int, seed: int) -> None:
    write_scenes(tmp_path, 8, 16, seed=0)
    with pytest.raises(LvaeError, match="another size, seed or share of nights"):
        write_scenes(tmp_path, 8, size, seed)


def test_nights_are_dark_and_as_many_as_asked_for(tmp_path: Path) -> None:
    by_day = [np.asarray(scene(0, i, 16), float).mean() for i in range(200)]
    some = [np.asarray(scene(0, i, 16, night=0.2), float).mean() for i in range(200)]
    dark = np.array([one < 0.4 * day for one, day in zip(some, by_day, strict=True)])
    assert 0.12 < dark.mean() < 0.28
    assert all(one == day for one, day, night in zip(some, by_day, dark, strict=True) if not night)
    assert all(np.asarray(scene(0, i, 16, night=1), float).mean() < 0.4 * by_day[i] for i in range(50))


@pytest.mark.parametrize(("there", "wanted"), [(0, 0.2), (0.2, 0), (0.2, 0.25), (0.25, 0.2), (1, 0.9)])
def test_worlds_of_other_nights_are_not_mixed(tmp_path: Path, there: float, wanted: float) -> None:
    write_scenes(tmp_path, 64, 8, seed=0, night=there)
    before = hashes(tmp_path)
    with pytest.raises(LvaeError, match="share of nights"):
        write_scenes(tmp_path, 64, 8, seed=0, night=wanted)
    write_scenes(tmp_path, 64, 8, seed=0, night=there)
    assert hashes(tmp_path) == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(LvaeError, match=r"holds thesis\.tex"):
        write_scenes(tmp_path, 8, 16, seed=0)
    with pytest.raises(LvaeError, match="not a folder"):
        write_scenes(tmp_path / "thesis.tex", 8, 16, seed=0)


@pytest.mark.parametrize(("count", "size"), [(0, 64), (8, 4), (8, 100_000)])
def test_senseless_sizes_are_refused(tmp_path: Path, count: int, size: int) -> None:
    with pytest.raises(LvaeError, match="pixels a side"):
        write_scenes(tmp_path, count, size, seed=0)


def test_pictures_of_a_class_differ_and_fill_the_range() -> None:
    pictures = np.stack([np.asarray(scene(0, 8 * i, 64)) for i in range(10)]).astype(float)
    differences = np.abs(pictures[:, None] - pictures[None]).mean((2, 3, 4))
    assert differences[~np.eye(10, dtype=bool)].min() > 10  # grey levels
    assert pictures.min() < 60
    assert pictures.max() > 230


def test_classes_can_be_told_apart_by_their_pixels() -> None:
    """A nearest class mean over 8 x 8 thumbnails is right far more often than one in eight."""
    thumbnails = np.stack([np.asarray(scene(1, i, 64).reduce(8)).ravel() for i in range(240)]).astype(float)
    means = np.stack([thumbnails[:160][i::8].mean(0) for i in range(8)])
    nearest = np.abs(thumbnails[160:, None] - means).mean(-1).argmin(-1)
    assert (nearest == np.arange(80) % 8).mean() > 0.7
