import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, ZstdCodec

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.layout import ShardContent, SplitLayout
from lvae.manifests.shards.zarr_format import StockRows
from tests.manifests.shard_examples import (
    assert_reads,
    content_of,
    faults,
    files_of,
    layout_of,
    open_split,
    write_split,
)

GROUP = "shards/v/train.zarr"
ARRAYS = ["latents", "log_variances", "labels", "rows", "mirrored"]


def rewrite(root: Path, layout: SplitLayout, content: ShardContent, name: str, **changes: Any) -> None:
    """Another program's array in the place of ours."""
    values = getattr(content, name)
    per_row = values.ndim == 1
    settings = {
        "name": name,
        "shape": values.shape,
        "dtype": values.dtype,
        "chunks": (layout.rows_per_shard if per_row else 64, *values.shape[1:]),
        "shards": None if per_row else (layout.rows_per_shard, *values.shape[1:]),
        "compressors": None,
        "fill_value": -1 if name in ("labels", "rows") else values.dtype.type(0),
        "dimension_names": ["row", "channel", "height", "width"][: values.ndim],
        "overwrite": True,
    }
    zarr.open_group(root / GROUP, mode="a").create_array(**(settings | changes))[...] = values


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, SplitLayout, ShardContent]:
    """Two shards, the second one with a missing and a partial chunk."""
    layout = layout_of("zarr", 200, shard_size=128, log_variances=True)
    content = content_of(layout)
    write_split("zarr", tmp_path / "ours", layout, content)
    return tmp_path / "ours", layout, content


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("count", [1, 64, 129, 200])
def test_files_are_those_of_zarr_python(tmp_path: Path, dtype: str, count: int) -> None:
    layout = layout_of("zarr", count, shard_size=128, dtype=dtype, log_variances=True)
    content = content_of(layout)
    content.latents[:70] = 0  # chunks that zarr-python leaves out unless told otherwise
    write_split("zarr", tmp_path / "ours", layout, content)
    zarr.create_group(tmp_path / "theirs" / GROUP)
    for name in ARRAYS:
        rewrite(tmp_path / "theirs", layout, content, name, config={"write_empty_chunks": True})
    ours, theirs = files_of(tmp_path / "ours"), files_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for path, data in ours.items():
        if path.endswith("zarr.json"):
            assert json.loads(data) == json.loads(theirs[path]), path
        else:
            assert data == theirs[path], path


def test_zarr_python_reads_every_array(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, _, content = example
    group = zarr.open_group(root / GROUP, mode="r")
    assert sorted(group.array_keys()) == sorted(ARRAYS)
    for name in ARRAYS:
        found, wanted = group[name][...], getattr(content, name)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_latents_are_mapped_and_not_read_through_zarr(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, _ = example
    reader: Any = open_split("zarr", root, layout)
    assert not any(isinstance(reader._open(name, n), StockRows) for name in ARRAYS for n in range(layout.shards))


@pytest.mark.parametrize(
    "changes",
    [
        {"compressors": ZstdCodec(level=3)},
        {"chunks": (32, 2, 3, 4), "shards": (128, 2, 3, 4)},
        {"chunks": (50, 1, 3, 4), "shards": None},
        {"serializer": BytesCodec(endian="big")},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
    ids=["zstd", "chunks", "unsharded", "big-endian", "keys"],
)
def test_latents_written_by_others_are_read_through_zarr(
    example: tuple[Path, SplitLayout, ShardContent], changes: dict[str, Any]
) -> None:
    root, layout, content = example
    for name in ("latents", "log_variances"):
        rewrite(root, layout, content, name, **changes)
    reader: Any = open_split("zarr", root, layout)
    assert isinstance(reader._open("latents", 0), StockRows)
    assert_reads(reader, layout, content)
    assert len(faults("zarr", root, layout)) == 2  # verify says so


def test_compressed_labels_and_rows_are_read_through_zarr(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, content = example
    for name in ("labels", "rows", "mirrored"):
        rewrite(root, layout, content, name, compressors=ZstdCodec(level=3))
    assert_reads(open_split("zarr", root, layout), layout, content)


def test_a_shard_without_its_chunks_of_zeros_is_read_through_zarr(
    example: tuple[Path, SplitLayout, ShardContent],
) -> None:
    root, layout, content = example
    content.latents[:64] = 0
    rewrite(root, layout, content, "latents")
    reader: Any = open_split("zarr", root, layout)
    assert [isinstance(reader._open("latents", number), StockRows) for number in (0, 1)] == [True, False]
    assert_reads(reader, layout, content)


def test_a_missing_shard_of_others_is_named(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, content = example
    rewrite(root, layout, content, "latents", compressors=ZstdCodec(level=3))
    (root / GROUP / "latents/c/1/0/0/0").unlink()
    with pytest.raises(LvaeError, match="latents/c/1/0/0/0: this shard is missing"):
        open_split("zarr", root, layout)


def test_a_damaged_shard_of_others_is_named(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, content = example
    rewrite(root, layout, content, "latents", compressors=ZstdCodec(level=3))
    path = root / GROUP / "latents/c/0/0/0/0"
    path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])
    with pytest.raises(LvaeError, match="latents: rows 0 to 64 cannot be read"):
        open_split("zarr", root, layout).read([3])


@pytest.mark.parametrize("position", [-1, -4, -10, -30])
def test_a_damaged_index_is_named(example: tuple[Path, SplitLayout, ShardContent], position: int) -> None:
    root, layout, _ = example
    path = root / GROUP / "latents/c/0/0/0/0"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    assert [fault for fault in faults("zarr", root, layout) if "latents/c/0/0/0/0: its index is damaged" in fault]
    with pytest.raises(LvaeError, match="latents/c/0/0/0/0: its index is damaged"):
        open_split("zarr", root, layout).read([3])


def test_an_index_that_points_outside_is_refused(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    from lvae.manifests.shards.zarr_layout import _crc32c

    root, layout, _ = example
    path = root / GROUP / "latents/c/0/0/0/0"
    index = np.array([[0, 3072], [2**63, 2**63]], "<u8").tobytes()
    path.write_bytes(path.read_bytes()[:6144] + index + _crc32c(index))
    with pytest.raises(LvaeError, match="its index is damaged"):
        open_split("zarr", root, layout).read([3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not a JSON object"),
        (b"\xff\xfe{}", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b"{}", "zarr cannot open"),
        (b'{"zarr_format": 3, "node_type": "array"}', "zarr cannot open"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_broken_metadata_is_named(example: tuple[Path, SplitLayout, ShardContent], text: bytes, message: str) -> None:
    root, layout, _ = example
    (root / GROUP / "latents/zarr.json").write_bytes(text)
    with pytest.raises(LvaeError, match=f"latents.*{message}"):
        open_split("zarr", root, layout)
    assert len(faults("zarr", root, layout)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda codec: codec["configuration"]["index_codecs"].reverse(),
        lambda codec: codec["configuration"].update(chunk_shape=[1 << 40, 3, 4, 4]),
        lambda codec: codec["configuration"].update(codecs=[]),
    ],
    ids=["order", "chunks", "none"],
)
def test_metadata_that_no_program_writes_is_named(
    example: tuple[Path, SplitLayout, ShardContent], change: Callable[[Any], None]
) -> None:
    root, layout, _ = example
    path = root / GROUP / "latents/zarr.json"
    content = json.loads(path.read_bytes())
    change(content["codecs"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(LvaeError, match=r"latents.*(cannot open|cannot be read)"):
        open_split("zarr", root, layout).read([3])


def test_arrays_of_another_shape_or_dtype_are_named(example: tuple[Path, SplitLayout, ShardContent]) -> None:
    root, layout, content = example
    wrong = ShardContent(content.latents[:100], None, content.labels.astype("i8"), content.rows, content.mirrored, [])
    rewrite(root, layout, wrong, "labels")
    with pytest.raises(LvaeError, match=r"labels: holds int64\[200\] where int32\[200\] belongs"):
        open_split("zarr", root, layout)
    rewrite(root, layout, wrong, "latents")
    with pytest.raises(LvaeError, match=r"latents: holds float16\[100, 2, 3, 4\] where"):
        open_split("zarr", root, layout)
