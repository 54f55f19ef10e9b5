"""The encoding job under kill -9, stalls, and company. Each ends with the bytes of an undisturbed run."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lvae.encode.scenes.make import write_scenes
from tests.conftest import SMALL_KL, lvae, make_once
from tests.pipeline.faults import (
    contents,
    kill,
    kill_command,
    processes_at,
    receipts,
    start,
    wait_for,
    worker_processes,
)

NETWORK = ("--autoencoder", SMALL_KL, "--weights", "random:0")
PICTURES = 96


def command(world: Path, dataset: Path, workers: int = 2) -> tuple[str | Path, ...]:
    settings = ("--size", "64", "--part-size", "8", "--shard-size", "64", "--workers", str(workers))
    return ("encode", world, dataset, *settings, *NETWORK)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(tmp_path_factory, "world", lambda folder: write_scenes(folder, PICTURES, 64, 5))


@pytest.fixture(scope="module")
def right(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an undisturbed run."""
    return contents(make_once(tmp_path_factory, "right", lambda root: lvae(*command(world, root / "out", 1))) / "out")


def test_a_killed_command_goes_on_where_it_was(world: Path, right: dict[str, str], tmp_path: Path) -> None:
    job = start(*command(world, tmp_path / "out", workers=1))
    wait_for("some receipts", lambda: len(receipts(tmp_path / "out")) >= 3)
    kill_command(job)
    before = receipts(tmp_path / "out")
    assert len(before) < PICTURES // 8
    lvae(*command(world, tmp_path / "out", workers=1))
    after = receipts(tmp_path / "out")
    assert {name: after[name] for name in before} == before  # finished parts were not encoded again
    assert contents(tmp_path / "out") == right


def test_a_killed_worker_is_noticed_and_its_parts_are_submitted_again(
    world: Path, right: dict[str, str], tmp_path: Path
) -> None:
    job = start(*command(world, tmp_path / "out"))
    wait_for("a receipt", lambda: receipts(tmp_path / "out"))
    victims = worker_processes(job.pid)
    before = receipts(tmp_path / "out")
    kill(victims[:1])
    _, told = job.communicate()
    assert job.returncode == 0, told
    assert "submitted again" in told
    after = receipts(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert contents(tmp_path / "out") == right


@pytest.mark.slow
def test_workers_that_stop_without_dying_are_given_up_after_a_minute(
    world: Path, right: dict[str, str], tmp_path: Path
) -> None:
    job = start(*command(world, tmp_path / "out"))
    wait_for("a receipt", lambda: receipts(tmp_path / "out"))
    kill(worker_processes(job.pid), signal.SIGSTOP)
    _, told = job.communicate()
    assert job.returncode == 0, told
    assert "no process gave a sign of life for 60 s" in told
    assert contents(tmp_path / "out") == right


def test_a_second_command_on_the_same_dataset_is_refused(world: Path, tmp_path: Path) -> None:
    job = start(*command(world, tmp_path / "out"))
    wait_for("the lock", lambda: (tmp_path / "out/plan.json").exists())
    job.send_signal(signal.SIGSTOP)  # on a busy machine it might end before the second command gets as far as the lock
    try:
        second = lvae(*command(world, tmp_path / "out"), check=1)
    finally:
        job.send_signal(signal.SIGCONT)
    assert second.stderr.count("\n") == 1
    assert "another lvae command is writing here" in second.stderr
    assert job.communicate() and job.returncode == 0


def test_an_interrupt_ends_the_command_and_its_workers(world: Path, tmp_path: Path) -> None:
    job = start(*command(world, tmp_path / "out"))
    workers = wait_for("workers", lambda: worker_processes(job.pid))
    job.send_signal(signal.SIGINT)
    _, told = job.communicate()
    assert job.returncode == 130
    assert "interrupted" in told.splitlines()[-1]
    wait_for("the workers to end", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_part_that_always_takes_its_process_down_is_named_and_the_rest_is_done(world: Path, tmp_path: Path) -> None:
    settings = ("--size", "64", "--part-size", "24", "--workers", "2", *NETWORK)
    job = start("encode", world, tmp_path / "out", *settings)
    while job.poll() is None:
        for pid in processes_at(tmp_path / "out", "part 1"):
            kill([pid])
        time.sleep(0.01)
    _, told = job.communicate()
    assert job.returncode == 1
    assert "part 1 (images 24 to 47)" in told.splitlines()[-1]
    assert sorted(receipts(tmp_path / "out")) == [f"part-00000{part}.json" for part in (0, 2, 3)]
    lvae("encode", world, tmp_path / "out", *settings)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_before_the_start_and_survived_in_the_middle(
    world: Path, right: dict[str, str], small_disk: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(60 << 20))
    told = lvae(*command(world, small_disk / "out"), check=1).stderr
    assert "are free" in told.splitlines()[-1]
    filler.unlink()
    job = start(*command(world, small_disk / "out"))
    wait_for("a receipt", lambda: receipts(small_disk / "out"))
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 12))
            file.flush()
    _, told = job.communicate()
    assert job.returncode == 1, told
    assert "no space left" in told.splitlines()[-1].lower()
    filler.unlink()
    lvae(*command(world, small_disk / "out"))
    assert contents(small_disk / "out") == right
