from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from dataset_examples import Contents, files_of, flip, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests import rows as rows_module
from lvae.manifests.errors import LvaeError
from lvae.manifests.rows import SCHEMA, DamagedRowsError, ImageRow, ListingHash, RowReader, rows_file, write_rows
from lvae.manifests.storage import Folder

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
image_rows = st.builds(
    ImageRow,
    key=texts,
    container=texts,
    offset=st.integers(-1, 2**63 - 1),
    length=st.integers(0, 2**63 - 1),
    member=texts,
    label=st.integers(-1, 2**31 - 1),
)
ROWS = rows_of(Contents())


@settings(max_examples=30, deadline=None)
@given(st.lists(image_rows, min_size=1, max_size=12), st.integers(1, 5))
def test_what_is_written_is_read(rows: list[ImageRow], part_size: int) -> None:
    with TemporaryDirectory() as root:
        images, parts, _ = write_rows(Folder(root), rows, part_size)
        reader = RowReader(Folder(root), parts)
        assert (images, parts) == (len(rows), -(-len(rows) // part_size))
        assert list(reader) == rows
        for part in reversed(range(parts)):
            assert reader.part(part) == rows[part * part_size : (part + 1) * part_size]


def test_keys_of_any_language_are_kept(tmp_path: Path) -> None:
    keys = ["猫/ü.png", "a b/🐈.jpg", "n\u0303.png", "ñ.png", 'quote".png', "tab\t.png", "x" * 5000]
    rows = [replace(ROWS[0], key=key, member=key, container=key) for key in keys]
    write_rows(Folder(tmp_path), rows, 3)
    assert list(RowReader(Folder(tmp_path), 3)) == rows


@pytest.fixture
def two_parts_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PARTS_PER_FILE", 2)


def test_many_parts_lie_in_several_files(tmp_path: Path, two_parts_a_file: None) -> None:
    assert write_rows(Folder(tmp_path), ROWS, 20)[:2] == (95, 5)
    assert sorted(files_of(tmp_path)) == [rows_file(part) for part in (0, 2, 4)]
    reader = RowReader(Folder(tmp_path), 5)
    assert list(reader) == ROWS
    assert [len(reader.part(part)) for part in (4, 0, 3)] == [15, 20, 20]
    assert reader.part(3) == ROWS[60:80]


def test_a_part_is_one_row_group(tmp_path: Path) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    file = pq.ParquetFile(tmp_path / "rows/000000.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [20, 20, 20, 20, 15]
    assert file.schema_arrow.equals(SCHEMA)


def test_stock_parquet_readers_read_the_rows(tmp_path: Path) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    table = pq.read_table(tmp_path / "rows")
    assert table["key"].to_pylist() == [row.key for row in ROWS]
    assert table["label"].to_pylist() == [row.label for row in ROWS]


def test_columns_are_read_alone(tmp_path: Path) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    table = RowReader(Folder(tmp_path), 5).table(4, ["label"])
    assert table.column_names == ["label"] and table["label"].to_pylist() == [row.label for row in ROWS[80:]]


def test_equal_rows_give_equal_bytes(tmp_path: Path, two_parts_a_file: None) -> None:
    write_rows(Folder(tmp_path / "a"), ROWS, 20)
    write_rows(Folder(tmp_path / "b"), iter(ROWS), 20)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_hash_of_a_listing_does_not_depend_on_the_part_size(tmp_path: Path) -> None:
    hashes = {write_rows(Folder(tmp_path), ROWS, size)[2] for size in (1, 20, 94, 95, 96)}
    digest = ListingHash()
    digest.update(ROWS)
    assert hashes == {digest.hexdigest()}


@pytest.mark.parametrize(
    "change", [{"key": "x"}, {"container": "x"}, {"offset": 1}, {"length": 1}, {"member": "x"}, {"label": 7}], ids=str
)
def test_the_hash_of_a_listing_covers_every_field(change: dict[str, object]) -> None:
    assert change.keys() <= set(SCHEMA.names)

    def hashed(rows: list[ImageRow]) -> str:
        digest = ListingHash()
        digest.update(rows)
        return digest.hexdigest()

    assert hashed(ROWS) != hashed([*ROWS[:50], replace(ROWS[50], **change), *ROWS[51:]])  # type: ignore[arg-type]
    assert hashed(ROWS) != hashed(ROWS[:-1]) and hashed(ROWS) != hashed([ROWS[1], ROWS[0], *ROWS[2:]])


def test_moving_text_between_fields_changes_the_hash() -> None:
    hashes = set()
    for key, container, member in [("ab", "", ""), ("a", "b", ""), ("", "ab", ""), ("a", "", "b"), ("", "", "ab")]:
        digest = ListingHash()
        digest.update([ImageRow(key, container, 0, 1, member, 0)])
        hashes.add(digest.hexdigest())
    assert len(hashes) == 5


def test_a_part_past_the_last_is_an_error_of_ours(tmp_path: Path) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    with pytest.raises(DamagedRowsError):
        RowReader(Folder(tmp_path), 6).part(5)


def test_missing_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedRowsError, match=r"rows/000000\.parquet: cannot be read.*Run 'lvae encode' again\.$"):
        RowReader(Folder(tmp_path), 1).part(0)
    assert issubclass(DamagedRowsError, LvaeError)


@pytest.mark.parametrize("left", [0, 1, 10, 0.5, -1])
def test_rows_cut_short_are_named(tmp_path: Path, left: float) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    path = tmp_path / "rows/000000.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if left == 0.5 else int(left)])
    with pytest.raises(DamagedRowsError, match="000000"):
        list(RowReader(Folder(tmp_path), 5))


def test_any_flipped_bit_leaves_rows_or_an_error_of_ours(tmp_path: Path) -> None:
    """What a flipped bit makes of compressed text need not be text."""
    write_rows(Folder(tmp_path), ROWS, 40)
    path = tmp_path / "rows/000000.parquet"
    data = path.read_bytes()
    for byte in range(0, len(data), 3):
        flip(path, byte, byte // 3 % 8)
        try:
            ListingHash().update(RowReader(Folder(tmp_path), 3))
        except DamagedRowsError:
            pass
        finally:
            path.write_bytes(data)


def test_a_parquet_file_of_something_else_is_damaged_rows(tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"other": [1, 2, 3]}), tmp_path / "rows/000000.parquet")
    with pytest.raises(DamagedRowsError):
        RowReader(Folder(tmp_path), 1).part(0)
