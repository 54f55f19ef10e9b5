"""Names, links and doubles in zips."""

import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from tests.encode.source_examples import contents, labels_of, listed, png, refused
from tests.encode.sources.archive_examples import old_zip, zipped


def test_the_unicode_path_field_names_members(tmp_path: Path) -> None:
    path = old_zip(tmp_path / "a.zip", {"猫/1.png": png(1), "犬/2.png": png(2)})
    source, rows = listed(path)
    assert source.classes == ("犬", "猫")
    assert [(row.key, row.label) for row in rows] == [("犬/2.png", 0), ("猫/1.png", 1)]
    assert contents(path) == {"猫/1.png": png(1), "犬/2.png": png(2)}


def test_a_unicode_path_of_another_name_is_ignored(tmp_path: Path) -> None:
    field = struct.pack("<HHBI", 0x7075, 11, 1, 12345) + b"x/y.png"[:6]
    path = old_zip(tmp_path / "a.zip", {"猫/1.png": png(1)}, field)
    assert list(contents(path)) == [b"\x80\xff1.png".decode("cp437")]


def test_links_in_a_zip_give_what_unpacking_gives(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        ".store/x": png(5),
        "a/1.png": png(1),
        "b/2.png": "../a/1.png",
        "c": "a",
        "d/3.png": "../.store/x",
        "e.png": "/etc/passwd",
    }
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = zipped(tmp_path / "a.zip", members, method)
        assert contents(path) == {"a/1.png": png(1), "b/2.png": png(1), "c/1.png": png(1), "d/3.png": png(5)}
        source, _ = listed(path)
        assert source.classes == ("a", "b", "c", "d")
        assert [warning.kind for warning in source.warnings] == ["left out"]


def test_what_is_no_image_may_stand_twice(tmp_path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for name in ("readme.txt", "readme.txt", "a/1.png"):
            archive.writestr(name, png())
    assert labels_of(tmp_path / "a.zip") == {"a/1.png": 0}


def test_a_list_of_labels_that_was_made_to_fill_the_memory_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/0.png", png(0))
        file.writestr("dataset.json", b'{"labels": [' + b"[]," * (2 << 20) + b"[]]}")
    assert "which lists of labels never are" in refused(tmp_path / "a.zip")


def test_one_encrypted_member_is_rejected_alone(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2)}).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert [(row.key, row.offset >= 0) for row in listed(tmp_path / "a.zip")[1]] == [("a.png", False), ("b.png", True)]


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP"])
def test_pictures_that_stand_twice_are_refused(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / name, "w") as archive:
        warnings.simplefilter("ignore")
        for number in range(2):
            archive.writestr("a.PNG", png(number))
    assert "'a.PNG' stands twice" in refused(tmp_path / name)
