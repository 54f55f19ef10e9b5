"""Zips: stored and deflated, and damage of every sort."""

import io
import os
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.encode.files import naming as sources_names
from lvae.encode.images import ImageRejected
from lvae.encode.sources import zip as sources_zip
from lvae.encode.sources.open import open_reader
from lvae.manifests.errors import LvaeError
from tests.encode.source_examples import labels_of, listed, refused
from tests.encode.sources.plain_files import contents, png, zipped


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_are_read_stored_or_deflated(tmp_path: Path, method: int) -> None:
    members = {"dog/2.png": png(2), "cat/1.png": png(1), "cat/readme.txt": b"x", "__MACOSX/._1.png": b"x"}
    path = zipped(tmp_path / "a.zip", members, method)
    source, rows = listed(path)
    assert (source.kind, source.classes) == ("zip", ("cat", "dog"))
    assert source.counts == {"not images": 1, "hidden files": 1}
    assert contents(path) == {"cat/1.png": png(1), "dog/2.png": png(2)}
    for row in rows:
        assert row.container == "a.zip"
        if method == zipfile.ZIP_STORED:
            assert path.read_bytes()[row.offset :][: row.length] == members[row.member]
        else:
            assert (row.offset, row.length) == (-1, len(members[row.member]))


def test_zips_with_64_bit_fields_and_bytes_in_front_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        with archive.open(zipfile.ZipInfo("a.png"), "w", force_zip64=True) as member:
            member.write(png(1))
        archive.writestr("no_extension", png(2))
    (tmp_path / "a.zip").write_bytes(b"#!self-extracting\n" * 9 + buffer.getvalue())
    assert contents(tmp_path / "a.zip") == {"a.png": png(1), "no_extension": png(2)}


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    assert labels_of(zipped(tmp_path / "a.zip", {"cat\\1.png": png(), "dog\\2.png": png()})) == {
        "cat/1.png": 0,
        "dog/2.png": 1,
    }


def test_an_encrypted_zip_is_one_line(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", {"a.png": png()}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "a.png is encrypted" in refused(tmp_path / "a.zip")


def test_a_zip_of_another_method_is_one_line(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": png()}, zipfile.ZIP_BZIP2)
    assert "neither stored nor deflated" in refused(path)


def test_links_in_a_zip_are_not_followed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.png", png())
    source, rows = listed(tmp_path / "a.zip")
    assert ([row.key for row in rows], source.counts["links inside archives that lead nowhere"]) == (["a.png"], 1)


def test_a_truncated_zip_is_an_error(tmp_path: Path) -> None:
    data = zipped(tmp_path / "a.zip", {"a.png": png()}).read_bytes()
    for length in (0, 4, len(data) // 2, len(data) - 30):
        (tmp_path / "a.zip").write_bytes(data[:length])
        assert "a.zip" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_local_header_may_disagree(tmp_path: Path, method: int) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", {"k/\xf6.png": png(1), "l/2.png": png(2)}, method).read_bytes())
    data[7] ^= 0x8  # its UTF-8 flag
    data[14:26] = bytes(12)  # its checksum and lengths, as where they stand behind the bytes
    data[31] = ord("\\")
    (tmp_path / "a.zip").write_bytes(data)
    assert contents(tmp_path / "a.zip") == {"k/\xf6.png": png(1), "l/2.png": png(2)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_without_a_header_is_rejected_alone(tmp_path: Path, method: int) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2)}, method).read_bytes())
    data[0] = 0
    (tmp_path / "a.zip").write_bytes(data)
    source, rows = listed(tmp_path / "a.zip")
    reader = open_reader(source.kind, source.location)
    with pytest.raises(ImageRejected, match="damaged in its zip"):
        reader.read(rows[0])
    assert reader.read(rows[1]) == png(2)
    reader.close()


def test_a_damaged_deflated_member_is_rejected_alone(tmp_path: Path) -> None:
    bitmap = os.urandom(64) * 64
    path = zipped(tmp_path / "a.zip", {"a.png": bitmap, "b.png": png(2)}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    source, rows = listed(path)
    reader = open_reader(source.kind, source.location)
    with pytest.raises(ImageRejected, match="damaged in its zip"):
        reader.read(rows[0])
    assert reader.read(rows[1]) == png(2)
    reader.close()


def test_what_a_zip_promises_is_a_limit_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = struct.pack("<I", 1000)  # says 1,000 bytes, inflates to five million
    path.write_bytes(data)
    source, rows = listed(path)
    reader = open_reader(source.kind, source.location)
    with pytest.raises(ImageRejected, match="damaged in its zip"):
        reader.read(rows[0])
    reader.close()
    monkeypatch.setattr(sources_names, "MAX_MEMBER_BYTES", 999)
    reader = open_reader(source.kind, source.location)
    with pytest.raises(ImageRejected, match="a file of more than"):
        reader.read(rows[0])
    reader.close()


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, method: int, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    data = bytearray(zipped(path, {"a/1.png": png(1), "b/2.png": png(2)}, method).read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        source, rows = listed(path)
        reader = open_reader(source.kind, source.location)
        for row in rows:
            try:
                reader.read(row)
            except ImageRejected as rejection:
                assert rejection.reason.startswith(("damaged", "a file of more than", "encrypted", "neither stored"))
        reader.close()
    except LvaeError as error:
        assert "\n" not in str(error)


def test_a_zip_is_not_listed_twice_to_inflate_one_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.zip", {f"{n}.png": png(n) for n in range(5)}, zipfile.ZIP_DEFLATED)
    source, rows = listed(path)
    opened: list[object] = []

    class Counting(zipfile.ZipFile):
        def __init__(self, *args: object) -> None:
            opened.append(args)
            super().__init__(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(sources_zip.zipfile, "ZipFile", Counting)
    reader = open_reader(source.kind, source.location)
    for row in rows:
        reader.read(row)
    reader.close()
    assert len(opened) == 1
