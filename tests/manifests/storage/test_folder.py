import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import FileRecord, Folder, HashingFile
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.storage.open import folder_at
from tests.manifests.dataset_examples import files_of


def test_a_file_is_written_and_recorded(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "dataset")
    record = folder.write("a/b/file", b"bytes")
    assert record == FileRecord("a/b/file", 5, hashlib.sha256(b"bytes").hexdigest())
    assert folder.record("a/b/file") == record
    assert folder.read("a/b/file") == b"bytes"
    assert folder.size("a/b/file") == 5 and folder.exists("a/b/file")


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    record = folder.write("file", (bytes([number]) * number for number in range(100)))
    assert record == folder.record("file") and record.bytes == sum(range(100))


def test_nothing_appears_before_the_commit(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.writer() as unfinished:
        unfinished.file.write(b"half")
        assert [name for name in files_of(tmp_path) if not name.startswith(".tmp/")] == []
        unfinished.file.write(b" and half")
        unfinished.commit("file")
        assert folder.read("file") == b"half and half"
    assert files_of(tmp_path) == {"file": b"half and half"}


def test_nothing_is_left_of_a_writer_that_did_not_commit(tmp_path: Path) -> None:
    with Folder(tmp_path).writer() as unfinished:
        unfinished.file.write(b"x" * 10**6)
    assert files_of(tmp_path) == {}


def test_nothing_is_left_after_an_exception(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(ZeroDivisionError):
        folder.write("file", (bytes([1 // (3 - number)]) for number in range(10)))
    with pytest.raises(ZeroDivisionError), folder.writer() as unfinished:
        unfinished.file.write(b"x")
        raise ZeroDivisionError
    assert files_of(tmp_path) == {}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("file", b"old")
    with pytest.raises(ZeroDivisionError):
        folder.write("file", (bytes([1 // (3 - number)]) for number in range(10)))
    assert files_of(tmp_path) == {"file": b"old"}


def test_writing_over_a_file_replaces_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("file", b"a long first version")
    with folder.local("file").open("rb") as reading:
        assert folder.write("file", b"short") == folder.record("file")
        assert reading.read() == b"a long first version"  # who has it open keeps what was there
    assert folder.read("file") == b"short"


def test_two_files_can_be_written_at_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.writer() as first, folder.writer() as second:
        first.file.write(b"1")
        second.file.write(b"2")
        second.commit("b")
        first.commit("a")
    assert files_of(tmp_path) == {"a": b"1", "b": b"2"}


KILLED = """
import os, sys
from lvae.manifests.storage.folder import Folder
with Folder(sys.argv[1]).writer() as unfinished:
    unfinished.file.write(bytes(10**6))
    print("half", flush=True)
    {end}
    unfinished.commit("file")
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "import time; time.sleep(60)"], ids=["exit", "kill -9"])
def test_a_killed_writer_leaves_no_file_and_what_it_left_is_swept(tmp_path: Path, end: str) -> None:
    folder = Folder(tmp_path)
    folder.write("other", b"stays")
    command = [sys.executable, "-c", KILLED.format(end=end), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not folder.exists("file")
    assert [name for name in files_of(tmp_path) if name.startswith(".tmp/")]
    folder.sweep()
    assert files_of(tmp_path) == {"other": b"stays"} and not folder.exists(".tmp")


def test_sweeping_nothing_is_no_error(tmp_path: Path) -> None:
    Folder(tmp_path / "not there").sweep()
    Folder(tmp_path).sweep()


def test_names_are_sorted_and_relative_to_the_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("b/2", "b/10", "a", "c/d/e", "b/1"):
        folder.write(name, b"")
    folder.sweep()
    assert list(folder.names()) == ["a", "b/1", "b/10", "b/2", "c/d/e"]
    assert list(folder.names("b")) == ["b/1", "b/10", "b/2"]
    assert list(folder.names("nothing")) == []


def test_what_is_not_there_has_no_size_and_no_bytes(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write("file", b"x")
    for name in ("nothing", "no/thing", "file/below"):
        assert folder.size(name) is None and folder.read_if_there(name) is None and not folder.exists(name)
    with pytest.raises(FileNotFoundError, match="nothing"):
        folder.record("nothing")


def test_files_and_folders_are_removed_and_removing_nothing_is_no_error(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for name in ("file", "sub/a", "sub/b/c", "kept"):
        folder.write(name, b"")
    for name in ("file", "sub", "nothing", "file"):
        folder.remove(name)
    folder.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    outside = Folder(tmp_path / "outside")
    outside.write("precious", b"x")
    folder = Folder(tmp_path / "dataset")
    folder.write("file", b"")
    (folder.root / "link").symlink_to(outside.root)
    folder.remove("link")
    assert not folder.exists("link") and outside.exists("precious")


HOSTILE = ["/etc/passwd", "../victim", "a/../../victim", "a//b", "a/./b", "..", ".", "a/", "/", "a\0b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_out_are_refused_whatever_is_done_with_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_bytes(b"kept")
    for folder in (Folder(tmp_path / "dataset"), RemoteFolder("memory://bucket/hostile")):
        folder.write("file", b"")
        for use in (folder.read, folder.size, folder.exists, folder.remove, folder.sha256, folder.local):
            with pytest.raises(LvaeError, match="is no name of a file in this folder"):
                use(name)
        for use in (lambda name, to=folder: to.write(name, b""), lambda name, to=folder: list(to.names(name))):
            with pytest.raises(LvaeError, match="is no name of a file in this folder"):
                use(name)
        assert list(folder.names("file")) in (["file"], [])
    assert (tmp_path / "victim/file").read_bytes() == b"kept"


@pytest.mark.parametrize("link", ["file", "sub/file", "sub"])
def test_links_that_lead_out_are_not_followed(tmp_path: Path, link: str) -> None:
    victim, folder = tmp_path / "victim", Folder(tmp_path / "dataset")
    (victim / "file").mkdir(parents=True)
    folder.write("sub/other", b"")
    if link == "sub":
        folder.remove("sub")
    (folder.root / link).symlink_to(victim if link == "sub" else victim / "file")
    name = "sub/file" if link == "sub" else link
    for use in (
        folder.read,
        folder.size,
        lambda name: folder.write(f"{name}/x", b""),
        lambda name: [*folder.names(name)],
    ):
        with pytest.raises(LvaeError, match="is a link to a place outside"):
            use(name)
    assert not any((victim / "file").iterdir())


def test_a_link_to_nothing_makes_no_file_elsewhere(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "dataset")
    folder.root.mkdir()
    (folder.root / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(LvaeError, match="is a link to a place outside"), writing(folder):
        pass
    assert not (tmp_path / "made").exists()


def test_links_inside_of_a_folder_are_followed(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "dataset")
    folder.write("a/file", b"x")
    (folder.root / "b").symlink_to("a")
    (tmp_path / "link").symlink_to(folder.root)
    assert folder.read("b/file") == Folder(tmp_path / "link").read("b/file") == b"x"


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(LvaeError, match="is neither a file nor a folder"):
        Folder(tmp_path).read("manifest.json")


def test_a_created_file_stays_whoever_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    for folder in (Folder(tmp_path / "a"), Folder(tmp_path / "b"), RemoteFolder("memory://bucket/created")):
        if folder.root.name == "b":
            monkeypatch.setattr(os, "link", no_links)
        assert folder.create("sub/file", b"first") and not folder.create("sub/file", b"second")
        with folder.writer() as unfinished:
            unfinished.file.write(b"third")
            assert unfinished.create("sub/file") is None
            assert unfinished.create("sub/other") == folder.record("sub/other")
        assert folder.read("sub/file") == b"first"
        folder.sweep()
        assert list(folder.names()) == ["sub/file", "sub/other"]
        folder.remove("sub")


def test_every_level_that_is_made_is_flushed_before_what_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, fsync = list[str](), os.fsync

    def remembers(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remembers)
    Folder(tmp_path / "new/deep/dataset").write("raw/000000/part", b"x")
    levels = ["", "/new", "/new/deep", "/new/deep/dataset", "/new/deep/dataset/raw", "/new/deep/dataset/raw/000000"]
    assert {f"{tmp_path}{level}" for level in levels} <= set(flushed)
    assert flushed[-1] == f"{tmp_path}{levels[-1]}"


@pytest.mark.parametrize("url", ["sftp://host/d", "http://host/d", "ftp://h/d", "webhdfs://h/d", "zip://a::s3://b/c"])
def test_stores_without_conditional_writes_are_refused_in_one_line(url: str) -> None:
    with pytest.raises(LvaeError, match=r"a dataset cannot lie in such a place\. Name a local path, or one of s3://"):
        folder_at(url)


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    folder_at(f"file://{tmp_path}/a%20b").write("file", b"x")
    assert (tmp_path / "a b/file").read_bytes() == b"x"


@pytest.mark.parametrize("root", ["gs://bucket/dataset", "s3://bucket", "memory://x"])
def test_urls_are_refused_in_one_line(root: str) -> None:
    with pytest.raises(LvaeError, match=rf"^{root}: .*Name a local path[^\n]*\.$"):
        Folder(root)


@given(st.lists(st.binary(max_size=50)))
def test_a_hashing_file_counts_and_hashes_what_passes(pieces: list[bytes]) -> None:
    import io

    target = io.BytesIO()
    file = HashingFile(target)
    for piece in pieces:
        assert file.write(memoryview(piece)) == len(piece)
    data = b"".join(pieces)
    assert (target.getvalue(), file.bytes, file.tell()) == (data, len(data), len(data))
    assert file.sha256 == hashlib.sha256(data).hexdigest()


def test_arrays_are_hashed_as_their_bytes(tmp_path: Path) -> None:
    import numpy as np

    folder = Folder(tmp_path)
    values = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert folder.write("array", [values.data]) == folder.record("array")
    assert folder.read("array") == values.tobytes()


def test_free_space_is_told_for_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    assert Folder(tmp_path / "a" / "b").free_bytes() > 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_folder(tmp_path: Path, code: int) -> None:
    """What write() raises has no name. Of a store, the disk is this machine's, where files are made."""
    store = RemoteFolder("memory://bucket/full")
    for folder, place in ((Folder(tmp_path), tmp_path), (store, store.root)):
        with pytest.raises(OSError, match=os.strerror(code)) as caught, folder.writer():
            raise OSError(code, os.strerror(code))
        assert caught.value.filename == str(place)
