"""Labels beside pictures in tars, in any order and of any sort; links; headers of all kinds."""

import json
import tarfile
from pathlib import Path

import pytest

from lvae.encode.sources.open import open_source
from lvae.manifests.parts.rows import ImageRow
from tests.encode.source_examples import contents, labels_of, listed, png, refused
from tests.encode.sources.archive_examples import gnu_incremental, tarred


def kinds(location: object) -> list[str]:
    return [warning.kind for warning in listed(location)[0].warnings]


ORDERS = {
    "labels behind": lambda name: (not name.endswith(".jpg"), name),
    "labels before": lambda name: (name.endswith(".jpg"), name),
    "kinds one by one": lambda name: name.rpartition(".")[2],
    "backwards": lambda name: [-ord(letter) for letter in name],
}


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("labels", ["cls", "json", "CLS"])
def test_members_of_a_sample_are_joined_by_name(tmp_path: Path, order: str, labels: str) -> None:
    members: dict[str, bytes] = {}
    for number in range(6):
        text = str(number % 2) if labels != "json" else json.dumps({"label": number % 2, "score": float("nan")})
        members |= {
            f"{number:04}.jpg": png(number),
            f"{number:04}.txt": b"a cat",
            f"{number:04}.{labels}": text.encode(),
        }
    path = tarred(tmp_path / "a.tar", {name: members[name] for name in sorted(members, key=ORDERS[order])})
    assert labels_of(path) == {f"{number:04}.jpg": number % 2 for number in range(6)}
    assert (listed(path)[0].classes, kinds(path)) == (("0", "1"), [])


@pytest.mark.parametrize(
    "text",
    [
        b'{"score": NaN, "label": %d}',
        b'{"score": -Infinity, "label": %d}',
        b'{"label": 5, "label": %d}',
        b'{"id": ' + b"9" * 5000 + b', "label": %d}',
        b'\xef\xbb\xbf{"label": %d.0}',
        b'{"label": [%d]}',
        b'{"label": "%d"}',
    ],
)
def test_json_that_python_reads_gives_labels(tmp_path: Path, text: bytes) -> None:
    members = {f"{n}{end}": png(n) if end == ".png" else text % n for n in range(2) for end in (".json", ".png")}
    assert labels_of(tarred(tmp_path / "a.tar", members)) == {"0.png": 0, "1.png": 1}


def test_labels_that_come_late_are_found(tmp_path: Path) -> None:
    members = {}
    for number in range(1500):
        members |= {f"{number}.png": b"x", f"{number}.json": b'{"label": 3}' if number == 1499 else b"{}"}
    found = labels_of(tarred(tmp_path / "a.tar", members))
    assert (found["1499.png"], found["0.png"]) == (3, -1)
    assert kinds(tmp_path / "a.tar") == ["unlabelled"]


def test_a_json_beside_a_cls_is_not_needed(tmp_path: Path) -> None:
    members = {
        "0.json": b"not JSON",
        "0.png": png(),
        "0.cls": b"1",
        "1.json": b'{"label": 9}',
        "1.png": png(1),
        "1.cls": b"0",
    }
    assert labels_of(tarred(tmp_path / "a.tar", members)) == {"0.png": 1, "1.png": 0}
    assert kinds(tmp_path / "a.tar") == []


@pytest.mark.parametrize("text", [b"{", b'{"label": {"a": 1}}', b'{"label": 0.5}', b"\xff\xfe\xff", b"[" * 100_000])
def test_a_label_that_cannot_be_read_costs_its_own_image_alone(tmp_path: Path, text: bytes) -> None:
    members = {"0.png": png(), "0.json": text, "1.png": png(1), "1.json": b'{"label": 1}'}
    assert labels_of(tarred(tmp_path / "a.tar", members)) == {"0.png": -1, "1.png": 1}
    warnings = listed(tmp_path / "a.tar")[0].warnings
    assert [warning.kind for warning in warnings] == ["labels not used", "unlabelled"]
    assert "0.json" in str(warnings[0])


def test_side_files_without_a_label_are_told_where_no_image_has_one(tmp_path: Path) -> None:
    members = {"0.png": png(), "0.json": b'{"category_id": 1}', "1.png": png(1), "1.json": b"{}"}
    (warning,) = listed(tarred(tmp_path / "a.tar", members))[0].warnings
    assert 'no image has a label, and 2 files beside images have no "label"' in str(warning)
    assert kinds(tarred(tmp_path / "b.tar", {f"cat/{name}": data for name, data in members.items()})) == []


def test_labels_without_an_image_are_told(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"images/0.png": png(), "labels/0.cls": b"1"})
    assert kinds(path) == ["labels not used", "labels not used"]


@pytest.mark.parametrize("ending", ["cls", "json"])
def test_labels_may_be_names(tmp_path: Path, ending: str) -> None:
    names = ["tabby cat", "dog", "tabby cat", "n01/ünï", "7up"]
    members = {}
    for number, name in enumerate(names):
        text = f"  {name}\r\n" if ending == "cls" else json.dumps({"label": f" {name}\n"})
        members |= {f"{number}.png": png(number), f"{number}.{ending}": text.encode()}
    for place in (tarred(tmp_path / "a.tar", members), tarred(tmp_path / "b.tar", dict(reversed(members.items())))):
        source, rows = listed(place)
        assert source.classes == ("7up", "dog", "n01/ünï", "tabby cat")
        assert [row.label for row in sorted(rows)] == [3, 1, 3, 2, 0]
    (tmp_path / "classes.txt").write_text("tabby cat\ndog\n7up\nn01/ünï\nfish\n")
    source, rows = listed(tmp_path / "a.tar")
    assert source.classes == ("tabby cat", "dog", "7up", "n01/ünï", "fish")
    assert [row.label for row in rows] == [0, 1, 0, 3, 2]


def test_names_in_several_tars_are_numbered_together(tmp_path: Path) -> None:
    tarred(tmp_path / "0.tar", {"0.png": png(), "0.cls": b"zebra"})
    tarred(tmp_path / "1.tar", {"1.png": png(1), "1.cls": b"ant"})
    assert labels_of(tmp_path) == {"0.tar/0.png": 1, "1.tar/1.png": 0}


@pytest.mark.parametrize("first", ["cat", "3"])
def test_names_beside_numbers_are_refused(tmp_path: Path, first: str) -> None:
    second = "3" if first == "cat" else "cat"
    tarred(tmp_path / "0.tar", {"0.png": png(), "0.cls": first.encode()})
    tarred(tmp_path / "1.tar", {"1.png": png(1), "1.cls": second.encode()})
    assert "a class name, but" in refused(tmp_path)


def test_other_labels_leave_those_of_a_tar_alone(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"0.png": png(), "0.cls": b"cat", "1.png": png(1), "1.cls": b"99999999"})
    source = open_source(str(path))
    source.reads_labels = False
    assert [row.label for row in source.rows()] == [-1, -1]


# Links


def test_links_in_a_tar_give_what_unpacking_gives(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        ".store/x": png(5),
        "a/1.png": png(1),
        "b/1copy.png": "=a/1.png",
        "b/2.png": png(2),
        "b/3.png": "../a/1.png",
        "b/4.png": "3.png",
        "c": "a",
        "d/5.png": "../.store/x",
        "later.png": "z/6.png",
        "z/6.png": png(6),
        "a/loop": ".",
        "out.png": "../../etc/passwd",
        "gone.png": "=nothing.png",
        "l1.png": "l2.png",
        "l2.png": "l1.png",
    }
    path = tarred(tmp_path / "a.tar", members)
    assert contents(path) == {
        **{name: png(1) for name in ("a/1.png", "b/1copy.png", "b/3.png", "b/4.png", "c/1.png")},
        **{"b/2.png": png(2), "d/5.png": png(5), "later.png": png(6), "z/6.png": png(6)},
    }
    source, _ = listed(path)
    assert source.classes == ("a", "b", "c", "d", "z")
    assert source.counts == {"hidden files": 1, "links inside archives that lead nowhere": 5, "unlabelled": 1}
    assert "left out" in kinds(path)


def test_side_files_may_be_links(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "0.png": png(),
        "0.cls": b"1",
        "1.png": png(1),
        "1.cls": "=0.cls",
        "2.png": "=1.png",
    }
    path = tarred(tmp_path / "a.tar", {**members, "2.cls": "0.cls", "3.png": png(3), "3.cls": b"0"})
    assert labels_of(path) == {"0.png": 1, "1.png": 1, "2.png": 1, "3.png": 0}


# Headers


def test_times_of_an_incremental_tar_are_no_folders(tmp_path: Path) -> None:
    members = {"cat/1.png": png(1), "dog/0.png": png(2), f"dog/{'long' * 40}.png": png(3)}
    path = gnu_incremental(tarred(tmp_path / "a.tar", members, tarfile.GNU_FORMAT))
    assert labels_of(path) == {"cat/1.png": 0, "dog/0.png": 1, f"dog/{'long' * 40}.png": 1}
    samples = {"0.png": png(), "0.cls": b"1", "1.png": png(1), "1.cls": b"0"}
    path = gnu_incremental(tarred(tmp_path / "b.tar", samples, tarfile.GNU_FORMAT))
    assert labels_of(path) == {"0.png": 1, "1.png": 0}


def test_prefixes_of_posix_tars_are_folders(tmp_path: Path) -> None:
    name = f"{'deep/' * 25}1.png"
    assert labels_of(tarred(tmp_path / "a.tar", {name: png()}, tarfile.USTAR_FORMAT)) == {name: 0}


def test_what_is_no_image_may_stand_twice(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("readme.txt", "readme.txt", "a/1.png"):
            info = tarfile.TarInfo(name)
            archive.addfile(info)
    assert labels_of(tmp_path / "a.tar") == {"a/1.png": 0}


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", {"caf\udce9/1.png": png(1), "b/2.png": png(2)}, tarfile.GNU_FORMAT)
    assert contents(path) == {"caf\\xe9/1.png": png(1), "b/2.png": png(2)}
    assert listed(path)[0].classes == ("b", "caf\\xe9")
    row = listed(path)[1][0]
    assert isinstance(row, ImageRow)
    assert row.member == "caf\\xe9/1.png"
