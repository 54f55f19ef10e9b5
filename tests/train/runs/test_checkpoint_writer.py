"""Checkpoints written behind: training goes on, nothing is lost, errors arrive."""

import threading
from pathlib import Path

import pytest
import torch

from lvae.manifests.errors import LvaeError
from lvae.train.runs.checkpoint_writer import CheckpointWriter
from lvae.train.runs.checkpoints import Checkpoints


class Held(Checkpoints):
    """Checkpoints on a disk that waits to be told."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.may_write = threading.Event()

    def save(self, *arguments: object, **named: object) -> Path:
        self.may_write.wait()
        return super().save(*arguments, **named)  # type: ignore[arg-type]


def test_saving_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    checkpoints = Held(tmp_path)
    writer = CheckpointWriter(checkpoints)
    writer.save(1, {"model": {"a": torch.ones(3)}}, {})
    writer.check()
    assert checkpoints.latest() is None
    checkpoints.may_write.set()
    writer.save(2, {"model": {"a": torch.zeros(3)}}, {}, keep=(1,))
    writer.wait()
    assert checkpoints.steps() == [1, 2]


def test_what_goes_wrong_behind_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = CheckpointWriter(Checkpoints(tmp_path / "file" / "checkpoints"))
    writer.save(1, {"model": {}}, {})
    with pytest.raises((LvaeError, OSError)):
        writer.wait()
    writer.wait()  # once


def test_the_best_one_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, recent=1)
    for step in (1, 2, 3):
        checkpoints.save(step, {"model": {}}, {}, keep=(1,))
    assert checkpoints.steps() == [1, 3]


def test_only_what_is_read_is_hashed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(1, {"ema": {"a": torch.ones(3)}, "optimizer": {"b": torch.ones(3)}}, {"x": 1})
    damaged = path / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert torch.equal(checkpoints.open(1, ("ema",)).read("ema")["a"], torch.ones(3))
    assert checkpoints.open(1, ()).values == {"x": 1}
    with pytest.raises(LvaeError, match="checksum"):
        checkpoints.open(1)
    damaged.unlink()
    with pytest.raises(LvaeError, match="missing"):
        checkpoints.open(1, ("ema",))
