"""Checkpoints: every bit comes back, damage is noticed, a full disk loses nothing."""

import logging
import math
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.train.runs.checkpoints import DTYPES, Checkpoints
from tests.manifests.dataset_examples import flip


def weights(seed: int = 0, size: int = 100) -> dict[str, Tensor]:
    flat = torch.randn(2 * size, generator=torch.Generator().manual_seed(seed))
    return {"first": flat[:size].view(size // 10, 10), "second": flat[size:].view(size // 10, 10).t()}


def files(checkpoint: Path) -> list[str]:
    return sorted(path.name for path in checkpoint.iterdir())


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_tensors_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    groups: dict[str, dict[str, Tensor]] = {}
    for group in data.draw(st.sets(st.sampled_from(["model", "ema", "discriminator"]), min_size=1)):
        groups[group] = {}
        for name in data.draw(st.lists(st.sampled_from(["a", "b.weight", "ü"]), unique=True)):
            dtype = data.draw(st.sampled_from(sorted(DTYPES, key=str)))
            shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
            size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
            high = 2 if dtype == torch.bool else 256
            bits = torch.tensor(data.draw(st.lists(st.integers(0, high - 1), min_size=size, max_size=size)))
            groups[group][name] = bits.to(torch.uint8).view(dtype).view(shape)
    checkpoints = Checkpoints(tmp_path_factory.mktemp("run"))
    checkpoints.save(3, groups, {"position": 7, "rate": 0.1})
    found = checkpoints.latest()
    assert found is not None
    assert (found.step, found.values, found.groups) == (3, {"position": 7, "rate": 0.1}, tuple(sorted(groups)))
    for group, tensors in groups.items():
        read = found.read(group)
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(read[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(1, {"model": weights()}, {})
    read = safetensors.torch.load_file(path / "model.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in weights().items())


def test_nothing_is_there_at_the_start(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "never").latest() is None


def test_recent_and_permanent_ones_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, recent=2, permanent_every=20)
    for step in range(5, 60, 5):
        checkpoints.save(step, {"model": weights(step)}, {})
    assert checkpoints.steps() == [20, 40, 50, 55]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_noticed_and_the_one_before_is_taken(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"model": weights(step)}, {"step": step})
    path = checkpoints.at(2) / name
    if damage == "flip":
        flip(path, path.stat().st_size // 2, 3)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest()
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text
    assert "before it" in caplog.text


def test_every_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": {"a": torch.arange(3.0)}}, {"x": 1})
    for name in files(checkpoints.at(1)):
        path = checkpoints.at(1) / name
        for byte in range(path.stat().st_size):
            flip(path, byte, byte % 8)
            with pytest.raises(LvaeError):
                checkpoints.open(1)
            flip(path, byte, byte % 8)
    checkpoints.open(1)


def test_a_damaged_one_gives_way_when_its_step_comes_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"model": weights(step)}, {})
    flip(checkpoints.at(2) / "model.safetensors", 200, 1)
    checkpoints.save(2, {"model": weights(2)}, {})
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 2


def test_where_all_are_damaged_nothing_begins_anew(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": weights()}, {})
    (checkpoints.at(1) / "checksums.json").unlink()
    with pytest.raises(LvaeError, match="no checkpoint is whole"):
        checkpoints.latest()


def test_one_under_another_name_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    shutil.move(checkpoints.save(1, {"model": weights()}, {}), checkpoints.at(9))
    with pytest.raises(LvaeError, match="that of step 1"):
        checkpoints.open(9)


def save_limited(folder: Path, size: int) -> None:
    """In a process of its own: save step 2 where no file may be larger than 20,000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    Checkpoints(folder, recent=1).save(2, {"model": weights(2), "more": weights(3, size)}, {})


def test_where_no_space_is_left_nothing_is_lost(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, recent=1)
    checkpoints.save(1, {"model": weights()}, {})
    imports = "from pathlib import Path; from tests.train.runs.test_checkpoints import *"
    code = f"{imports}; save_limited(Path({str(tmp_path)!r}), "
    full = subprocess.run([sys.executable, "-c", code + "5000)"], capture_output=True, text=True)
    assert full.returncode == 1
    assert "the last checkpoint is that of step 1. Free some space" in full.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    subprocess.run([sys.executable, "-c", code + "100)"], check=True)
    assert checkpoints.steps() == [2]
