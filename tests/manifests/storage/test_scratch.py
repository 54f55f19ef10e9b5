import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lvae.manifests.storage.scratch import Scratch, remove_abandoned, shared_folder

KILLED = "import os; from lvae.manifests.storage.scratch import Scratch; s = Scratch(); os.kill(os.getpid(), 9)"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_goes_with_its_use(temporary: Path) -> None:
    with Scratch() as folder:
        (folder / "file").touch()
    assert not list(temporary.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(temporary: Path) -> None:
    (temporary / "of another program").touch()
    subprocess.run([sys.executable, "-c", KILLED])
    with Scratch() as used:
        assert len(list(temporary.iterdir())) == 3
        remove_abandoned()
        assert set(temporary.iterdir()) == {temporary / "of another program", used}


def test_processes_with_a_scratch_folder_of_their_own_still_share_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_folder() == temporary
    with Scratch() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert shared_folder() == temporary
