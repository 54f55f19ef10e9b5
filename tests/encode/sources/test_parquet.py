"""Parquet as pyarrow writes it, in the layout of Hugging Face's image column, and damaged or hostile files."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.encode.images import ImageRejected
from lvae.encode.sources.base import Source
from lvae.encode.sources.open import open_reader, open_source
from tests.encode.source_examples import contents, listed, png, refused, survives

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def metadata(names: Any) -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write(path: Path, numbers: range, names: Any = ("cat", "dog", "fish"), **options: Any) -> Path:
    """As `datasets` does."""
    schema = pa.schema([("image", IMAGE), ("label", pa.int64())], metadata=metadata(names) if names else None)
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
    table = pa.table({"image": images, "label": [number % 3 for number in numbers]}, schema=schema)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, **({"row_group_size": 4} | options))
    return path


def test_a_file_in_the_layout_of_hugging_face(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", range(10))
    source, rows = listed(path)
    assert (source.kind, source.classes, source.counts, source.warnings) == ("parquet", ("cat", "dog", "fish"), {}, [])
    assert [(row.key, row.member, row.label) for row in rows[3:6]] == [
        *[("000003", "0:3", 0), ("000004", "1:0", 1), ("000005", "1:1", 2)]
    ]
    assert {(row.container, row.offset, row.length) for row in rows} == {("train.parquet", -1, -1)}
    assert list(contents(path).values()) == [png(number) for number in range(10)]


def test_a_folder_and_a_pattern_of_files(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"data/train-{number:05}-of-00003.parquet", range(5 * number, 5 * number + 5))
    (tmp_path / "data/README.md").write_text("words")
    for place in ("data", "data/train-*.parquet", "data/train-{00000..00002}-of-00003.parquet"):
        _, rows = listed(tmp_path / place)
        assert rows[7].key == "train-00001-of-00003.parquet/000002"
        assert list(contents(tmp_path / place).values()) == [png(number) for number in range(15)]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("options", [{}, {"data_page_version": "2.0"}, {"use_dictionary": False, "row_group_size": 99}])
def test_ways_of_pyarrow_to_write(tmp_path: Path, compression: str, options: dict[str, Any]) -> None:
    path = write(tmp_path / "a.parquet", range(9), compression=compression, **options)
    assert list(contents(path).values()) == [png(number) for number in range(9)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), IMAGE])
@pytest.mark.parametrize("name", ["image", "jpg", "anything"])
def test_the_column_is_found_by_name_or_type(tmp_path: Path, kind: pa.DataType, name: str) -> None:
    pictures = [{"bytes": png(n)} if pa.types.is_struct(kind) else png(n) for n in range(3)]
    table = pa.table({"id": [1, 2, 3], name: pa.array(pictures, kind), "caption": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    source, rows = listed(tmp_path / "a.parquet")
    assert (source.classes, [row.label for row in rows]) == (None, [-1, -1, -1])
    assert list(contents(tmp_path / "a.parquet").values()) == [png(0), png(1), png(2)]


def test_labels_without_names_are_called_by_number(tmp_path: Path) -> None:
    source, _ = listed(write(tmp_path / "a.parquet", range(6), names=None))
    assert source.classes == ("0", "1", "2")


def test_labels_may_be_names(tmp_path: Path) -> None:
    for number, labels in enumerate([["dog", None, "cat"], ["fish", "", "dog"]]):
        table = pa.table({"image": [png(n + 3 * number) for n in range(3)], "label": labels})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    source, rows = listed(tmp_path)
    assert source.classes == ("cat", "dog", "fish")
    assert [row.label for row in rows] == [1, -1, 0, 2, -1, 1]
    assert [str(warning) for warning in source.warnings] == ["2 images have no label, or -1: unlabelled"]


def test_a_path_without_bytes_is_rejected_alone(tmp_path: Path) -> None:
    pictures = [{"bytes": png(0)}, {"bytes": None, "path": "/etc/passwd"}, None, {"bytes": png(3)}]
    pq.write_table(pa.table({"image": pa.array(pictures, IMAGE)}), tmp_path / "a.parquet")
    source, rows = listed(tmp_path / "a.parquet")
    reader = open_reader(source.kind, source.location)
    for row in rows[1:3]:
        with pytest.raises(ImageRejected, match="a path instead of the picture's bytes"):
            reader.read(row)
    assert (reader.read(rows[0]), reader.read(rows[3])) == (png(0), png(3))
    reader.close()


def test_any_order_threads_and_other_processes(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.parquet", range(20 * number, 20 * number + 20))
    source, rows = listed(tmp_path)
    reader = pickle.loads(pickle.dumps(open_reader(source.kind, source.location)))  # noqa: S301  our own
    order = sorted(range(40), key=lambda number: number * 17 % 40)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda number: reader.read(rows[number]), order)) == [png(number) for number in order]
    reader.close()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": [1], "b": ["x"]}, "has no column of pictures called image, but a, b"),
        ({"a": [b"x"], "b": [b"x"]}, "has no column of pictures called image, but a, b"),
        ({"image": [b"x"], "label": [-2]}, "out of range"),
        ({"image": [b"x"], "label": [10**9]}, "out of range"),
        ({"image": pa.array([], pa.binary())}, "no images found"),
        ({"image": [b"x"], "label": ["x" * 5000]}, "too many or too long"),
    ],
)
def test_other_tables_are_one_line(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert said in refused(tmp_path / "a.parquet")


@pytest.mark.parametrize("names", [["a", "a", "b"], "abc", [1, 2, 3], {"a": 1}])
def test_class_names_that_are_none_are_one_line(tmp_path: Path, names: Any) -> None:
    assert "class names in its huggingface metadata" in refused(write(tmp_path / "a.parquet", range(3), names))


def test_labels_beyond_the_names_are_one_line(tmp_path: Path) -> None:
    assert "out of range: its schema names 2 classes" in refused(write(tmp_path / "a.parquet", range(3), ["a", "b"]))


def test_files_that_do_not_belong_together_are_one_line(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", range(3))
    write(tmp_path / "1.parquet", range(3), ["other", "class", "names"])
    assert "1.parquet: has other columns or class names than 0.parquet" in refused(tmp_path)
    (tmp_path / "2.tar").write_bytes(bytes(1024))
    assert "holds tars and Parquet files" in refused(tmp_path)


def test_huge_row_groups_are_warned_of(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"] * 20_001}), tmp_path / "a.parquet")
    assert "row_group_size=1000" in str(listed(tmp_path / "a.parquet")[0].warnings[0])


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", range(9))
    whole = path.read_bytes()
    for length in (0, 3, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "a.parquet" in refused(path)


def test_a_picture_that_stands_for_many_rows_is_held_once(tmp_path: Path) -> None:
    """A kilobyte that would unfold to a third of a gigabyte."""
    pq.write_table(pa.table({"image": [bytes(8 << 20)] * 40}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    before = pa.default_memory_pool().max_memory()
    survives(tmp_path / "a.parquet")
    assert pa.default_memory_pool().max_memory() - before < 100 << 20


@pytest.mark.parametrize(
    ("place", "value"),
    [(11, b"\xff\xff\xff\x7f"), (20, b"\xff\xff\xff\xff\x0f"), (4, b"\xff" * 8)],  # a page of two gigabytes, found so
)
def test_sizes_that_lie_take_no_memory(tmp_path: Path, place: int, value: bytes) -> None:
    path = write(tmp_path / "a.parquet", range(9))
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(data)
    survives(path)


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(-900, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@pytest.mark.parametrize("labels", [[0, 1, 2], ["x", "y", None]])
def test_a_file_with_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, labels: list[Any], changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(pa.table({"image": [png(0), png(1), png(2)], "label": labels}), path)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    survives(path)


def column(tmp_path: Path, kind: pa.DataType | None, values: list[Any]) -> tuple[Source, list[int]]:
    table = pa.table({"image": [png(0)] * len(values), "label": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    source, rows = listed(tmp_path / "a.parquet")
    return source, [row.label for row in rows]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float64(), [0.0, 10.0, None, float("nan")]),
        (pa.float32(), [0.0, 10.0, None, -1.0]),
        (pa.decimal128(9, 2), [Decimal(0), Decimal("10.00"), None, Decimal(-1)]),
        (pa.uint64(), [0, 10, None, None]),
        (pa.list_(pa.int64()), [[0], [10], None, [None]]),
        (pa.list_(pa.float64(), 1), [[0.0], [10.0], [None], [float("nan")]]),
        (pa.dictionary(pa.int8(), pa.int64()), [0, 10, None, -1]),
        (pa.string(), ["0", "10", None, "nan"]),
        (pa.string_view(), ["0", "10.0", None, ""]),
        (pa.large_string(), ["0", "10", None, "NaN"]),
        (pa.dictionary(pa.int8(), pa.string()), ["0", "10", None, "null"]),
        (pa.binary(), [b"0", b"10", None, b""]),
    ],
)
def test_labels_of_any_type_are_read_where_their_meaning_is_plain(
    tmp_path: Path, kind: pa.DataType, values: list[Any]
) -> None:
    source, labels = column(tmp_path, kind, values)
    assert labels == [0, 10, -1, -1]
    assert source.classes == tuple(map(str, range(11)))
    assert source.counts == {"unlabelled": 2}


def test_booleans_are_classes(tmp_path: Path) -> None:
    assert column(tmp_path, pa.bool_(), [True, False, None])[1] == [1, 0, -1]


def test_names_among_which_numbers_stand_stay_names(tmp_path: Path) -> None:
    source, labels = column(tmp_path, pa.string(), ["10", "cat", None])
    assert (source.classes, labels) == (("10", "cat"), [0, 1, -1])


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float64(), [0.5, 1.0]),
        (pa.list_(pa.int64()), [[0, 3], [1]]),
        (pa.list_(pa.float64()), [[0.1, 0.2, 0.3, 0.4], []]),
        (pa.struct([("x", pa.int64())]), [{"x": 1}, None]),
        (pa.timestamp("s"), [0, 1]),
        (pa.date32(), [0, 1]),
    ],
)
def test_a_column_that_cannot_be_classes_is_left_aside_with_a_warning(
    tmp_path: Path, kind: pa.DataType, values: list[Any]
) -> None:
    source, labels = column(tmp_path, kind, values)
    assert (labels, source.classes) == ([-1, -1], None)
    assert [warning.kind for warning in source.warnings] == ["labels not used"]
    assert "'label'" in str(source.warnings[0])


def test_odd_labels_stop_nothing_where_labels_come_from_elsewhere(tmp_path: Path) -> None:
    for kind, values in ((pa.int64(), [-5, 10**12]), (pa.list_(pa.int64()), [[1, 2], []]), (None, [None, None])):
        table = pa.table({"image": [png(0)] * 2, "label": pa.array(values, kind)})
        pq.write_table(table.replace_schema_metadata({b"huggingface": b"nonsense"}), tmp_path / "a.parquet")
        source = open_source(str(tmp_path / "a.parquet"))
        source.reads_labels = False
        assert [row.label for row in source.rows()] == [-1, -1]
        assert not source.warnings


def test_a_column_of_scalars_goes_before_one_of_boxes(tmp_path: Path) -> None:
    table = pa.table({"image": [png(0)], "label": [[1.5, 2.5]], "class": ["cat"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert listed(tmp_path / "a.parquet")[0].classes == ("cat",)


def test_splits_that_are_taken_together_are_told(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write(tmp_path / f"{name}.parquet", range(2))
    source, rows = listed(tmp_path)
    assert len(rows) == 6
    assert [str(warning) for warning in source.warnings] == [
        f"the splits test, train are taken together. Give a pattern for one of them, such as {tmp_path}/test*.parquet"
    ]
    assert not listed(f"{tmp_path}/train*.parquet")[0].warnings


def test_pictures_may_be_views(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([png(1)], pa.binary_view())}), tmp_path / "a.parquet")
    assert list(contents(tmp_path / "a.parquet").values()) == [png(1)]
