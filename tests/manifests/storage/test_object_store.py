"""A dataset that was copied to a store is opened and verified where it lies."""

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import object_store as storage_remote
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.verify.recompute import regenerated
from lvae.manifests.verify.verify import verify
from lvae.manifests.views import gather
from lvae.manifests.views.gather import WantedRows, read_rows
from lvae.pipeline.engines.supervise import PHASE_SECONDS
from tests.manifests.dataset_examples import build

URL = "memory://bucket/dataset"
NAMES = ("part.npy", "other.npy")


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


def test_what_is_not_a_dataset_is_not_written_to_a_url() -> None:
    with pytest.raises(LvaeError, match="Name a local path"):
        Folder(URL)


@pytest.fixture
def empty() -> Iterator[RemoteFolder]:
    yield RemoteFolder("memory://bucket/empty")
    with suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_file_is_there_whole_or_not_at_all(empty: RemoteFolder) -> None:
    with empty.writer() as unfinished:
        unfinished.file.write(b"one")
        assert list(empty.names()) == []
        record = unfinished.commit("a/file")
    with pytest.raises(RuntimeError), empty.writer() as unfinished:
        unfinished.file.write(b"two")
        raise RuntimeError
    assert list(empty.names()) == ["a/file"]
    assert empty.record("a/file") == record
    assert empty.local("a/file").read_bytes() == b"one"
    empty.write("a/file", b"another")
    assert empty.local("a/file").read_bytes() == b"another"  # what was fetched before is forgotten


def test_what_is_removed_is_gone_and_what_is_not_there_is_no_error(empty: RemoteFolder) -> None:
    for name in ("a/1", "a/2", "b"):
        empty.write(name, b"x")
    empty.remove("a")
    empty.remove("nothing")
    assert list(empty.names()) == ["b"]
    empty.remove("b")
    assert (empty.size("b"), empty.read_if_there("b"), empty.exists("b")) == (None, None, False)


def test_rows_come_without_the_rest_of_the_file(empty: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).standard_normal((500, 4, 8, 8), np.float32)
    data = io.BytesIO()
    np.lib.format.write_array(data, array, version=(1, 0))
    empty.write("part.npy", data.getvalue())
    empty.write("other.npy", data.getvalue())

    def read(*wanted: list[int]) -> NDArray[np.float32]:
        files = [WantedRows(name, 500, np.array(rows)) for name, rows in zip(NAMES, wanted, strict=False)]
        return np.concatenate(list(read_rows(empty, files, array.shape[1:], array.dtype)))

    for wanted in ([0], [499], [3, 3, 4], [0, 100, 200, 499], list(range(500))):
        np.testing.assert_array_equal(read(wanted), array[wanted])
        np.testing.assert_array_equal(read(wanted, [7]), array[[*wanted, 7]])
    monkeypatch.setattr(gather, "WINDOW_BYTES", 1)
    np.testing.assert_array_equal(read([1, 499], [7]), array[[1, 499, 7]])
    empty.write("part.npy", data.getvalue()[:-1])
    with pytest.raises(LvaeError, match="is cut short"):
        read([499])


def test_s3_keeps_a_connection_for_every_piece_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def connections() -> int:
        return int(storage_remote._settings("s3://bucket/dataset")["config_kwargs"]["max_pool_connections"])

    assert connections() == storage_remote.PIECES_AT_ONCE
    assert storage_remote._settings(URL) == {}
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"max_pool_connections": 5}})
    assert connections() == 5


def test_only_the_pieces_that_failed_are_asked_for_again(empty: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.write("a", b"0123456789")
    monkeypatch.setattr(storage_remote, "DELAYS", (0.001, 0.001))
    asked: list[int] = []
    cat_file = empty._files.cat_file

    def cat(path: str, start: int, stop: int) -> bytes:
        asked.append(start)
        if start == 4 and asked.count(4) < 3:
            raise OSError("503")
        return bytes(cat_file(path, start, stop))

    monkeypatch.setattr(empty._files, "cat_file", cat)
    assert empty.read_pieces([("a", 0, 2), ("a", 4, 6), ("a", 8, 10)]) == [b"01", b"45", b"89"]
    assert asked == [0, 4, 8, 4, 4]
    assert empty.read_pieces([]) == []


def test_many_looks_come_in_order(empty: RemoteFolder) -> None:
    assert list(empty.each(lambda number: number * 2, range(200))) == list(range(0, 400, 2))


def test_a_store_that_fails_now_and_then_is_asked_again(empty: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.write("a", b"x")
    monkeypatch.setattr(storage_remote, "DELAYS", (0.001, 0.001))
    answers: list[Exception | bytes] = [TimeoutError("slow"), OSError("503"), b"x"]

    def cat(_: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(empty._files, "cat_file", cat)
    assert empty.read("a") == b"x"
    answers[:] = [OSError("503")] * 3
    with pytest.raises(OSError, match="503"):
        empty.read("a")
    answers[:] = [PermissionError("Forbidden")]
    with pytest.raises(LvaeError, match="Check the credentials"):
        empty.read("a")


def test_an_unknown_kind_of_url_is_refused_in_one_line() -> None:
    with pytest.raises(LvaeError, match="nonsense"):
        folder_at("nonsense://bucket/dataset")


def test_requests_to_s3_give_up_before_a_worker_that_waits_for_them() -> None:
    seconds = storage_remote._settings("s3://bucket/dataset")["config_kwargs"]["read_timeout"]
    tries_of_s3fs = 5
    together = (len(storage_remote.DELAYS) + 1) * tries_of_s3fs * seconds + 2 * sum(storage_remote.DELAYS)
    assert together < min(PHASE_SECONDS["reading"], PHASE_SECONDS["writing"])
