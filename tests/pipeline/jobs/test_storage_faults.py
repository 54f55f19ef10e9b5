"""The encoding job over storage that fails, is slow, or stops: the bytes of an undisturbed run, or an error."""

import io
import json
import signal
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvae.encode.scenes.make import write_scenes
from tests.conftest import lvae
from tests.pipeline.bad_storage import STALL_SECONDS, Storage, bad_storage
from tests.pipeline.faults import contents, start

pytest.importorskip("aiohttp")

PICTURES = 40
PLACES = ("a.tar", "a.zip", "tree/", "tables/", "list.txt")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """The same pictures in several sorts of source; one of them is broken, and rejected rightly."""
    root = tmp_path_factory.mktemp("storage")
    tree = root / "served/tree"
    write_scenes(tree, PICTURES, 48, 3)
    files = sorted(tree.rglob("*.png"))
    files[7].write_bytes(files[7].read_bytes()[:200])
    names = {path: path.relative_to(tree).as_posix() for path in files}
    with zipfile.ZipFile(root / "served/a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in names.items():
            archive.write(path, name)
    with tarfile.open(root / "served/a.tar", "w") as archive:
        for path, name in names.items():
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
    (root / "served/tables").mkdir()
    for number in range(2):
        pictures = [{"bytes": path.read_bytes(), "path": None} for path in files[number::2]]
        pq.write_table(pa.table({"image": pictures}), root / f"served/tables/{number}.parquet", row_group_size=6)
    (root / "served/list.txt").write_text("".join(f"tree/{name}\n" for name in names.values()))
    with bad_storage(root / "served", root / "mode.json") as found:
        yield found


@pytest.fixture(scope="module")
def right(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> "Undisturbed":
    return Undisturbed(storage, tmp_path_factory.mktemp("right"))


class Undisturbed:
    """Files of jobs over storage that was calm, made when asked for."""

    def __init__(self, storage: Storage, root: Path):
        self._storage, self._root = storage, root

    def __getitem__(self, place: str) -> dict[str, str]:
        dataset = self._root / place.strip("/").replace(".", "-")
        if not dataset.exists():
            self._storage.becomes("calm")
            lvae(*command(self._storage, place, dataset))
            rejected = [json.loads(line) for line in (dataset / "rejected.jsonl").read_text().splitlines()]
            assert [entry["row"] for entry in rejected] == [7 if place != "tables/" else rejected[0]["row"]]
        return contents(dataset)


def command(storage: Storage, place: str, dataset: Path) -> tuple[str | Path, ...]:
    settings = ("--autoencoder", "pixels-f2", "--size", "32", "--part-size", "4", "--workers", "2")
    return ("encode", f"{storage.url}/{place}", dataset, *settings)


def test_reads_that_fail_now_and_then_change_nothing(storage: Storage, right: Undisturbed, tmp_path: Path) -> None:
    expected = right["a.tar"]
    storage.becomes("flaky", seed=1)
    lvae(*command(storage, "a.tar", tmp_path / "out"))
    assert contents(tmp_path / "out") == expected


def begin_in_an_outage(storage: Storage, dataset: Path) -> "subprocess.Popen[str]":
    """A job that has said that it waits."""
    storage.becomes("calm")
    lvae("scan", f"{storage.url}/a.tar", dataset, "--part-size", "4")
    storage.becomes("outage")
    job = start(*command(storage, "a.tar", dataset))
    assert job.stderr is not None
    said = next(line for line in job.stderr if "the storage failed" in line)
    assert "503" in said and "trying again in 0:0" in said and "for 2:00:00 at most" in said
    return job


def test_an_outage_is_waited_for(storage: Storage, right: Undisturbed, tmp_path: Path) -> None:
    expected = right["a.tar"]
    job = begin_in_an_outage(storage, tmp_path / "out")
    storage.becomes("calm")
    _, told = job.communicate()
    assert job.returncode == 0, told
    assert "submitted again" not in told
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_an_interrupt_ends_waiting(storage: Storage, tmp_path: Path) -> None:
    job = begin_in_an_outage(storage, tmp_path / "out")
    job.send_signal(signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "interrupted" in told.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("place", PLACES)
def test_no_sort_of_source_is_changed_by_faults(
    place: str, seed: int, storage: Storage, right: Undisturbed, tmp_path: Path
) -> None:
    expected = right[place]
    storage.becomes("flaky", seed)
    lvae(*command(storage, place, tmp_path / "out"))
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_slow_storage_only_takes_longer(place: str, storage: Storage, right: Undisturbed, tmp_path: Path) -> None:
    expected = right[place]
    storage.becomes("slow")
    lvae(*command(storage, place, tmp_path / "out"))
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a.tar", "tree/"])
def test_storage_that_stops_for_30_s_is_waited_for(
    place: str, storage: Storage, right: Undisturbed, tmp_path: Path
) -> None:
    expected = right[place]
    storage.becomes("stall")
    start = time.monotonic()
    told = lvae(*command(storage, place, tmp_path / "out")).stderr
    assert time.monotonic() - start > STALL_SECONDS
    assert "submitted again" not in told
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a.tar", "a.zip", "tables/"])
def test_an_outage_fails_the_job_in_one_line_and_the_same_command_finishes_it(
    place: str, storage: Storage, right: Undisturbed, tmp_path: Path
) -> None:
    expected = right[place]
    storage.becomes("calm")
    lvae("scan", f"{storage.url}/{place}", tmp_path / "out", "--part-size", "4")
    storage.becomes("outage")
    failed = lvae(*command(storage, place, tmp_path / "out"), "--patience", "1s", check=1)
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("lvae: ")
    assert "503" in last
    assert "the storage failed" in failed.stderr
    assert "the workers were lost" not in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "out/manifest.json").exists()
    receipts = [json.loads(path.read_bytes()) for path in (tmp_path / "out/raw").glob("*/part-*.json")]
    assert sum(len(receipt["rejected"]) for receipt in receipts) <= 1  # the broken one; no outage is among them
    storage.becomes("calm")
    lvae(*command(storage, place, tmp_path / "out"))
    assert contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_scanning_waits_for_an_outage_too(storage: Storage, tmp_path: Path) -> None:
    storage.becomes("outage")
    job = start("scan", f"{storage.url}/tree/", tmp_path / "out")
    assert job.stderr is not None
    assert any("the storage failed" in line and "503" in line for line in job.stderr)
    storage.becomes("calm")
    said = job.communicate()[0]
    assert job.returncode == 0 and f"{PICTURES} images" in said
