"""`lvae watch`, beside a job and without its lock."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvae.cli import main
from lvae.manifests.parts.receipts import receipt_name
from lvae.manifests.parts.timings import Timing, read_timing, write_timing
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.pipeline.progress.reports import Reporter
from lvae.pipeline.progress.watch import Observer, State
from tests.conftest import lvae


@pytest.fixture(scope="module")
def encoded(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images in five parts of ten."""
    out = tmp_path_factory.mktemp("watched") / "out"
    lvae("encode", scenes, out, "--autoencoder", "pixels", "--size", "32", "--part-size", "10", "--workers", "1")
    return out


@pytest.fixture
def under_way(encoded: Path, tmp_path: Path) -> Folder:
    """The same in the middle: parts 1 and 3 are missing, and so is all that comes later."""
    shutil.copytree(encoded, tmp_path / "out")
    folder = Folder(tmp_path / "out")
    for part in (1, 3):
        folder.remove(receipt_name(part))
    folder.remove("manifest.json")
    folder.remove("shards")
    return folder


def test_a_job_leaves_how_long_its_parts_took(encoded: Path) -> None:
    timings = [read_timing(Folder(encoded), part) for part in range(5)]
    assert [timing.images for timing in timings if timing is not None] == [10, 10, 10, 10, 8]
    assert all(timing.seconds > 0 and timing.ended > 1.7e9 for timing in timings if timing is not None)
    lvae("verify", "--deep", encoded)


def test_a_finished_dataset_is_said_to_be(encoded: Path) -> None:
    assert lvae("watch", encoded).stdout == f"{encoded}: finished: 48 images in 5 parts\n"
    assert json.loads(lvae("watch", encoded, "--once", "--json").stdout)["stage"] == "finished"


def test_what_is_done_is_asked_of_receipts(under_way: Folder) -> None:
    for part in (0, 2, 4):
        write_timing(under_way, Timing(part, 10, 5.0, 1000.0 + 5 * part))
    state = Observer(under_way).look()
    assert (state.stage, state.images, state.images_done, state.parts, state.parts_done) == ("encoding", 48, 28, 5, 3)
    assert state.images_per_second == pytest.approx(30 / 25)
    assert state.seconds_left == pytest.approx(20 / (30 / 25))
    assert "28 of 48 images, 3 of 5 parts, last part" in str(state)


def test_images_of_parts_under_way_are_told_apart(under_way: Folder) -> None:
    Reporter(under_way, "part 3", "attempt").working(7)
    state = Observer(under_way).look()
    assert (state.images_done, state.images_under_way) == (28, 7)


def test_an_observer_notices_what_changes(under_way: Folder, encoded: Path) -> None:
    observer = Observer(under_way)
    assert observer.look().parts_done == 3
    under_way.write(receipt_name(1), Folder(encoded).read(receipt_name(1)))
    assert observer.look().parts_done == 4
    under_way.write(receipt_name(3), Folder(encoded).read(receipt_name(3)))
    assert (observer.look().stage, observer.look().shards) == ("writing", None)
    shutil.copytree(encoded / "shards", under_way.root / "shards")
    next((under_way.root / "shards").glob("*/shard-*.json")).unlink()
    state = observer.look()
    assert (state.stage, state.shards, state.shards_done) == ("writing", 1, 0)
    assert str(state) == "writing shards: 0 of 1"
    shutil.copy(encoded / "manifest.json", under_way.root)
    assert observer.look().stage == "finished"


def test_watching_ends_with_the_job(under_way: Folder, encoded: Path) -> None:
    """In a process of its own, while another holds the dataset for writing."""
    command = [sys.executable, "-m", "lvae", "watch", str(under_way)]
    with (
        writing(under_way),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job,
    ):
        assert job.stderr is not None and job.stdout is not None
        assert job.stderr.readline().startswith("encoding: 28 of 48 images")
        for part in (1, 3):
            under_way.write(receipt_name(part), Folder(encoded).read(receipt_name(part)))
        shutil.copy(encoded / "manifest.json", under_way.root)
        assert job.stdout.read() == f"{under_way}: finished: 48 images in 5 parts\n"
        assert job.wait() == 0


def test_watching_writes_nothing(under_way: Folder) -> None:
    under_way.remove(".lock")
    before = {path: path.stat().st_mtime_ns for path in under_way.root.rglob("*")}
    assert CliRunner().invoke(main, ["watch", str(under_way), "--once"]).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in under_way.root.rglob("*")} == before


def test_a_scanned_dataset_waits_for_its_encoding(scenes: Path, tmp_path: Path) -> None:
    lvae("scan", scenes, tmp_path / "out")
    shown = CliRunner().invoke(main, ["watch", str(tmp_path / "out"), "--once"])
    assert shown.stdout == f"{tmp_path / 'out'}: scanned: 48 images; 'lvae encode' has not begun\n"


def test_what_is_no_dataset_cannot_be_watched(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["watch", str(tmp_path / "nope")])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "no such file or folder" in shown.stderr and shown.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_state_without_any_timing_tells_no_rate() -> None:
    state = State("encoding", 9, 3, 0, 3, 1, None, 0, None, None, None)
    assert str(state) == "encoding: 3 of 9 images, 1 of 3 parts"
