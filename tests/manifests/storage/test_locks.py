import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import locks, object_store
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import LOCK, writing
from lvae.manifests.storage.object_store import RemoteFolder
from tests.pipeline.faults import wait_for

HOLD = """
import sys, time
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.folder import Folder
with writing(Folder(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
REFUSED = r"^\S+: another lvae command is writing here\. Wait for it to end, or stop it\.$"


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_holder_is_refused_at_once(tmp_path: Path) -> None:
    with writing(Folder(tmp_path)), pytest.raises(LvaeError, match=REFUSED), writing(Folder(tmp_path)):
        pass


def test_another_process_is_refused_until_the_holder_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(LvaeError, match=REFUSED), writing(Folder(tmp_path)):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with writing(Folder(tmp_path)):
            pass


def test_a_lock_is_free_again_afterwards_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), writing(Folder(tmp_path)):
            raise ZeroDivisionError
    with writing(Folder(tmp_path)):
        pass


def test_a_folder_made_for_nothing_goes_and_others_stay(tmp_path: Path) -> None:
    there, used = tmp_path / "there", tmp_path / "used"
    there.mkdir()
    for root in (tmp_path / "made", there, used):
        with pytest.raises(ZeroDivisionError), writing(Folder(root)):
            if root == used:
                (root / "file").write_bytes(b"kept")
            raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "used"]
    assert (used / "file").read_bytes() == b"kept"


def test_a_lock_file_that_is_taken_away_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opens_and_loses(path: Path, *more: int) -> int:
        monkeypatch.undo()
        descriptor = os.open(path, *more)
        path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", opens_and_loses)
    with writing(Folder(tmp_path)), pytest.raises(LvaeError, match=REFUSED), writing(Folder(tmp_path)):
        pass


def test_a_refused_one_does_not_free_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path):
        for _ in range(2):
            with pytest.raises(LvaeError, match=REFUSED), writing(Folder(tmp_path)):
                pass


def test_two_datasets_are_written_at_once(tmp_path: Path) -> None:
    with writing(Folder(tmp_path / "a")), writing(Folder(tmp_path / "b")):
        pass


def test_what_a_killed_holder_left_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"left behind")
    with writing(Folder(tmp_path)):
        pass


def test_all_folders_made_for_nothing_go_again(tmp_path: Path) -> None:
    dataset = tmp_path / "a/b/c"
    with pytest.raises(LvaeError, match="refused"), writing(Folder(dataset)):
        (dataset / ".tmp").mkdir()  # as a file that was begun leaves it
        raise LvaeError("", "refused")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["plan.json", ".tmp/half"])
def test_folders_with_something_in_them_stay(tmp_path: Path, name: str) -> None:
    kept = tmp_path / "a/b" / name
    with pytest.raises(LvaeError, match="refused"), writing(Folder(tmp_path / "a/b")):
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(b"kept")
        raise LvaeError("", "refused")
    assert kept.read_bytes() == b"kept"


def test_a_folder_that_somebody_removed_hides_no_error(tmp_path: Path) -> None:
    with pytest.raises(LvaeError, match="the reason"), writing(Folder(tmp_path / "a")):
        shutil.rmtree(tmp_path / "a")
        raise LvaeError("", "the reason")


def test_a_folder_that_goes_while_the_lock_is_taken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another command does that made it for nothing."""
    opened, going = os.open, iter([True, True, False])

    def after_somebody_removed_it(path: Path, *arguments: int) -> int:
        if path.name == LOCK and next(going, False):
            path.parent.rmdir()
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", after_somebody_removed_it)
    with writing(Folder(tmp_path / "a")):
        assert (tmp_path / "a" / LOCK).exists()


@pytest.mark.parametrize("call", ["open", "flock"])
def test_a_file_server_that_is_away_is_no_folder_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """An outage, which whoever holds patience waits for."""

    def fail(*_: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os if call == "open" else fcntl, call, fail)
    with pytest.raises(OSError, match=r"[Ss]tale"), writing(Folder(tmp_path)):
        pass


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(LvaeError, match=r"file/dataset: cannot be written to"),
        writing(Folder(tmp_path / "file/dataset")),
    ):
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteFolder]:
    """An object store on which leases are short."""
    for name, seconds in {"BEAT_SECONDS": 0.05, "LEASE_SECONDS": 0.5}.items():
        monkeypatch.setattr(locks, name, seconds)
    yield RemoteFolder("memory://bucket/leased")
    with suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_lease_is_held_by_one_and_given_back(store: RemoteFolder) -> None:
    with writing(store), pytest.raises(LvaeError, match="another lvae command is writing here"), writing(store):
        pass
    assert store.read(LOCK).startswith(b"free")
    with writing(store):
        assert store.read(LOCK).endswith(b" 1\n")  # the epoch


def test_a_lease_whose_holder_has_died_runs_out(store: RemoteFolder) -> None:
    store.write(LOCK, b"somebody 7\n")
    with writing(store):
        assert store.read(LOCK).split()[0] != b"somebody"


def test_a_holder_that_was_stopped_writes_nothing_over_the_next_ones_files(
    store: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for a process that was stopped: its clock went on, and its other thread told nobody."""
    monkeypatch.setattr(locks, "_beat", lambda *_: None)
    again = RemoteFolder("memory://bucket/leased")
    with writing(store):
        store.swap("manifest.json", b"first")
        time.sleep(locks.LEASE_SECONDS)
        store.write("manifest.json", b"still alone")
        time.sleep(locks.LEASE_SECONDS)
        with writing(again):
            again.swap("manifest.json", b"second")
            for write in (store.write, store.swap, store.create):
                with pytest.raises(LvaeError, match="has taken over while this one was stopped"):
                    write("manifest.json", b"late")  # type: ignore[operator]
            with pytest.raises(LvaeError, match="has taken over"):
                store.remove("manifest.json")
    assert store.read("manifest.json") == b"second"


def test_a_holder_that_was_stopped_while_another_command_came_and_went_writes_nothing_more(
    store: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_beat", lambda *_: None)
    with writing(store):
        time.sleep(locks.LEASE_SECONDS)
        again = RemoteFolder("memory://bucket/leased")
        with writing(again):
            again.swap("manifest.json", b"second")
        with pytest.raises(LvaeError, match="has taken over while this one was stopped"):
            store.swap("manifest.json", b"late")
    assert store.read("manifest.json") == b"second" and store.read(LOCK).startswith(b"free")


def test_a_manifest_that_another_command_has_swapped_is_not_written_over(
    store: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between the look at the clock and the write: the store itself refuses."""
    again = RemoteFolder("memory://bucket/leased")
    for before in (None, b"first"):
        if before is not None:
            store.write("manifest.json", before)
        monkeypatch.setattr(store, "guard", lambda: again.write("manifest.json", b"second"))
        with pytest.raises(LvaeError, match="another command has written it meanwhile"):
            store.swap("manifest.json", b"late")
        assert store.read("manifest.json") == b"second"
        monkeypatch.setattr(store, "guard", lambda: None)
        store.remove("manifest.json")


def _is_lost(store: RemoteFolder) -> bool:
    try:
        store.check_lease()
    except LvaeError:
        return True
    return False


def test_a_holder_that_was_overtaken_ends(store: RemoteFolder) -> None:
    with pytest.raises(LvaeError, match="has taken over"), writing(store):
        store.write(LOCK, b"somebody 0\n")
        wait_for("the next look at the lease", lambda: _is_lost(store))
        store.write("manifest.json", b"late")
    assert store.read(LOCK) == b"somebody 0\n"  # not given back by who does not hold it


def test_a_lease_that_has_gone_is_taken_again_and_a_first_command_that_fails_leaves_none(store: RemoteFolder) -> None:
    """Who takes a lease leaves a mark when it gives it back, so nobody has had one that is not there."""
    with pytest.raises(ZeroDivisionError), writing(store):
        store.remove(LOCK)
        time.sleep(3 * locks.BEAT_SECONDS)
        store.write("manifest.json", b"mine")
        raise ZeroDivisionError
    assert not store.exists(LOCK) and store.read("manifest.json") == b"mine"


def test_a_lease_that_runs_out_while_the_store_is_away_is_taken_again_by_its_own_process(
    store: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a job is run again after an outage: it neither waits for itself nor finds itself in its way."""
    monkeypatch.setattr(object_store, "DELAYS", ())
    monkeypatch.setattr(locks, "LEASE_SECONDS", 60.0)  # which would be waited for
    away = False

    def answer(*_: object, **__: object) -> None:
        if away:
            raise OSError(errno.EIO, "away")

    files = type(store._files)
    for name in ("cat_file", "info", "pipe_file", "put_file", "rm_file"):
        call = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *a, call=call, **more: (answer(), call(*a, **more))[1])
    with pytest.raises(OSError, match="away"), writing(store):
        away = True
        store.write("manifest.json", b"lost")
    away = False
    with writing(RemoteFolder("memory://bucket/leased")):
        assert store.read(LOCK).endswith(b" 1\n")
