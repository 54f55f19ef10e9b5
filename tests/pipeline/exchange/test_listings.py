"""Listings of caches with a file an image: sorted in bounded memory, labels joined as they come."""

import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.encode.files.locations import Seen
from lvae.encode.sources.labels import parse_dataset_json
from lvae.manifests.errors import LvaeError
from lvae.pipeline.exchange.caches.dataset_json import read_label_pairs
from lvae.pipeline.exchange.caches.files import FolderFiles
from lvae.pipeline.exchange.caches.open import open_cache
from lvae.pipeline.exchange.caches.sorting import RUN, sort_many
from lvae.pipeline.exchange.caches.zip_directory import read_directory
from lvae.pipeline.exchange.stored_zip import StoredZip
from tests.pipeline.exchange import cache_examples as examples


def test_more_than_memory_is_to_hold_is_sorted() -> None:
    numbers = np.random.default_rng(0).permutation(RUN + 100)
    items = [(f"{number % 7}\n\udcff{number}", int(number)) for number in numbers]
    assert list(sort_many(iter(items))) == sorted(items)


def test_files_of_a_folder_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["a.npy", "a/z.npy", "a-b/c.npy", "a0.npy", "a/b/c.npy", "a/b.npy", "B.NPY", "é/x.npy", "a/b-c/d.npy"]
    for name in [*names, ".hidden/x.npy", "a/.x.npy", "a/b.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    assert [row.key for row in FolderFiles(str(tmp_path)).rows(".npy", Seen())] == sorted(names)


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        '{"labels": [["b/x.npy", 3], ["a.npy", 12], ["./c.npy", null], ["d", "5"], ["a.npy", 12]]}',
        '{"about": {"labels": [1]}, "n": -1.5e3, "labels": [["\\u00e9\\n", 0]], "more": [null]}',
        '{"labels": null, "more": 1}',
        ' {"labels" :[ ] } ',
    ],
)
def test_labels_read_in_pieces_are_those_of_the_whole_file(text: str, size: int) -> None:
    found = read_label_pairs(in_pieces(text.encode(), size), "d")
    wanted = parse_dataset_json(text, "d")
    assert (None if found is None else list(found)) == (None if wanted is None else sorted(wanted.items()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a": 1}',
        '{"labels": 3}',
        '{"labels": [["a", 1]',
        '{"labels": [["a", 1]]} x',
        '{"labels": [["a", 1]], "labels": []}',
        '{"labels": [["a", 1] ["b", 2]]}',
        '{"labels": [["a", 1], ["a", 2]]}',
        '{"labels": [["a", -3]]}',
        '{"labels": [["a", NaN]]}',
        '{"labels": [["a", 1, 2]]}',
        '{"labels": [["' + "a" * (1 << 21),
        '{"labels": ' + "[" * 100_000,
        '{"labels": [["a", ' + "9" * 5000 + "]]}",
    ],
)
def test_labels_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(LvaeError) as raised:
        list(read_label_pairs(in_pieces(text.encode(), 1 << 16), "d") or ())
    assert len(str(raised.value)) < 400


@given(names=st.lists(st.text("ab/é\n", min_size=1, max_size=9), unique=True, max_size=9), prefix=st.binary(max_size=9))
def test_a_zips_directory_is_read_as_the_standard_library_reads_it(names: list[str], prefix: bytes) -> None:
    file = io.BytesIO()
    file.write(prefix)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"more"
        for name in names:
            archive.writestr(name, name.encode())
        wanted = [(i.filename, i.header_offset, i.file_size, i.compress_type, i.CRC) for i in archive.infolist()]
    found = read_directory(file, len(file.getvalue()), "z")
    if names:  # an empty one has no place for what stands before it
        assert [(i.filename, i.header_offset, i.file_size, i.compress_type, i.CRC) for i in found] == wanted


def test_a_second_name_of_a_member_does_not_steer(tmp_path: Path) -> None:
    """Info-ZIP's field 0x7075: where it says the same nothing happens, another name is refused."""
    raw = b"a.npy"

    def directory(second: bytes, checksum: int) -> list[str]:
        info = zipfile.ZipInfo(raw.decode())
        field = b"\1" + checksum.to_bytes(4, "little") + second
        info.extra = struct.pack("<2H", 0x7075, len(field)) + field
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(info, b"x")
        return [one.filename for one in read_directory(file, len(file.getvalue()), "z")]

    assert directory(raw, zlib.crc32(raw)) == ["a.npy"]
    assert directory(b"b.npy", zlib.crc32(b"of another name")) == ["a.npy"]
    with pytest.raises(LvaeError, match=r"'a.npy' has a second name, 'b.npy'"):
        directory(b"b.npy", zlib.crc32(raw))


def test_a_table_that_stands_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    examples.edm2(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("dataset.json", '{"labels": null}')
    with pytest.raises(LvaeError, match=r"dataset\.json stands twice"):
        list(open_cache(str(tmp_path / "a.zip")).rows())


def test_a_torn_zip_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    with StoredZip(tmp_path / "a.zip") as archive:
        for number in range(3):
            archive.add(str(number), b"x")
        archive.finish()
    whole = (tmp_path / "a.zip").read_bytes()
    assert [info.filename for info in read_directory(io.BytesIO(whole), len(whole), "z")] == ["0", "1", "2"]
    for end in range(len(whole)):
        with pytest.raises(LvaeError, match="not a whole zip"):
            list(read_directory(io.BytesIO(whole[:end]), end, "z"))


@pytest.mark.slow
def test_listing_takes_memory_for_some_rows_however_many_there_are(tmp_path: Path) -> None:
    """Labels come in another order than the files."""
    count, data = RUN * 2, examples.npy(np.zeros((2, 1, 1), np.float32))
    names = [f"img-mean-std-{index:08d}.npy" for index in range(count)]
    labels = [[one, index % 10] for index, one in reversed(list(enumerate(names)))]
    with StoredZip(tmp_path / "a.zip") as archive:
        for one in names:
            archive.add(one, data)
        archive.add("dataset.json", json.dumps({"labels": labels}).encode())
        archive.finish()
    del labels
    cache = open_cache(str(tmp_path / "a.zip"))
    tracemalloc.start()
    for number, row in enumerate(cache.rows()):
        assert (row.key, row.label) == (names[number], number % 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == count - 1
    assert peak < 400 * RUN
