"""Lists of pictures: columns, labels, and paths that are not there."""

import json
from pathlib import Path

import pytest

from lvae.encode.images import open_image
from lvae.encode.sources.open import open_reader, open_source
from lvae.manifests.errors import LvaeError
from tests.encode.source_examples import contents, labels_of, listed, png, refused, survives


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["a.png", "sub/b c.png", "d,e.png", "f"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(number))
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1.csv", 'a.png,1\nsub/b c.png,0\n"d,e.png",1\nf,2\n'),
        ("2.csv", '\ufeffpath,label\r\na.png,1\r\nsub/b c.png,0\r\n\r\n"d,e.png",1\r\nf,2\r\n'),
        ("3.csv", 'class,width,file_name\n1,9,a.png\n0,9,sub/b c.png\n1,9,"d,e.png"\n2,9,f\n'),
        ("1.txt", "a.png 1\nsub/b c.png 0\n\nd,e.png 1\nf\t2\n"),
        ("2.txt", "a.png\t1\r\nsub/b c.png\t0\r\nd,e.png\t1\r\nf\t2"),
        (
            "1.jsonl",
            "".join(
                json.dumps({"path": path, "label": label}) + "\n"
                for path, label in [("a.png", 1), ("sub/b c.png", 0), ("d,e.png", 1), ("f", 2)]
            ),
        ),
    ],
)
def test_paths_and_labels_are_read_from_all_layouts(folder: Path, name: str, text: str) -> None:
    path = write(folder, name, text)
    source, rows = listed(path)
    assert (source.kind, source.classes, source.counts) == ("list", ("0", "1", "2"), {})
    assert [(row.key, row.label) for row in rows] == [("a.png", 1), ("sub/b c.png", 0), ("d,e.png", 1), ("f", 2)]
    assert list(contents(path).values()) == [png(0), png(1), png(2), png(3)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("1.txt", "a.png\nsub/b c.png\nf\n"),
        ("1.csv", "a.png\nsub/b c.png\nf\n"),
        ("2.csv", "image\na.png\nsub/b c.png\nf\n"),
        ("3.csv", "width,path\n1,a.png\n1,sub/b c.png\n1,f\n"),
        ("1.jsonl", '{"url": "a.png"}\n{"url": "sub/b c.png", "label": null}\n{"file_name": "f"}\n'),
    ],
)
def test_labels_may_be_missing(folder: Path, name: str, text: str) -> None:
    source, rows = listed(write(folder, name, text))
    assert [(row.key, row.label) for row in rows] == [("a.png", -1), ("sub/b c.png", -1), ("f", -1)]
    assert (source.classes, source.warnings, source.counts) == (None, [], {"unlabelled": 3})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,label\na.png,10.0\nf,2.0\n"),
        ("a.txt", "a.png\t10.0\nf\t2.\n"),
        ("a.jsonl", '{"path": "a.png", "label": 10.0}\n{"path": "f", "label": 2}\n'),
        ("a.jsonl", '{"path": "a.png", "label": "10"}\n{"path": "f", "label": "2.0"}\n'),
        ("a.jsonl", '{"path": "a.png", "label": [10]}\n{"path": "f", "label": [2]}\n'),
    ],
)
def test_whole_numbers_are_numbers_however_they_are_written(folder: Path, name: str, text: str) -> None:
    source, rows = listed(write(folder, name, text))
    assert [row.label for row in rows] == [10, 2]
    assert source.classes == tuple(map(str, range(11)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("a.csv", f"path,label\na.png,{none}\nf,1.0\n") for none in ("", "nan", "NaN", "NULL", "<NA>", "-1")],
        *[
            ("a.jsonl", f'{{"path": "a.png", "label": {none}}}\n{{"path": "f", "label": 1}}\n')
            for none in ("null", "NaN", '""', "-1")
        ],
    ],
)
def test_what_is_empty_or_not_a_number_is_no_label(folder: Path, name: str, text: str) -> None:
    source, rows = listed(write(folder, name, text))
    assert [row.label for row in rows] == [-1, 1]
    assert source.counts["unlabelled"] == 1


def test_numbers_among_names_in_quotes_are_names(folder: Path) -> None:
    text = '{"path": "a.png", "label": "10"}\n{"path": "f", "label": "cat"}\n'
    source, rows = listed(write(folder, "a.jsonl", text))
    assert (source.classes, [row.label for row in rows]) == (("10", "cat"), [0, 1])


def test_odd_labels_stop_nothing_where_labels_come_from_elsewhere(folder: Path) -> None:
    source = open_source(str(write(folder, "a.csv", "path,label\na.png,1\nf,cat\n")))
    source.reads_labels = False
    assert [row.label for row in source.rows()] == [-1, -1]
    assert source.classes is None


def test_a_picture_is_found_in_either_unicode_form(folder: Path) -> None:
    (folder / "cafe\u0301.png").write_bytes(png(3))
    source, rows = listed(write(folder, "a.csv", "caf\u00e9.png,1\n"))
    assert [(row.key, row.label) for row in rows] == [("cafe\u0301.png", 1)]
    assert "Unicode form" in str(source.warnings[0])


def test_class_names_are_sorted(folder: Path) -> None:
    path = write(folder, "a.csv", "a.png,zebra\nf,cat\nsub/b c.png,\n")
    source, rows = listed(path)
    assert (source.classes, [row.label for row in rows]) == (("cat", "zebra"), [1, 0, -1])
    assert [str(warning) for warning in source.warnings] == ["1 image has no label in a.csv: unlabelled"]


def test_paths_are_relative_to_the_list_or_absolute(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    far = tmp_path_factory.mktemp("far")
    (far / "x.png").write_bytes(png(9))
    path = write(folder, "a.txt", f"a.png\n{far}/x.png\nfile://{far}/x.png\nsub/../f\n")
    assert list(contents(path).values()) == [png(0), png(9), png(9), png(3)]


def test_what_is_listed_is_a_picture_whatever_it_is_called(folder: Path) -> None:
    (folder / "notes.md").write_text("text")
    assert labels_of(write(folder, "a.txt", "notes.md\na.png\n")) == {"notes.md": -1, "a.png": -1}


def test_missing_pictures_are_counted_and_one_is_named(folder: Path) -> None:
    said = refused(write(folder, "a.txt", "a.png\ngone.png\nsub\nf\nlost.png\n"))
    assert "names 3 pictures not there, 'gone.png' for one" in said


def test_a_path_that_stands_twice_is_refused(folder: Path) -> None:
    assert "line 3: 'a.png' stands twice" in refused(write(folder, "a.txt", "a.png\nf\na.png\n"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "a.png,1\nf\n", "line 2: 1 columns instead of 2"),
        ("a.csv", "a.png,1,2\nf,1,2\n", "3 columns without names"),
        ("a.csv", "a.png,1\nf,cat\n", "line 2 ('f'): a class name, but"),
        ("a.csv", "a.png,-2\n", "out of range"),
        ("a.csv", 'a.png,"1\n', "line 1"),
        ("a.csv", "path,label\n,1\n", "line 2: no path"),
        ("a.csv", "", "no images found"),
        ("a.csv", "path,label\n", "no images found"),
        ("a.csv", "a\0b.png,1\n", "line 1"),
        ("a.txt", "a\0b.png\n", "line 1: a path with a null byte"),
        ("a.txt", "x" * 2_000_000, "line 1 has more than"),
        ("a.jsonl", "a.png\n", "not JSON"),
        ("a.jsonl", '{"label": 1}\n', 'a line is {"path": "a.jpg", "label": 3}'),
        ("a.jsonl", '["a.png"]\n', "a line is"),
        ("a.jsonl", '{"path": 3}\n', "a line is"),
        ("a.jsonl", '{"path": "a.png", "label": 1.5}\n', "not a whole number"),
        ("a.jsonl", '{"path": "a.png", "label": {"a": 1}}\n', "neither a whole number nor a name"),
        ("a.jsonl", '{"path": "\\ud800.png"}\n', "a path of odd characters"),
        ("a.jsonl", '{"path": ' + "[" * 100_000 + "\n", "nested too deeply"),
    ],
)
def test_a_broken_list_is_one_line(folder: Path, name: str, text: str, said: str) -> None:
    assert said in refused(write(folder, name, text))


def test_a_binary_list_is_one_line(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"a.png\n\xff\xfe\n")
    assert "not UTF-8" in refused(folder / "a.txt")


def test_pipes_and_devices_are_not_opened(folder: Path) -> None:
    assert "names 2 pictures not there" in refused(write(folder, "a.txt", "/dev/zero\n/dev/stdin\nf\n"))


def test_a_file_that_changed_is_not_an_image_to_reject(folder: Path) -> None:
    source, rows = listed(write(folder, "a.txt", "a.png\nf\n"))
    (folder / "a.png").write_bytes(b"grown" * 99)
    (folder / "f").unlink()
    reader = open_reader(source.kind, source.location)
    with pytest.raises(LvaeError, match="not as long as when it was listed"):
        reader.read(rows[0])
    with pytest.raises(FileNotFoundError):
        reader.read(rows[1])
    survives(folder / "a.txt")


def test_a_large_list_of_one_picture_each(folder: Path) -> None:
    for number in range(2500):
        (folder / f"{number}.png").symlink_to("a.png")
    source, rows = listed(write(folder, "a.txt", "".join(f"{number}.png {number % 7}\n" for number in range(2500))))
    assert [row.label for row in rows] == [number % 7 for number in range(2500)]
    assert open_image(open_reader(source.kind, source.location).read(rows[-1])).size == (4, 4)
