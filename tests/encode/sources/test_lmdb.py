"""LMDB folders as the lmdb library writes them, and damaged ones, which must not end the process."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.encode.sources.open import open_reader
from tests.encode.source_examples import contents, listed, png, refused, survives

lmdb = pytest.importorskip("lmdb")
PAGE = 4096


def write(folder: Path, values: dict[bytes, bytes], **options: Any) -> Path:
    with (
        lmdb.open(str(folder), map_size=1 << 26, **options) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            transaction.put(key, value)
    return folder


def lsun(folder: Path, count: int = 90) -> dict[bytes, bytes]:
    """Hashes for keys, small and large values mixed; three levels of pages where there are many."""
    random.seed(0)
    values = {random.randbytes(20).hex().encode(): png(number, (4, 70, 16)[number % 3]) for number in range(count)}
    write(folder, values)
    return values


def test_lsun_is_read_in_place(tmp_path: Path) -> None:
    values = lsun(tmp_path / "church_lmdb", 700)
    source, rows = listed(tmp_path / "church_lmdb")
    assert (source.kind, source.classes, source.counts) == ("lmdb", None, {"unlabelled": 700})
    assert [row.key.encode() for row in rows] == sorted(values)
    data = (tmp_path / "church_lmdb/data.mdb").read_bytes()
    for row in rows:
        assert row.container == "data.mdb"
        assert data[row.offset :][: row.length] == values[row.member.encode()]
    assert contents(tmp_path / "church_lmdb/data.mdb") == {key.decode(): value for key, value in values.items()}


def test_the_library_and_we_see_the_same_after_deletions_and_updates(tmp_path: Path) -> None:
    values = lsun(tmp_path, 300)
    with lmdb.open(str(tmp_path), map_size=1 << 26) as environment:
        for number, key in enumerate(sorted(values)):
            with environment.begin(write=True) as transaction:
                if number % 3 == 0:
                    transaction.delete(key)
                elif number % 3 == 1:
                    transaction.put(key, png(1000 + number, 50))
        with environment.begin() as transaction:
            expected = {key.decode(): bytes(value) for key, value in transaction.cursor()}
    assert contents(tmp_path) == expected
    assert list(contents(tmp_path)) == list(expected)


def test_keys_of_any_bytes_are_reversible(tmp_path: Path) -> None:
    keys = [b"\xff\x00", b"caf\xc3\xa9", b"hex:00", b"a\nb", b"plain"]
    write(tmp_path, dict.fromkeys(keys, png(1, 60)))
    found = [row.member for row in listed(tmp_path)[1]]
    assert found == ["hex:610a62", "café", "hex:6865783a3030", "plain", "hex:ff00"]
    back = [bytes.fromhex(name[4:]) if name.startswith("hex:") else name.encode() for name in found]
    assert back == sorted(keys)


def test_counters_beside_the_pictures_are_no_pictures(tmp_path: Path) -> None:
    write(tmp_path, {b"0": png(0), b"1": png(1, 60), b"__len__": b"2", b"info.json": png(2), b"2": b"x" * 5000})
    source, rows = listed(tmp_path)
    assert [row.key for row in rows] == ["0", "1", "2"]  # what is large is looked at when it is opened
    assert source.counts == {"not images": 2, "unlabelled": 3}


@pytest.mark.parametrize("options", [{"subdir": False}, {"map_async": True, "writemap": True}])
def test_ways_of_the_library_to_write(tmp_path: Path, options: dict[str, Any]) -> None:
    place = tmp_path / "some.lmdb"
    write(place, {b"a": png(1), b"b": png(2, 80)}, **options)
    assert contents(place) == {"a": png(1), "b": png(2, 80)}


def test_what_is_not_one_tree_of_pictures_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "named"), map_size=1 << 24, max_dbs=2) as environment:
        environment.open_db(b"inside")
    assert "databases inside" in refused(tmp_path / "named")
    with lmdb.open(str(tmp_path / "empty"), map_size=1 << 24):
        pass
    assert "no images found" in refused(tmp_path / "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/data.mdb").write_bytes(b"words" * 2000)
    assert "not an LMDB" in refused(tmp_path / "other")


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    lsun(tmp_path)
    whole = (tmp_path / "data.mdb").read_bytes()
    for length in [0, 15, 100, PAGE, 2 * PAGE + 1, *range(3 * PAGE, len(whole), 7 * PAGE)]:
        (tmp_path / "data.mdb").write_bytes(whole[:length])
        assert "data.mdb" in refused(tmp_path)


def test_a_file_that_became_shorter_is_not_an_image_to_reject(tmp_path: Path) -> None:
    lsun(tmp_path)
    source, rows = listed(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(Exception, match="shorter than when it was listed"):
        open_reader(source.kind, source.location).read(rows[0])


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_an_lmdb_with_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("lmdb")
    lsun(folder, 30)
    data = bytearray((folder / "data.mdb").read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    (folder / "data.mdb").write_bytes(data)
    survives(folder)


def root_of(data: bytes) -> int:
    """The offset of the root page, by the newer meta page."""
    metas = [data[: 2 * PAGE][at : at + PAGE] for at in (0, PAGE)]
    newer = max(metas, key=lambda meta: int.from_bytes(meta[16 + 128 :][:8], "little"))
    return int.from_bytes(newer[16 + 112 :][:8], "little") * PAGE


@pytest.mark.parametrize(
    "forge",
    [
        lambda data, at: data[at : at + 8].__setitem__(slice(0, 8), b"\xff" * 8),
        lambda data, at: data.__setitem__(
            slice(at + 12, at + 14), b"\xff\xff"
        ),  # more nodes than the page has room for
        lambda data, at: data.__setitem__(slice(at + 16, at + 18), b"\xfe\x0f"),  # the first node at the page's end
        lambda data, at: data.__setitem__(slice(at + 10, at + 12), b"\1\0"),  # a leaf that calls itself a branch
    ],
)
def test_forged_pages_are_one_line(tmp_path: Path, forge: Callable[[bytearray, int], None]) -> None:
    write(tmp_path, {b"a": png(0), b"b": png(1)})
    data = bytearray((tmp_path / "data.mdb").read_bytes())
    forge(data, root_of(data))
    (tmp_path / "data.mdb").write_bytes(data)
    survives(tmp_path)
