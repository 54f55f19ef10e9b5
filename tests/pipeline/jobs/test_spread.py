"""The end of a job by workers: the bytes and the faults are those of a command that does everything itself."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lvae.manifests.publishing.publish import drop_raw
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify import shard_statistics
from lvae.manifests.verify.verify import verify
from lvae.manifests.views import mixing
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.jobs import spread
from lvae.pipeline.jobs.check import ByWorkers, find_faults, forget_checked_parts
from lvae.pipeline.progress.console import CONSOLE
from tests.conftest import lvae, make_once
from tests.manifests.dataset_examples import resign
from tests.pipeline.faults import contents

PIXELS = ("--autoencoder", "pixels-f2", "--size", "32", "--mirror", "--part-size", "2", "--workers", "1")


@pytest.fixture(scope="module")
def right(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(tmp_path_factory, "spread", lambda root: lvae("encode", scenes, root / "out", *PIXELS)) / "out"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No dataset is small; but what workers would do is done here, a step at a time, and told."""
    told = list[str]()

    def do(self: spread.Spread, step: str, numbers: range, finished: spread.Finished, view: str = "") -> int:
        made = self.do_here(step, numbers, finished, view)
        told.extend([step] * made)
        return made

    monkeypatch.setattr(spread, "SMALL_BYTES", 0)
    monkeypatch.setattr(spread.Spread, "do", do)
    return told


@pytest.mark.slow
def test_workers_fold_mix_write_and_check(
    scenes: Path, right: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "SMALL_BYTES", 0)
    monkeypatch.setattr(mixing, "MEMORY_BYTES", 1 << 16)
    lvae("encode", scenes, tmp_path / "out", *PIXELS, "--shuffle", "two-passes", "--split", "val=20%", "--workers", "2")
    lvae("encode", scenes, tmp_path / "one", *PIXELS, "--split", "val=20%")
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert not (tmp_path / "out" / "mixing").exists() and not (tmp_path / "out" / "checks").exists()
    lvae("verify", "--deep", "--workers", "2", tmp_path / "out")


def test_the_end_of_a_job_by_steps_gives_the_same_bytes(
    scenes: Path, right: Path, here: list[str], tmp_path: Path
) -> None:
    lvae("encode", scenes, tmp_path / "out", *PIXELS, "--shuffle", "two-passes")
    assert contents(tmp_path / "out") == contents(right)
    wanted = {"fold", "combine", "window", "bundle", "check parts", "check listing", "compare shards"}
    assert wanted <= set(here)


def test_after_an_append_only_what_is_new_is_checked(
    scenes: Path, right: Path, here: list[str], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(right, tmp_path / "out"))
    more = Path(shutil.copytree(scenes, tmp_path / "more"))
    [*first, last] = sorted(more.rglob("*.png"))
    shutil.copy(last, last.with_name("another.png"))
    lvae("encode", more, out, *PIXELS, "--append")
    parts = -(-(len(first) + 1) // 2)
    whole_runs = parts // 16
    assert here.count("check parts") == -(-parts // 16) + (-(-(parts + 1) // 16) - whole_runs)


def test_workers_find_the_faults_that_one_process_finds(right: Path, here: list[str], tmp_path: Path) -> None:
    out = Path(shutil.copytree(right, tmp_path / "out"))
    for damaged in (next(out.glob("raw/*/*.npy")), next(out.glob("shards/*/train.zarr/latents/c/0/0/0/0"))):
        data = bytearray(damaged.read_bytes())
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data)
    (tmp_path / "scratch").mkdir()
    checker = ByWorkers(Folder(tmp_path / "scratch"), Engine("FnApiRunner", (), 1, {}), CONSOLE)
    assert verify(Folder(out), True, checker=checker) == verify(Folder(out), True) != []
    assert not (out / "checks").exists()


def test_what_was_checked_of_a_part_that_is_made_again_counts_no_more(
    scenes: Path, right: Path, here: list[str], tmp_path: Path
) -> None:
    """As on a GPU, which may give another receipt: the check of the first one would be a fault for ever."""
    out = Path(shutil.copytree(right, tmp_path / "out"))
    engine = Engine("FnApiRunner", (), 1, {})
    assert not find_faults(Folder(out), engine, CONSOLE)
    checks = sorted(out.glob(f"checks/{engine.command}/parts/*/*.json"))
    found = json.loads(checks[0].read_bytes())
    checks[0].write_text(json.dumps({**found, "receipts": ["0" * 64, *found["receipts"][1:]]}))
    assert find_faults(Folder(out), engine, CONSOLE)
    forget_checked_parts(Folder(out), engine, [3])
    assert [path.exists() for path in checks] == [False] + [True] * (len(checks) - 1)
    assert not find_faults(Folder(out), engine, CONSOLE)
    (out / "raw/000000/part-000000.json").unlink()
    lvae("encode", scenes, out, *PIXELS)
    assert contents(out) == contents(right)


def test_what_another_command_has_checked_is_checked_again(right: Path, here: list[str], tmp_path: Path) -> None:
    """One that was killed, maybe long ago; or a stranger's, which comes with the dataset."""
    out = Path(shutil.copytree(right, tmp_path / "out"))
    killed, engine = Engine("FnApiRunner", (), 1, {}), Engine("FnApiRunner", (), 1, {})
    assert not find_faults(Folder(out), killed, CONSOLE)
    for damaged in (next(out.glob("raw/*/*.npy")), next(out.glob("shards/*/train.zarr/latents/c/0/0/0/0"))):
        data = bytearray(damaged.read_bytes())
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data)
    assert not find_faults(Folder(out), killed, CONSOLE)
    assert len(find_faults(Folder(out), engine, CONSOLE)) == 2
    assert [path.name for path in (out / "checks").iterdir()] == [engine.command]


def test_statistics_of_shards_alone_are_folded_by_workers(
    right: Path, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they came from the raw parts, which are dropped: nobody goes through all shards alone."""
    out = Path(shutil.copytree(right, tmp_path / "out"))
    drop_raw(Folder(out))
    monkeypatch.delattr(shard_statistics, "moments_from_shards")
    engine = Engine("FnApiRunner", (), 1, {})
    assert not find_faults(Folder(out), engine, CONSOLE)
    [check] = out.glob(f"checks/{engine.command}/shards/*/*.json")
    assert json.loads(check.read_bytes())["moments"]["count"] > 0
    mean = json.loads((out / "manifest.json").read_bytes())["statistics"]["mean"][0]

    def change(content: dict[str, Any]) -> None:
        content["statistics"]["mean"][0] = mean + 0.01

    resign(out, change)
    [fault] = find_faults(Folder(out), engine, CONSOLE)
    assert fault.problem == "statistics.mean is not that of the shards"
