"""Null bytes in names, lists and labels: every image is kept under a name of its own, or one line says where."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvae.encode.sources.open import open_reader, read_labels
from lvae.manifests.errors import LvaeError
from lvae.manifests.views.named_keys import find_keys, read_key_lines
from tests.conftest import lvae
from tests.encode.source_examples import listed, refused
from tests.encode.sources.archive_examples import tarred, zipped
from tests.encode.sources.plain_files import fill, png


def zip_of(path: Path, names: list[str]) -> Path:
    """Python's zipfile ends a name at a null byte, so others are written and replaced."""
    stand_ins = {f"{number}{'-' * (len(name) - 1)}": name for number, name in enumerate(names)}
    zipped(path, {stand_in: png(number) for number, stand_in in enumerate(stand_ins)})
    data = path.read_bytes()
    for stand_in, name in stand_ins.items():
        data = data.replace(stand_in.encode(), name.encode())
    path.write_bytes(data)
    return path


def pax_tar(path: Path, names: list[str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(str(number))
            info.size, info.pax_headers = len(png(number)), {"path": name}
            archive.addfile(info, io.BytesIO(png(number)))
    return path


@pytest.mark.parametrize("make", [zip_of, pax_tar])
def test_names_that_differ_behind_a_null_byte_are_images_of_their_own(
    tmp_path: Path, make: Callable[[Path, list[str]], Path]
) -> None:
    names = ["cat\0a/1.png", "cat\0b/1.png", "dog/2\0x.png", "dog/2\0y.png", "dog/3.png\0\0"]
    source, rows = listed(make(tmp_path / "archive", names))
    assert [row.key for row in rows] == [*names[:4], "dog/3.png"]
    assert source.classes == ("cat\0a", "cat\0b", "dog") and [row.label for row in rows] == [0, 1, 2, 2, 2]
    reader = open_reader(source.kind, source.location)
    assert [reader.read(row) for row in rows] == [png(number) for number in range(5)]
    reader.close()


def test_labels_of_one_width_end_before_their_null_bytes(tmp_path: Path) -> None:
    """As arrays of fixed width and C programs write them: "cat" and "cat\\0\\0" are one class."""
    fill(tmp_path, ["0.png", "1.png"])
    (tmp_path / "a.csv").write_bytes(b"path,label\n0.png,cat\0\0\n1.png,cat\n")
    (tmp_path / "a.jsonl").write_text('{"path": "0.png", "label": "cat\\u0000"}\n{"path": "1.png", "label": "cat"}\n')
    samples = {"0.png": png(), "0.json": b'{"label": "cat\\u0000"}', "1.png": png(1), "1.json": b'{"label": "cat"}'}
    tarred(tmp_path / "a.tar", samples)
    images = [{"bytes": png(number), "path": ""} for number in range(2)]
    pq.write_table(pa.table({"image": images, "label": ["cat\0\0\0", "cat"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.tar", "a.parquet"):
        source, rows = listed(tmp_path / name)
        assert source.classes == ("cat",) and [row.label for row in rows] == [0, 0], name


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("print0.txt", b"0.png\x001.png\0"),
        ("one.csv", b"path,label\n0.png,1\n1\0.png,2\n"),
        ("escaped.jsonl", b'{"path": "0.png"}\n{"path": "1\\u0000.png"}\n'),
        ("utf16.csv", "path,label\n0.png,1\n".encode("utf-16-le")),
    ],
)
def test_a_list_with_null_bytes_is_one_line_that_says_so(tmp_path: Path, name: str, data: bytes) -> None:
    fill(tmp_path, ["0.png", "1.png"])
    (tmp_path / name).write_bytes(data)
    said = refused(tmp_path / name)
    assert "a path with a null byte" in said and "UTF-16" in said and f"{name}: line " in said


def test_null_bytes_in_other_lists_are_told(tmp_path: Path) -> None:
    fill(tmp_path, ["a/0.png", "a/1.png"])
    wide = "key,label\na/0.png,1\n".encode("utf-16-le")
    (tmp_path / "labels.csv").write_bytes(wide)
    with pytest.raises(LvaeError, match="line 1: a key with a null byte"):
        read_labels(tmp_path / "labels.csv")
    (tmp_path / "keys.txt").write_bytes(b"a/1.png\0a/0.png\0")
    with pytest.raises(LvaeError, match="line 1 holds a null byte"):
        read_key_lines(tmp_path / "keys.txt")
    (tmp_path / "keys.txt").write_text("a\\x00b.png\n")
    assert find_keys(read_key_lines(tmp_path / "keys.txt"), ["a\0b.png"]).keys == ("a\0b.png",)
    (tmp_path / "tars").mkdir()
    tarred(tmp_path / "tars/a.tar", {"0.png": png(), "0.cls": b"1"})
    (tmp_path / "tars/classes.txt").write_bytes("cat\ndog\n".encode("utf-16-le"))
    assert "classes.txt: line 1 holds a null byte" in refused(tmp_path / "tars")


@pytest.mark.parametrize("source", ["a\0.png", "\0*.tar", "{a\0,b}.tar", "file:///a%00b", "list.txt"])
def test_a_place_with_a_null_byte_is_one_line(tmp_path: Path, source: str) -> None:
    (tmp_path / "list.txt").write_text("file:///a%00b.png\n")
    said = lvae("scan", source, tmp_path / "out", check=1, cwd=tmp_path).stderr.splitlines()
    assert len(said) == 1 and said[0].startswith("lvae: ") and "null byte" in said[0]
    for words in (("scan", ".", "out", "--labels", "\0.csv"), ("verify", "file:///a%00b"), ("explore", "a\0")):
        said = lvae(*words, check=1, cwd=tmp_path).stderr.splitlines()
        assert len(said) == 1 and said[0].startswith("lvae: ") and "null byte" in said[0]
    assert not (tmp_path / "out").exists()
