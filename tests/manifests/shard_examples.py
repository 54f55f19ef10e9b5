"""Splits with contents made from a seed, for the tests of the shard formats."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import ShardContent, SplitLayout, SplitReader
from lvae.manifests.storage.folder import FileRecord, Folder

KEYS = ["n01440764/a.JPEG", "a b/ü/猫.png", "dots.in/a.name.tar.gz", "byte\udcff.png", 'quote"\\.png', "x" * 900]


def layout_of(name: str, count: int, **changes: object) -> SplitLayout:
    settings: dict[str, object] = {
        "split": "train",
        "count": count,
        "shape": (2, 3, 4),
        "dtype": "float16",
        "shard_size": 64,
        "log_variances": False,
        "labelled": True,
        "label_width": 4,
        "json_width": codec(name).json_width(10**6, KEYS),
    }
    return SplitLayout(**(settings | changes))  # type: ignore[arg-type]


@st.composite
def settings_of_layouts(draw: st.DrawFn) -> dict[str, object]:
    """Arguments of `layout_of`, with counts about the borders of chunks and shards."""
    return {
        "count": draw(st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129, 200])),
        "shape": draw(st.tuples(*[st.integers(1, 5)] * 3)),
        "dtype": draw(st.sampled_from(["float16", "float32", "uint8"])),
        "shard_size": draw(st.sampled_from([1, 64, 100, 128, 8192])),
        "log_variances": draw(st.booleans()),
        "labelled": draw(st.booleans()),
    }


def content_of(layout: SplitLayout, seed: int = 0) -> ShardContent:
    """The whole split."""
    random = np.random.default_rng(seed)
    shape = (layout.count, *layout.shape)

    def latents() -> np.ndarray:
        if layout.dtype == "uint8":
            return random.integers(0, 256, shape, np.uint8)
        return random.standard_normal(shape).astype(layout.dtype)

    return ShardContent(
        latents(),
        latents() if layout.log_variances else None,
        random.integers(-1, 1000 if layout.labelled else 0, layout.count, np.int32),
        random.integers(0, 10**6, layout.count),
        random.random(layout.count) < 0.5,
        [KEYS[index] for index in random.integers(0, len(KEYS), layout.count)],
    )


def part_of(content: ShardContent, layout: SplitLayout, number: int) -> ShardContent:
    first, count = layout.rows_of(number)
    here = slice(first, first + count)
    return ShardContent(
        content.latents[here],
        None if content.log_variances is None else content.log_variances[here],
        content.labels[here],
        content.rows[here],
        content.mirrored[here],
        content.keys[here],
    )


def write_split(
    name: str, root: Path, layout: SplitLayout, content: ShardContent, order: list[int] | None = None
) -> list[FileRecord]:
    """The view "v" of a dataset at `root`."""
    records = codec(name).prepare(Folder(root), "v", layout)
    for number in range(layout.shards) if order is None else order:
        records += codec(name).write_shard(Folder(root), "v", layout, number, part_of(content, layout, number))
    return records


def open_split(name: str, root: Path, layout: SplitLayout) -> SplitReader:
    return codec(name).open_split(Folder(root), "v", layout)


def faults(name: str, root: Path, layout: SplitLayout) -> list[str]:
    return list(codec(name).check(Folder(root), "v", layout))


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_reads(reader: SplitReader, layout: SplitLayout, content: ShardContent) -> None:
    """The reader gives every array of the content, dtypes included, whole and through `read`."""
    assert len(reader) == layout.count
    expected = [(reader.latents, content.latents), (reader.labels, content.labels), (reader.rows, content.rows)]
    expected += [(reader.mirrored, content.mirrored)]
    assert (reader.log_variances is None) == (content.log_variances is None)
    if content.log_variances is not None:
        expected.append((reader.log_variances, content.log_variances))
    for found, wanted in expected:
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        np.testing.assert_array_equal(np.asarray(found), wanted)
    for shard in range(layout.shards):
        first, count = layout.rows_of(shard)
        for name in ("labels", "rows", "mirrored"):
            found, wanted = getattr(reader.facts(shard), name), getattr(content, name)[first : first + count]
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
    order = np.random.default_rng(0).integers(0, layout.count, 50)
    latents, labels = reader.read(order)
    assert latents.dtype == content.latents.dtype and labels.dtype == np.int32
    np.testing.assert_array_equal(latents, content.latents[order])
    np.testing.assert_array_equal(labels, content.labels[order])
