import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.publishing.cleaning import clean
from lvae.manifests.storage.locks import writing
from tests.manifests.dataset_examples import Example, build, encode, files_of, problems, shard


@pytest.fixture
def littered(tmp_path: Path) -> tuple[Example, dict[str, bytes], set[str]]:
    """A dataset, its files before things were left in it, and the names of what was left."""
    example = build(tmp_path)
    whole = files_of(tmp_path)
    with_old = shard(example, keep_old=True, seed=1)
    old = {name for name in files_of(tmp_path) if name.startswith("shards/") and name in whole}
    whole = {name: data for name, data in files_of(tmp_path).items() if name not in old}
    for name in (
        ".tmp/half",
        ".tmp/order/train.entries",
        "raw/000000/part-000001.01234567.npy",
        "raw/000000/part-000077.aa.npy",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
        old.add(name)
    return with_old, whole, old


def litter_of(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(root).items() if name != ".lock"}


def test_what_was_left_behind_is_removed_and_nothing_else(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    example, whole, left = littered
    before = files_of(example.root)
    cleaned = clean(str(example.root), raw=False, dry_run=False)
    assert set(cleaned.names) == left and cleaned.bytes == sum(len(before[name]) for name in left)
    assert litter_of(example.root) == whole
    assert clean(str(example.root), raw=False, dry_run=False).names == []
    assert problems(example.root) == []


def test_no_empty_folders_stay(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    example = littered[0]
    clean(str(example.root), raw=False, dry_run=False)
    assert [path.name for path in (example.root / "shards").iterdir()] == [example.manifest.view.name]
    assert not (example.root / ".tmp").exists()


@pytest.mark.parametrize("raw", [False, True])
def test_a_dry_run_removes_nothing(littered: tuple[Example, dict[str, bytes], set[str]], raw: bool) -> None:
    example, _, left = littered
    before = litter_of(example.root)
    cleaned = clean(str(example.root), raw=raw, dry_run=True)
    assert litter_of(example.root) == before
    kept = {name for name in before if name.startswith("raw/") and name.endswith(".npy")} if raw else set()
    assert set(cleaned.names) == left | kept and len(set(cleaned.names)) == len(cleaned.names)
    assert "would be removed" in cleaned.sentence(dry_run=True)


def test_a_dry_run_says_what_the_run_does(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    root = str(littered[0].root)
    assert clean(root, raw=True, dry_run=True) == clean(root, raw=True, dry_run=False)


def test_raw_latents_go_and_receipts_stay(tmp_path: Path) -> None:
    example = build(tmp_path)
    before = files_of(tmp_path)
    cleaned = clean(str(tmp_path), raw=True, dry_run=False)
    raw = {name for name in before if name.startswith("raw/") and name.endswith(".npy")}
    assert set(cleaned.names) == raw and len(raw) == 5
    after = litter_of(tmp_path)
    assert after.keys() == before.keys() - raw
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    assert example.manifest.raw == "dropped" and problems(tmp_path) == []
    assert clean(str(tmp_path), raw=True, dry_run=False).names == []


def test_raw_latents_of_an_unfinished_dataset_are_kept(tmp_path: Path) -> None:
    encode(tmp_path)
    (tmp_path / ".tmp").mkdir(exist_ok=True)
    (tmp_path / ".tmp/half").write_bytes(b"x")
    before = litter_of(tmp_path)
    with pytest.raises(LvaeError, match="is not finished, so its raw latents are still needed"):
        clean(str(tmp_path), raw=True, dry_run=False)
    assert litter_of(tmp_path) == before
    assert clean(str(tmp_path), raw=False, dry_run=False).names == [".tmp/half"]
    assert litter_of(tmp_path) == {name: data for name, data in before.items() if name != ".tmp/half"}


@pytest.mark.parametrize("raw", [False, True])
def test_a_folder_that_is_no_dataset_is_left_alone(tmp_path: Path, raw: bool) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/precious").write_bytes(b"x")
    with pytest.raises(LvaeError, match=r"is not a dataset; nothing is removed\.$"):
        clean(str(tmp_path), raw, dry_run=False)
    assert files_of(tmp_path) == {"shards/precious": b"x"}


def test_a_dataset_with_a_damaged_manifest_is_left_alone(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    root = littered[0].root
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes()[:-100])
    before = litter_of(root)
    with pytest.raises(LvaeError, match=r"manifest\.json"):
        clean(str(root), raw=True, dry_run=False)
    assert litter_of(root) == before


def test_a_dataset_that_is_being_written_is_left_alone(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    example = littered[0]
    before = litter_of(example.root)
    with writing(example.folder), pytest.raises(LvaeError, match="another lvae command is writing here"):
        clean(str(example.root), raw=False, dry_run=False)
    assert litter_of(example.root) == before


def test_a_dry_run_works_beside_a_job(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    example, _, left = littered
    before = files_of(example.root)
    with writing(example.folder):
        assert set(clean(str(example.root), raw=False, dry_run=True).names) == left
    assert files_of(example.root) == before | {".lock": b""}


def test_a_dry_run_needs_no_right_to_write(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    example, _, left = littered
    (example.root / ".lock").unlink(missing_ok=True)
    assert set(clean(str(example.root), raw=False, dry_run=True).names) == left
    assert not (example.root / ".lock").exists()


def test_what_vanishes_while_it_is_listed_is_not_listed(littered: tuple[Example, dict[str, bytes], set[str]]) -> None:
    """A job beside a dry run renames its files all the time, and sweeps folders away."""
    folder = littered[0].folder
    for number in range(200):
        folder.local(f".tmp/order/{number:03d}").write_bytes(b"x")
    listing = folder.names(".tmp")
    assert next(listing) == ".tmp/half"
    folder.sweep()
    assert list(listing) == []


KILLED = """
import os, signal, sys
from lvae.manifests.publishing.cleaning import clean
from lvae.manifests.storage.folder import Folder
remove = Folder.remove
def remove_one(folder, name):
    remove(folder, name)
    if name.endswith(".npy"):
        os.kill(os.getpid(), signal.SIGKILL)
Folder.remove = remove_one
clean(sys.argv[1], True, False)
"""


def test_a_killed_cleaning_leaves_a_dataset_that_tells_the_truth(tmp_path: Path) -> None:
    """The manifest says first that raw latents are gone; then they go."""
    example = build(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL and len(list(tmp_path.glob("raw/*/*.npy"))) == 4
    assert example.manifest.raw == "dropped" and problems(tmp_path) == []
    clean(str(tmp_path), raw=True, dry_run=False)
    assert list(tmp_path.glob("raw/*/*.npy")) == [] and os.listdir(tmp_path / "raw") != []  # noqa: PTH208
