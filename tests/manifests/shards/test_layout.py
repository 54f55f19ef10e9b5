import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import ShardContent, SplitLayout
from lvae.manifests.storage.folder import Folder
from tests.manifests.shard_examples import (
    assert_reads,
    content_of,
    faults,
    files_of,
    layout_of,
    open_split,
    part_of,
    settings_of_layouts,
    write_split,
)

formats = pytest.mark.parametrize("name", ["zarr", "webdataset"])


@pytest.mark.parametrize(
    ("count", "asked", "rows", "shards"),
    [(1, 8192, 64, 1), (64, 8192, 64, 1), (65, 8192, 128, 1), (200, 100, 128, 2), (200, 1, 64, 4), (0, 8192, 64, 0)],
)
def test_shards_are_whole_chunks_and_no_larger_than_the_split(count: int, asked: int, rows: int, shards: int) -> None:
    layout = layout_of("zarr", count, shard_size=asked)
    assert (layout.rows_per_shard, layout.shards) == (rows, shards)
    assert sum(layout.rows_of(number)[1] for number in range(shards)) == count


@pytest.mark.parametrize(("shape", "dtype"), [((3, 256, 256), "uint8"), ((4, 32, 32), "float16"), ((1, 1, 1), "uint8")])
def test_shards_hold_at_most_512_mib(shape: tuple[int, int, int], dtype: str) -> None:
    layout = layout_of("zarr", 10**10, shape=shape, dtype=dtype, shard_size=10**10)
    chunk_bytes = 64 * layout.latent_bytes + 16
    chunks = layout.rows_per_shard // 64
    assert chunks * chunk_bytes + 4 <= 512 << 20 < (chunks + 1) * chunk_bytes + 4


def test_there_is_no_shard_past_the_last() -> None:
    layout = layout_of("zarr", 65)
    assert [layout.rows_of(number) for number in (0, 1)] == [(0, 64), (64, 1)]
    with pytest.raises(IndexError):
        layout.rows_of(2)


@formats
@settings(max_examples=40, deadline=None)
@given(changes=settings_of_layouts(), seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(name: str, changes: dict[str, Any], seed: int) -> None:
    layout = layout_of(name, **changes)
    content = content_of(layout, seed)
    with TemporaryDirectory() as root:
        write_split(name, Path(root), layout, content)
        assert_reads(open_split(name, Path(root), layout), layout, content)
        assert faults(name, Path(root), layout) == []


@settings(max_examples=15, deadline=None)
@given(changes=settings_of_layouts(), dtype=st.sampled_from([None, "float16", "float32", "float64"]))
def test_zarr_and_tar_read_alike(changes: dict[str, Any], dtype: str | None) -> None:
    layouts = {name: layout_of(name, **changes) for name in ("zarr", "webdataset")}
    content = content_of(layouts["zarr"])
    order = np.random.default_rng(0).integers(0, layouts["zarr"].count, 100)
    with TemporaryDirectory() as root:
        for name, layout in layouts.items():
            write_split(name, Path(root), layout, content)
        zarr, tar = (open_split(name, Path(root), layout).read(order, dtype) for name, layout in layouts.items())
    for found, wanted in zip(zarr, tar, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


@formats
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_latents_of_one_value_are_read(tmp_path: Path, name: str, value: float) -> None:
    layout = layout_of(name, 130)
    content = content_of(layout)
    content.latents[...] = value
    write_split(name, tmp_path, layout, content)
    assert_reads(open_split(name, tmp_path, layout), layout, content)


@formats
def test_an_empty_split_is_read(tmp_path: Path, name: str) -> None:
    layout = layout_of(name, 0)
    content = content_of(layout)
    write_split(name, tmp_path, layout, content)
    reader = open_split(name, tmp_path, layout)
    assert len(reader) == 0 and reader.latents[:].shape == (0, 2, 3, 4) and len(reader.rows) == len(reader.labels) == 0
    assert reader.read([])[0].shape == (0, 2, 3, 4)


@formats
def test_bytes_do_not_depend_on_the_order_of_writing(tmp_path: Path, name: str) -> None:
    layout = layout_of(name, 300, log_variances=True)
    content = content_of(layout)
    write_split(name, tmp_path / "a", layout, content)
    write_split(name, tmp_path / "b", layout, content, order=[3, 0, 4, 2, 1, 2])
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@formats
def test_records_name_every_file_once_with_its_hash(tmp_path: Path, name: str) -> None:
    layout = layout_of(name, 130, log_variances=True)
    records = write_split(name, tmp_path, layout, content_of(layout))
    assert sorted(record.path for record in records) == sorted(files_of(tmp_path))
    assert all(record == Folder(tmp_path).record(record.path) for record in records)


@formats
def test_content_that_is_not_the_layouts_is_refused(tmp_path: Path, name: str) -> None:
    layout = layout_of(name, 10)
    good = content_of(layout)
    wrong = [
        ShardContent(good.latents[1:], None, good.labels, good.rows, good.mirrored, good.keys),
        ShardContent(good.latents.astype("f4"), None, good.labels, good.rows, good.mirrored, good.keys),
        ShardContent(good.latents, good.latents, good.labels, good.rows, good.mirrored, good.keys),
        ShardContent(good.latents, None, good.labels.astype("i8"), good.rows, good.mirrored, good.keys),
    ]
    for content in wrong:
        with pytest.raises(ValueError, match="belongs"):
            codec(name).write_shard(Folder(tmp_path), "v", layout, 0, content)
    assert files_of(tmp_path) == {}


@pytest.fixture(params=["zarr", "webdataset"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, SplitLayout, ShardContent]:
    layout = layout_of(request.param, 200)
    content = content_of(layout)
    write_split(request.param, tmp_path, layout, content)
    return request.param, tmp_path, layout, content


def test_indices_out_of_range_are_refused(written: tuple[str, Path, SplitLayout, ShardContent]) -> None:
    name, root, layout, _ = written
    reader = open_split(name, root, layout)
    for wrong in ([-1], [200], [3, 5, 2**40]):
        with pytest.raises(IndexError):
            reader.read(wrong)


def test_reads_give_fresh_contiguous_arrays(written: tuple[str, Path, SplitLayout, ShardContent]) -> None:
    name, root, layout, content = written
    reader = open_split(name, root, layout)
    for dtype in (None, "float32"):
        latents, labels = reader.read([5, 5, 199], dtype)
        assert latents.flags.c_contiguous and latents.flags.writeable and labels.flags.writeable
        latents[...] = labels[...] = 0
    assert_reads(reader, layout, content)


def test_a_reader_survives_closing_and_pickling(written: tuple[str, Path, SplitLayout, ShardContent]) -> None:
    name, root, layout, content = written
    reader = open_split(name, root, layout)
    assert_reads(reader, layout, content)
    reader.close()
    assert_reads(pickle.loads(pickle.dumps(reader)), layout, content)  # noqa: S301 (our own bytes)


def test_every_missing_shard_is_named(written: tuple[str, Path, SplitLayout, ShardContent]) -> None:
    name, root, layout, _ = written
    for path, data in files_of(root).items():
        (root / path).unlink()
        assert [fault for fault in faults(name, root, layout) if path in fault]
        with pytest.raises(LvaeError, match=f"{path}.* missing"):
            open_split(name, root, layout)
        (root / path).write_bytes(data)
    assert faults(name, root, layout) == []


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1, -2000])
def test_every_shard_cut_short_is_named(written: tuple[str, Path, SplitLayout, ShardContent], left: float) -> None:
    name, root, layout, _ = written
    for path, data in files_of(root).items():
        if path.endswith("zarr.json") or len(data) <= abs(left):
            continue
        (root / path).write_bytes(data[: int(len(data) * left) if left == 0.5 else int(left)])
        with pytest.raises(LvaeError, match=path):
            open_split(name, root, layout)
        assert any(path in fault for fault in faults(name, root, layout))
        (root / path).write_bytes(data)


def test_a_shard_that_vanishes_after_opening_is_named(written: tuple[str, Path, SplitLayout, ShardContent]) -> None:
    name, root, layout, _ = written
    reader = open_split(name, root, layout)
    shutil.rmtree(root / "shards")
    with pytest.raises(LvaeError, match="missing"):
        reader.read([0])


@formats
def test_opening_and_reading_loads_neither_zarr_nor_webdataset_nor_torch(tmp_path: Path, name: str) -> None:
    layout = layout_of(name, 65)
    write_split(name, tmp_path, layout, content_of(layout))
    script = f"""
import sys
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import SplitLayout
from lvae.manifests.storage.folder import Folder
codec({name!r}).open_split(Folder({str(tmp_path)!r}), "v", {layout!r}).read([64, 0], "float32")
print(sorted({{"zarr", "webdataset", "torch", "PIL", "apache_beam"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(LvaeError, match=r"'lmdb'.*zarr or webdataset"):
        codec("lmdb")


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(LvaeError, match="bfloat16"):
        layout_of("zarr", 1, dtype="bfloat16")


def test_a_part_of_a_content_is_a_shard() -> None:
    layout = layout_of("zarr", 65)
    part_of(content_of(layout), layout, 1).expect(layout, 1)


def test_members_of_an_endless_width_are_refused() -> None:
    with pytest.raises(LvaeError, match="a width that no label or key has"):
        SplitLayout("train", 9, (4, 2, 2), "float16", 64, False, True, label_width=2, json_width=10**12)
