"""The manifest stays small and quick to read whatever the size, and what it leaves to files of the view is checked."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import (
    FileEntry,
    Manifest,
    Split,
    dump_manifest,
    every_file,
    large_fields,
    read_manifest,
    refuse_earlier_format,
)
from lvae.manifests.parts import rows
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.publishing.publish import INLINE_FILES
from lvae.manifests.shards.index import Shard, index_name, read_index, write_index
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.views.selection import resolve_selection
from tests.manifests.dataset_examples import CLASSES, Contents, Example, build, encode, files_of, flip, problems, shard

MOST_BYTES = 64 << 10


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return build(tmp_path_factory.mktemp("dataset"), split={"val": "10"})


def grown(example: Example, folder: Folder, shards: int, classes: int, keys: int) -> Manifest:
    """The manifest of a dataset as it would be with so much more of everything."""
    names = tuple(f"class number {number}" for number in range(classes))
    selection = resolve_selection(names, without_keys=[f"key {number}" for number in range(keys)])
    manifest = replace(example.manifest, classes=names, view=replace(example.manifest.view, selection=selection))
    view, files = manifest.view.name, dict(manifest.files)

    def entry(number: int) -> Shard:
        beside = [f"shards/{view}/train.zarr/{name}/c/{number}" for name in ("labels", "rows", "mirrored")]
        latents = f"shards/{view}/train.zarr/latents/c/{number}/0/0/0"
        return Shard(latents, 8192, 1 << 26, "a" * 64, tuple(FileRecord(path, 1 << 16, "b" * 64) for path in beside))

    index = write_index(folder, index_name(view, "train"), map(entry, range(shards)))
    files[index.path] = FileEntry(index.bytes, index.sha256)
    for path, data in large_fields(view, names, selection).values():
        record = folder.write(path, data)
        files[path] = FileEntry(record.bytes, record.sha256)
    return replace(manifest, splits={"train": Split(8192 * shards, shards, index)}, files=files)


def test_a_manifest_of_60000_shards_stays_below_64_kib(example: Example, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    manifest = grown(example, folder, shards=60_000, classes=20_000, keys=10_000)
    folder.write("manifest.json", dump_manifest(manifest))
    assert len(folder.read("manifest.json")) < MOST_BYTES
    assert read_manifest(folder) == manifest
    assert sum(1 for _ in read_index(folder, manifest.splits["train"].index)) == 60_000


def test_many_classes_and_keys_lie_beside_the_manifest_and_are_read_with_it(tmp_path: Path) -> None:
    classes = (*CLASSES, *(f"a class that no image has {number}" for number in range(2000)))
    gone = ["0/ü00000.png", *(f"never there {number}" for number in range(1000))]
    example = build(tmp_path, Contents(classes=classes), without_keys=gone)
    assert len((tmp_path / "manifest.json").read_bytes()) < MOST_BYTES
    assert Dataset.open(tmp_path).classes == classes and problems(tmp_path) == []
    assert len(example.manifest.view.selection.without_keys or ()) == 1001
    [path] = tmp_path.glob("shards/*/classes.json")
    assert json.loads(path.read_bytes()) == list(classes)
    path.write_bytes(path.read_bytes().replace(b"cat", b"cow"))
    with pytest.raises(LvaeError, match=r"classes\.json: is missing or damaged"):
        Dataset.open(tmp_path)


def test_many_files_of_rows_are_listed_by_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PARTS_PER_FILE", 1)
    example = shard(encode(tmp_path, images=40, part_size=1, rejected=frozenset(), classes=None))
    files = {name for name in files_of(tmp_path) if name.startswith("rows/")}
    assert len(files) == 40 > INLINE_FILES and files.isdisjoint(example.manifest.files)
    assert files <= {record.path for record in every_file(example.folder, example.manifest)}
    assert problems(tmp_path) == []
    flip(tmp_path / "rows/000007.parquet", 50, 1)
    assert any("rows/000007.parquet" in problem for problem in problems(tmp_path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("normalization.scale", [1.0] * 5),
        ("normalization.scale", [1.0, 1.0, 0.0, 1.0]),
        ("normalization.shift", []),
        ("statistics.min", [0.0]),
        ("view.shape", [0, 2, 2]),
        ("view.shape", [4, 2, 1 << 60]),
        ("view.shard_size", 0),
        ("image.size", -16),
        ("autoencoder.downsampling_factor", 0),
        ("counts.latents", -1),
        ("splits.train.count", 1 << 70),
    ],
)
def test_numbers_that_no_dataset_has_are_refused(example: Example, tmp_path: Path, field: str, value: Any) -> None:
    content = records.plain(example.manifest)
    *way, last = field.split(".")
    functools.reduce(dict.__getitem__, way, content)[last] = value
    (tmp_path / "manifest.json").write_bytes(records.signed(content))
    with pytest.raises(LvaeError, match=r"manifest\.json: (has sizes|its normalization)"):
        read_manifest(Folder(tmp_path))


def test_an_index_that_was_changed_or_lost_is_refused(tmp_path: Path) -> None:
    example = build(tmp_path)
    index = example.manifest.splits["train"].index
    data = example.folder.read(index.path)
    example.folder.write(index.path, data.replace(b'"count": 64', b'"count": 63'))
    with pytest.raises(LvaeError, match=r"train\.shards\.jsonl: its bytes are not those that were written"):
        read_index(example.folder, index)
    example.folder.remove(index.path)
    with pytest.raises(LvaeError, match=r"train\.shards\.jsonl: is missing"):
        list(every_file(example.folder, example.manifest))


def shards_inline(content: dict[str, object]) -> None:
    content["splits"] = {"train": {"count": 1, "shards": [{"path": "x", "count": 1, "bytes": 1, "sha256": "0"}]}}


def erased_inline(content: dict[str, object]) -> None:
    content["erased"] = [{"first": 0, "stop": 1, "reason": "asked"}]


@pytest.mark.parametrize(("name", "change"), [("manifest.json", shards_inline), ("plan.json", erased_inline)])
def test_a_dataset_of_before_the_first_release_is_refused_in_one_line(
    tmp_path: Path, name: str, change: Callable[[dict[str, object]], None]
) -> None:
    build(tmp_path)
    content = json.loads((tmp_path / name).read_bytes())
    change(content)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(LvaeError, match=rf"{name}: was written by an earlier version of this program"):
        refuse_earlier_format(Folder(tmp_path))
    with pytest.raises(LvaeError, match="was written by an earlier version of this program"):
        read_plan(Folder(tmp_path)) if name == "plan.json" else Dataset.open(tmp_path)
