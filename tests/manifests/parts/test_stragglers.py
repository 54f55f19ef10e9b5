"""Attempts that are stopped in the middle and go on when the job has long ended: they change nothing that is finished.

A process of its own makes one attempt after the other and stops itself (SIGSTOP) at one step of each: a step is a call
that makes, renames, links or removes a file.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lvae.manifests.parts.receipts import finished, orphans, read_raw, receipt_name
from lvae.manifests.publishing.publish import drop_raw
from lvae.manifests.views.gather import write_shard
from lvae.manifests.views.view import shard_receipt_name, write_view
from tests.manifests.dataset_examples import (
    Contents,
    Example,
    build,
    encode,
    files_of,
    planned,
    problems,
    raw_of,
    settings_of,
    shard,
    write_raw,
)

ATTEMPT = """
import os, signal, sys
sys.path.insert(0, {here!r})
from tests.manifests.dataset_examples import *
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.views.view import read_view

EVENTS = ("os.mkdir", "os.rename", "os.link", "os.remove")
left, armed = 0, False

def stop_at_the_step(event, arguments):
    global left
    if armed and (event in EVENTS or event == "open" and arguments[2] & os.O_CREAT):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop_at_the_step)
for line in sys.stdin:
    what, root, step = line.split()
    folder, contents = Folder(root), Contents(seed=1)
    plan = read_plan(folder)
    raw = raw_of(contents, plan, 1)
    view = next((path.name for path in (Path(root) / "shards").glob("*")), None)
    left, armed = int(step), True
    try:
        if what == "part":
            write_raw(folder, contents, plan, 1, raw)
        else:
            write_shard(folder, plan, read_view(folder, view), "train", 1)
        end = "written"
    except (OSError, LvaeError) as error:
        end = type(error).__name__
    armed = False
    if left > 0:
        os.kill(os.getpid(), signal.SIGSTOP)  # the last step: it has done everything
    print(end, flush=True)
"""
PART_STEPS = range(1, 8)  # temporary file, raw file, its removal; temporary file, receipt, its removal; the end
SHARD_STEPS = {"zarr": range(1, 17, 3), "webdataset": range(1, 8, 2)}  # three a file and three of the receipt


class Straggler:
    """The process that makes the attempts."""

    def __init__(self) -> None:
        script = ATTEMPT.format(here=str(Path(__file__).parents[3]))
        command = [sys.executable, "-c", script]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def attempt(self, what: str, root: Path, step: int) -> None:
        """Begin an attempt, and wait until it has been stopped."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {root} {step}\n")
        self._process.stdin.flush()
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> str:
        """How it ended."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def straggler() -> Iterator[Straggler]:
    found = Straggler()
    yield found
    found.end()


@contextmanager
def unchanged(example: Example) -> Iterator[None]:
    """The dataset's files stay as they are; what comes in addition is an orphan or a temporary file."""
    before = files_of(example.root)
    yield
    for name in orphans(example.folder):
        example.folder.remove(name)
    example.folder.sweep()
    assert files_of(example.root) == before


@pytest.mark.parametrize("dropped", [False, True], ids=["raw kept", "raw dropped"])
def test_a_late_attempt_at_a_part_changes_nothing(straggler: Straggler, tmp_path: Path, dropped: bool) -> None:
    for step in PART_STEPS:
        example = encode(tmp_path / f"{step}")
        old = finished(example.folder, example.plan, 1)
        assert old is not None
        example.folder.remove(receipt_name(1))
        example.folder.remove(old.raw.path)
        with example.folder.writer():  # keeps .tmp/ where it is, so that steps are the same every time
            straggler.attempt("part", example.root, step)
        receipt = write_raw(example.folder, example.contents, example.plan, 1, example.raw[1])  # another worker's
        assert example.folder.record(receipt.raw.path) == receipt.raw  # ours, or theirs if theirs was complete
        theirs = raw_of(Contents(seed=1), example.plan, 1)
        raw = np.array(read_raw(example.folder, receipt, example.plan.encoded()))
        assert np.array_equal(raw, example.raw[1]) or np.array_equal(raw, theirs)
        shard(example)
        for name in orphans(example.folder):
            example.folder.remove(name)
        if dropped:
            drop_raw(example.folder)
        with unchanged(example):
            straggler.go_on()
        assert problems(example.root) == []


@pytest.mark.parametrize("format_", ["zarr", "webdataset"])
def test_a_late_attempt_at_a_shard_changes_nothing(straggler: Straggler, tmp_path: Path, format_: str) -> None:
    for step in SHARD_STEPS[format_]:
        example = encode(tmp_path / f"{step}")
        settings = settings_of(example, format=format_)
        write_view(example.folder, planned(example, settings)[1])
        straggler.attempt("shard", example.root, step)
        finished_example = shard(example, format=format_)
        for name in ("timings", ".tmp"):
            assert not example.folder.exists(name)
        with unchanged(finished_example):
            straggler.go_on()
        assert problems(example.root) == []


def test_a_shard_that_is_there_with_other_bytes_is_not_signed_for(tmp_path: Path) -> None:
    from lvae.manifests.errors import LvaeError
    from lvae.manifests.views.view import remove_unfinished_shards

    example = build(tmp_path)
    _, view = planned(example, example.settings)
    [path] = example.root.glob("shards/*/train.zarr/latents/c/1/0/0/0")
    right = path.read_bytes()
    path.write_bytes(bytes(len(right)))
    example.folder.remove(shard_receipt_name(view.name, "train", 1))
    with pytest.raises(LvaeError, match="another attempt has left other bytes"):
        write_shard(example.folder, example.plan, view, "train", 1)
    remove_unfinished_shards(example.folder, view)  # as every job does when it begins
    write_shard(example.folder, example.plan, view, "train", 1)
    assert path.read_bytes() == right
