"""Parts as one stream: batches across their borders, images opened ahead, and the bytes of one part after the other."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from lvae.encode.feeding.encoder import Pending
from lvae.encode.feeding.openers import InlineOpener, Opener, ProcessOpener, ThreadOpener, choose_opener
from lvae.encode.feeding.opening import Chunk, Images, Opened
from lvae.encode.feeding.stand_in import StandIn
from lvae.encode.part import encode_parts
from lvae.encode.scenes.make import write_scenes
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.planning.existing import Existing
from lvae.pipeline.planning.plan import EncodeOptions, prepare
from lvae.pipeline.planning.scan import ScanOptions
from tests.pipeline.faults import wait_for

PICTURES, PART, BATCH = 23, 5, 4
AHEAD = 8  # images
FAST = "stand-in:1000000"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of them are none."""
    folder = tmp_path_factory.mktemp("pictures")
    write_scenes(folder, PICTURES, 32, 0)
    names = sorted(folder.rglob("*.png"))
    names[4].write_bytes(b"no picture")  # the last one of a part
    names[5].write_bytes(b"")
    return folder


def planned(root: Path, pictures: Path) -> tuple[Folder, Plan]:
    folder = Folder(root)
    options = EncodeOptions("taesd", "random:0", size=32, batch=BATCH, mirror=True, scan=ScanOptions(part_size=PART))
    plan = prepare(folder, Existing(), str(pictures), options, lambda _: None)
    return folder, plan


def raw_files(folder: Folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.local("raw").rglob("part-*")}


@pytest.fixture(scope="module")
def right(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One part after the other, opened when asked for."""
    folder, plan = planned(tmp_path_factory.mktemp("right"), pictures)
    for part in range(plan.listing.parts):
        list(encode_parts(folder, plan, [part], StandIn(plan.encoded(), FAST), InlineOpener(Images.of(plan))))
    return raw_files(folder)


@pytest.fixture(scope="module")
def processes(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessOpener]:
    """Their start takes a second or two, so all tests have the same."""
    _, plan = planned(tmp_path_factory.mktemp("processes"), pictures)
    opener = ProcessOpener(Images.of(plan), 2, AHEAD)
    yield opener
    opener.close()


OPENERS: dict[str, Callable[[Images], Opener]] = {
    "inline": InlineOpener,
    "threads": lambda images: ThreadOpener(images, 2, AHEAD),
}


@pytest.mark.parametrize("name", OPENERS)
def test_a_stream_gives_the_bytes_of_its_parts_alone(
    name: str, pictures: Path, right: dict[str, bytes], tmp_path: Path
) -> None:
    folder, plan = planned(tmp_path, pictures)
    encoder = StandIn(plan.encoded(), FAST)
    receipts = list(encode_parts(folder, plan, range(plan.listing.parts), encoder, OPENERS[name](Images.of(plan))))
    assert [receipt.part for receipt in receipts] == list(range(plan.listing.parts))
    assert raw_files(folder) == right
    assert len(encoder.busy) == -(-(PICTURES - 2) // BATCH)  # only the last batch was not full


def test_a_stream_passes_over_what_is_finished(pictures: Path, right: dict[str, bytes], tmp_path: Path) -> None:
    folder, plan = planned(tmp_path, pictures)
    encoder, opener = StandIn(plan.encoded(), FAST), InlineOpener(Images.of(plan))
    list(encode_parts(folder, plan, [1, 2, 4], encoder, opener))
    before = len(encoder.busy)
    receipts = list(encode_parts(folder, plan, range(plan.listing.parts), encoder, opener))
    assert [receipt.part for receipt in receipts] == list(range(plan.listing.parts))
    assert len(encoder.busy) - before == -(-(4 + 5) // BATCH)
    assert raw_files(folder) == right


def test_killed_processes_that_open_images_are_replaced(
    pictures: Path, right: dict[str, bytes], processes: ProcessOpener, tmp_path: Path
) -> None:
    folder, plan = planned(tmp_path, pictures)
    stream = encode_parts(folder, plan, range(plan.listing.parts), StandIn(plan.encoded(), FAST), processes)
    next(stream)
    victims = decoders()
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    assert len(list(stream)) == plan.listing.parts - 1
    assert raw_files(folder) == right
    again, plan = planned(tmp_path / "again", pictures)
    assert len(list(encode_parts(again, plan, range(5), StandIn(plan.encoded(), FAST), processes))) == 5
    assert raw_files(again) == right  # and they serve the next stream as well


def decoders() -> list[int]:
    """The processes of this one that open images, one generation below the one that starts them."""
    mine = psutil.Process().children()
    return [below.pid for child in mine if "forkserver" in " ".join(child.cmdline()) for below in child.children()]


def test_what_a_process_cannot_read_fails_here_as_it_failed_there(
    pictures: Path, processes: ProcessOpener, tmp_path: Path
) -> None:
    folder, plan = planned(tmp_path, pictures)
    gone = sorted(pictures.rglob("*.png"))[-1]
    content = gone.read_bytes()
    gone.unlink()
    try:
        with pytest.raises(LvaeError, match="cannot be read any more") as error:
            list(encode_parts(folder, plan, range(plan.listing.parts), StandIn(plan.encoded(), FAST), processes))
        assert error.value.advice == "Restore it, or scan anew."
    finally:
        gone.write_bytes(content)
    assert len(raw_files(folder)) == 2 * (plan.listing.parts - 1)  # what was computed before is kept


class Counting:
    """An opener that knows how far ahead of the device images were opened."""

    def __init__(self, inner: Opener):
        self._inner, self.chunk, self.asked = inner, inner.chunk, 0

    def open(self, chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, list[Opened]]]:
        def count() -> Iterator[Chunk]:
            for chunk in chunks:
                self.asked += len(chunk.rows)
                yield chunk

        return self._inner.open(count())


class Slow(StandIn):
    """Notes how many images were asked for, beyond those that it was given."""

    most, given = 0, 0
    opener: Counting

    def submit(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[str]) -> Pending:
        self.given += len(pixels)
        self.most = max(self.most, self.opener.asked - self.given)
        return super().submit(pixels, keys)


def test_prefetch_bounds_what_is_opened_ahead(pictures: Path, processes: ProcessOpener, tmp_path: Path) -> None:
    folder, plan = planned(tmp_path, pictures)
    for number, opener in enumerate((ThreadOpener(Images.of(plan), 2, AHEAD), processes)):
        encoder = Slow(plan.encoded(), FAST)
        encoder.opener = Counting(opener)
        folder, plan = planned(tmp_path / str(number), pictures)
        list(encode_parts(folder, plan, range(plan.listing.parts), encoder, encoder.opener))  # type: ignore[arg-type]
        assert 0 < encoder.most <= AHEAD + opener.chunk + 2  # and what was rejected


def test_the_worker_opens_its_images_itself_or_others_do(pictures: Path, tmp_path: Path) -> None:
    _, plan = planned(tmp_path, pictures)
    images = Images.of(plan)
    assert isinstance(choose_opener(images, 0, AHEAD), InlineOpener)
    assert isinstance(choose_opener(images, 2, AHEAD), ProcessOpener)


def test_processes_that_open_images_do_not_outlive_a_killed_worker(pictures: Path, tmp_path: Path) -> None:
    folder, _ = planned(tmp_path, pictures)
    code = f"""
import time
from lvae.encode.feeding.openers import ProcessOpener
from lvae.encode.feeding.opening import Images
from lvae.encode.feeding.stand_in import StandIn
from lvae.encode.part import encode_parts
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.storage.folder import Folder
folder = Folder({str(folder.root)!r})
plan = read_plan(folder)
next(encode_parts(folder, plan, range(5), StandIn(plan.encoded(), {FAST!r}), ProcessOpener(Images.of(plan), 1, 8)))
print("ready", flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        below = psutil.Process(worker.pid).children(recursive=True)
        worker.kill()
    assert len(below) >= 2
    wait_for("its processes to end", lambda: not any(process.is_running() for process in below))
