"""Labels from a file of their own."""

from pathlib import Path

import pytest

from lvae.encode.sources.labels import Labels
from lvae.encode.sources.open import apply_labels, open_source, read_labels
from lvae.manifests.errors import LvaeError
from tests.encode.sources.plain_files import fill


def label_file(folder: Path, name: str, text: str) -> Labels:
    (folder / name).write_text(text)
    return read_labels(folder / name)


def test_labels_are_read_from_all_layouts(tmp_path: Path) -> None:
    numbers = Labels(None, {"a.png": 3, "b,c.png": 0})
    for name, text in {
        "1.csv": 'a.png,3\n"b,c.png",0\n',
        "2.csv": '\ufeffkey,label\r\na.png,3\r\n"b,c.png",0\r\n\r\n',
        "3.csv": 'label,width,file_name\n3,9,a.png\n0,9,"b,c.png"\n',
        "1.jsonl": '{"key": "a.png", "label": 3}\n{"file_name": "b,c.png", "label": 0}\n',
        "1.json": '{"a.png": 3, "b,c.png": 0}',
        "2.json": '{"labels": [["a.png", 3], ["b,c.png", 0]]}',
    }.items():
        assert label_file(tmp_path, name, text) == numbers
    classes, by_key = label_file(tmp_path, "names.csv", "a.png,tench\nb.png,cat\nc.png,tench\n")
    assert classes == ("cat", "tench")
    assert by_key == {"a.png": 1, "b.png": 0, "c.png": 1}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "a.png\n", "1 columns instead of 2"),
        ("a.csv", "a.png,1,2\n", "3 columns instead of 2"),
        ("a.csv", "a.png,-2\n", "out of range"),
        ("a.csv", "a.png,1\na.png,2\n", "line 2: 'a.png' has two labels, 1 and 2"),
        ("a.csv", "a.png,1\nb.png,cat\n", "line 2: a class name, but"),
        ("a.csv", 'a.png,"1\n', "line 1"),
        ("a.csv", "", "holds no labels"),
        ("a.csv", "key,label\n", "holds no labels"),
        ("a.jsonl", '{"key": "a.png"}\n', 'a line is {"key": "path", "label": 3}'),
        ("a.jsonl", "[1]\n", 'a line is {"key": "path", "label": 3}'),
        ("a.jsonl", '{"key": "a.png", "label": 1.5}\n', "not a whole number"),
        ("a.json", "[]", "neither"),
        ("a.json", '{"a.png": 1, "a.png": 2}', "stands twice"),
        ("a.txt", "a.png 1", "read from .csv, .jsonl and .json"),
    ],
)
def test_a_broken_label_file_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(LvaeError) as caught:
        label_file(tmp_path, name, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_label_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LvaeError, match="No such file"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\0\xd8")
    with pytest.raises(LvaeError, match="not UTF-8"):
        read_labels(tmp_path / "a.csv")


def test_labels_of_a_file_replace_those_of_the_source(tmp_path: Path) -> None:
    source = open_source(str(fill(tmp_path, ["cat/1.png", "dog/2.png"])))
    before = list(source.rows())
    rows = list(apply_labels(source.rows(), Labels(None, {"dog/2.png": 7}), source))
    assert rows == [before[0]._replace(label=-1), before[1]._replace(label=7)]
    assert source.counts["unlabelled"] == 1


def test_labels_of_a_file_may_be_missing_and_numbers_floats(tmp_path: Path) -> None:
    found = label_file(tmp_path, "a.csv", "key,label\na.png,10.0\nb.png,\nc.png,nan\nd.png,2\n")
    assert found == Labels(None, {"a.png": 10, "b.png": -1, "c.png": -1, "d.png": 2})
    found = label_file(tmp_path, "a.jsonl", '{"key": "a.png", "label": NaN}\n{"key": "b.png", "label": "3"}\n')
    assert found == Labels(None, {"a.png": -1, "b.png": 3})


def test_keys_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    source = open_source(str(fill(tmp_path / "in", ["cafe\u0301.png", "u\u0308ber.png", "x.png"])))
    labels = label_file(tmp_path, "a.csv", "caf\u00e9.png,0\n\u00fcber.png,1\nx.png,2\n")
    assert [row.label for row in apply_labels(source.rows(), labels, source)] == [0, 1, 2]
    assert [str(warning) for warning in source.warnings if warning.kind == "names"] == [
        "--labels: 2 keys found in another Unicode form (NFC, NFD)"
    ]


def test_a_key_that_names_two_images_by_its_unicode_forms_is_told(tmp_path: Path) -> None:
    for names, text in (
        (["cafe\u0301.png", "caf\u00e9.png"], "caf\u00e9.png,0\n"),
        (["cafe\u0301.png"], "caf\u00e9.png,0\ncafe\u0301.png,1\n"),
    ):
        folder = tmp_path / str(len(names))
        folder.mkdir()
        source = open_source(str(fill(folder, names)))
        with pytest.raises(LvaeError, match="Unicode form"):
            list(apply_labels(source.rows(), label_file(folder, "a.csv", text), source))


def test_labels_that_match_no_image_are_an_error_in_the_end(tmp_path: Path) -> None:
    source = open_source(str(fill(tmp_path, ["1.png"])))
    labelled = apply_labels(source.rows(), Labels(None, {"1.png": 0, "x/1.png": 0, "2.png": 1}))
    assert next(labelled).label == 0
    with pytest.raises(LvaeError, match=r"2 of 3 keys match no image, 'x/1\.png' for one"):
        next(labelled)
