from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts import rows as rows_module
from lvae.manifests.parts.rows import (
    SCHEMA,
    UNLABELLED,
    DamagedRowsError,
    ImageRow,
    Listing,
    ListingHash,
    RowReader,
    Segment,
    rows_file,
    write_rows,
)
from lvae.manifests.storage.folder import Folder
from tests.manifests.dataset_examples import Contents, files_of, flip, rows_of

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
names = texts.map(lambda text: f"a{text}").filter(lambda name: "://" not in name and ".." not in name.split("/"))
image_rows = st.builds(
    ImageRow,
    key=names,
    container=names,
    offset=st.integers(-1, 2**63 - 1),
    length=st.integers(0, 2**63 - 1),
    member=texts,
    label=st.integers(-1, 2**31 - 1),
)
ROWS = rows_of(Contents())


def listing(images: int = 95, part_size: int = 20, classes: tuple[str, ...] | None = None) -> Listing:
    return Listing((Segment("folder", images, "", part_size, classes),))


def reader_of(root: Path | str, images: int = 95, part_size: int = 20) -> RowReader:
    return RowReader(Folder(root), listing(images, part_size))


@settings(max_examples=30, deadline=None)
@given(st.lists(image_rows, min_size=1, max_size=12), st.integers(1, 5))
def test_what_is_written_is_read(rows: list[ImageRow], part_size: int) -> None:
    with TemporaryDirectory() as root:
        images, _ = write_rows(Folder(root), rows, part_size)
        reader = reader_of(root, images, part_size)
        assert images == len(rows)
        assert list(reader.segment(0)) == rows
        for part in reversed(range(reader.listing.parts)):
            assert reader.part(part) == rows[part * part_size : (part + 1) * part_size]


def test_keys_of_any_language_are_kept(tmp_path: Path) -> None:
    keys = ["猫/ü.png", "a b/🐈.jpg", "n\u0303.png", "ñ.png", 'quote".png', "tab\t.png", "x" * 5000]
    rows = [ROWS[0]._replace(key=key, member=key, container=key) for key in keys]
    write_rows(Folder(tmp_path), rows, 3)
    assert list(reader_of(tmp_path, 7, 3).segment(0)) == rows


@pytest.fixture
def two_parts_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "PARTS_PER_FILE", 2)


def test_many_parts_lie_in_several_files(tmp_path: Path, two_parts_a_file: None) -> None:
    assert write_rows(Folder(tmp_path), ROWS, 20)[0] == 95
    reader = reader_of(tmp_path)
    assert sorted(files_of(tmp_path)) == reader.listing.files == [rows_file(number) for number in range(3)]
    assert list(reader.segment(0)) == ROWS
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
    table = reader_of(tmp_path).listed(4, ["label"])
    assert table.column_names == ["label"] and table["label"].to_pylist() == [row.label for row in ROWS[80:]]


def test_equal_rows_give_equal_bytes(tmp_path: Path, two_parts_a_file: None) -> None:
    write_rows(Folder(tmp_path / "a"), ROWS, 20)
    write_rows(Folder(tmp_path / "b"), iter(ROWS), 20)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_hash_of_a_listing_does_not_depend_on_the_part_size(tmp_path: Path) -> None:
    hashes = {write_rows(Folder(tmp_path), ROWS, size)[1] for size in (1, 20, 94, 95, 96)}
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

    assert hashed(ROWS) != hashed([*ROWS[:50], ROWS[50]._replace(**change), *ROWS[51:]])  # type: ignore[arg-type]
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
        reader_of(tmp_path, 110).part(5)


def test_missing_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedRowsError, match=r"rows/000000\.parquet: cannot be read.*Run 'lvae encode' again\.$"):
        reader_of(tmp_path).part(0)
    assert issubclass(DamagedRowsError, LvaeError)


@pytest.mark.parametrize("left", [0, 1, 10, 0.5, -1])
def test_rows_cut_short_are_named(tmp_path: Path, left: float) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    path = tmp_path / "rows/000000.parquet"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left) if left == 0.5 else int(left)])
    with pytest.raises(DamagedRowsError, match="000000"):
        list(reader_of(tmp_path).segment(0))


def test_any_flipped_bit_leaves_rows_or_an_error_of_ours(tmp_path: Path) -> None:
    """What a flipped bit makes of compressed text need not be text."""
    write_rows(Folder(tmp_path), ROWS, 40)
    path = tmp_path / "rows/000000.parquet"
    data = path.read_bytes()
    for byte in range(0, len(data), 3):
        flip(path, byte, byte // 3 % 8)
        try:
            ListingHash().update(reader_of(tmp_path, 95, 40).segment(0))
        except DamagedRowsError:
            pass
        finally:
            path.write_bytes(data)


def test_a_parquet_file_of_something_else_is_damaged_rows(tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"other": [1, 2, 3]}), tmp_path / "rows/000000.parquet")
    with pytest.raises(DamagedRowsError):
        reader_of(tmp_path).part(0)


# --- segments --------------------------------------------------------------------------------------------------------

segments = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 5)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(segments)
def test_parts_rows_and_files_run_through_all_segments(sizes: list[tuple[int, int]]) -> None:
    whole = Listing(tuple(Segment("folder", images, "", part_size, None) for images, part_size in sizes))
    places = [whole.place(part) for part in range(whole.parts)]
    rows = [row for place in places for row in range(place.first_row, place.first_row + place.rows)]
    assert rows == list(range(whole.images))
    parts = [part for part, place in enumerate(places) for _ in range(place.rows)]
    assert whole.parts_of(np.arange(whole.images)).tolist() == parts
    for number, (images, part_size) in enumerate(sizes):
        own = [places[part] for part in whole.segment_parts(number)]
        assert {place.segment for place in own} == {number} and sum(place.rows for place in own) == images
        assert max(place.rows for place in own) <= part_size
        assert {place.file for place in own} == set(whole.segment_files(number))
    assert len({(place.file, place.group) for place in places}) == whole.parts


def test_another_segment_leaves_the_files_of_the_first_alone(tmp_path: Path, two_parts_a_file: None) -> None:
    write_rows(Folder(tmp_path), ROWS[:50], 20)
    before = files_of(tmp_path)
    first = Segment("folder", 50, "", 20, None)
    write_rows(Folder(tmp_path), ROWS[50:], 10, first_file=first.files)
    reader = RowReader(Folder(tmp_path), Listing((first, Segment("folder", 45, "", 10, None))))
    assert [row for part in range(reader.listing.parts) for row in reader.part(part)] == ROWS
    assert before.items() <= files_of(tmp_path).items()


def test_classes_are_united_by_name_and_sorted_where_each_scan_sorted_them() -> None:
    def united(*classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return Listing(tuple(Segment("folder", 1, "", 1, names) for names in classes)).classes

    assert united(("b", "d"), ("a", "d"), None) == ("a", "b", "d")
    assert united(("d", "b"), ("a", "b")) == ("d", "b", "a")
    assert united(None, None) is None


def test_labels_are_those_of_the_whole_dataset_and_rows_keep_their_own(tmp_path: Path) -> None:
    names = [("cat", "dog"), ("ant", "dog"), None]
    labels = [[0, 1, -1], [0, 1, 1], [-1]]
    written: list[Segment] = []
    for classes, numbers in zip(names, labels, strict=True):
        rows = [ROWS[0]._replace(key=f"{len(written)}/{index}", label=label) for index, label in enumerate(numbers)]
        write_rows(Folder(tmp_path), rows, 5, first_file=len(written))
        written.append(Segment("folder", len(rows), "", 5, classes))
    reader = RowReader(Folder(tmp_path), Listing(tuple(written)))
    assert reader.listing.classes == ("ant", "cat", "dog")
    assert [reader.keys_and_labels(part)[1].tolist() for part in range(3)] == [[1, 2, UNLABELLED], [0, 2, 2], [-1]]
    assert [row.label for row in reader.part(1)] == [0, 1, 1]


def test_a_label_that_stands_for_no_class_is_damage(tmp_path: Path) -> None:
    write_rows(Folder(tmp_path), ROWS, 20)
    with pytest.raises(DamagedRowsError, match="stand for no class"):
        RowReader(Folder(tmp_path), listing(classes=("cat",))).keys_and_labels(0)
