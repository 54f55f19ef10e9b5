"""A dataset that was copied to a store is opened and verified where it lies."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from dataset_examples import build

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.regeneration import regenerated
from lvae.manifests.storage import Folder, folder_at
from lvae.manifests.verification import verify

URL = "memory://bucket/dataset"


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[Path]:
    """A dataset here and its copy on a store in this process's memory."""
    files = fsspec.filesystem("memory")
    build(tmp_path / "dataset")
    files.put(str(tmp_path / "dataset"), "/bucket/dataset", recursive=True)
    yield tmp_path / "dataset"
    files.rm("/bucket", recursive=True)


def test_a_copy_verifies_deep(copied: Path) -> None:
    assert verify(folder_at(URL), deep=True) == []


def test_a_damaged_copy_does_not(copied: Path) -> None:
    files = fsspec.filesystem("memory")
    name = next(path for path in files.find("/bucket/dataset/raw") if path.endswith(".npy"))
    data = bytearray(files.cat_file(name))
    data[-1] ^= 1
    files.pipe_file(name, bytes(data))
    assert [fault.where for fault in verify(folder_at(URL), deep=True)] == [name.removeprefix("/bucket/dataset/")]


def test_a_copy_is_read_like_the_original(copied: Path) -> None:
    here, there = Dataset.open(copied), Dataset.open(URL)
    indices = np.arange(len(here))[::-1]
    np.testing.assert_array_equal(there.read(indices)[0], here.read(indices)[0])
    assert regenerated(URL).largest_difference() == 0


def test_a_dataset_is_not_written_to_a_url() -> None:
    with pytest.raises(LvaeError, match="Name a local path"):
        Folder(URL)


def test_an_unknown_kind_of_url_is_refused_in_one_line() -> None:
    with pytest.raises(LvaeError, match="nonsense"):
        folder_at("nonsense://bucket/dataset")
