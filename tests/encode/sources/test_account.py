"""Every file of a source is used, or counted under a name that a person understands; what may be missed is told."""

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvae.manifests.storage import retry
from tests.encode.source_examples import labels_of, listed, png, refused
from tests.encode.sources.archive_examples import tarred, zipped


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def told(location: object) -> dict[str, str]:
    return {warning.kind: warning.text for warning in listed(location)[0].warnings}


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [png(1)], "label": [3]}), buffer)
    return buffer.getvalue()


OTHERS = [
    "b.tar.gz",
    "b.tgz",
    "b.tar.bz2",
    "b.tar.xz",
    "b.tar.zst",
    "b.ZIP",
    "more/deep/b.tar",
    "more/b.parquet",
    "b.7z",
]


@pytest.mark.parametrize("name", OTHERS)
def test_archives_beside_what_is_read_are_told(tmp_path: Path, name: str) -> None:
    tarred(tmp_path / "a.tar", {"0.png": png(), "0.cls": b"1"})
    fill(tmp_path, {name: b"anything"})
    assert name in told(tmp_path)["left out"]
    assert listed(tmp_path)[0].counts["archives and tables not read"] == 1
    (tmp_path / "a.tar").unlink()
    assert name in refused(tmp_path)
    fill(tmp_path, {"cat/1.png": png()})
    assert name in told(tmp_path)["left out"]


def test_linked_folders_beside_tars_are_told(tmp_path: Path) -> None:
    tarred(tmp_path / "in.tar", {"0.png": png(), "0.cls": b"1"})
    (tmp_path / "in").mkdir()
    (tmp_path / "in.tar").rename(tmp_path / "in/a.tar")
    fill(tmp_path / "more", {"b.tar": b"x"})
    (tmp_path / "in/more").symlink_to("../more")
    assert "1 linked folder not" in told(tmp_path / "in")["left out"]


def test_labels_in_a_file_beside_each_image_are_told(tmp_path: Path) -> None:
    fill(tmp_path, {f"{number}.{ending}": png() for number in range(3) for ending in ("png", "txt")})
    fill(tmp_path, {"README.txt": b"x", "LICENSE.txt": b"x"})
    assert "3 .txt files lie beside the images, 0.txt for one" in told(tmp_path)["labels not used"]
    fill(tmp_path / "class", {"cat/1.png": png(), "cat/1.txt": b"x", "dog/1.png": png(), "dog/1.txt": b"x"})
    assert "labels not used" not in told(tmp_path / "class")


def test_what_lies_beside_parquet_is_told(tmp_path: Path) -> None:
    fill(tmp_path, {"a.parquet": parquet(), "more/b.parquet": parquet(), "README.md": b"x", "c.zip": b"x"})
    source, _ = listed(tmp_path)
    assert source.counts == {"archives and tables not read": 2, "not images": 1}
    assert "2 archives" in told(tmp_path)["left out"]


def test_splits_are_noticed_in_folders_zips_and_tars(tmp_path: Path) -> None:
    names = [f"{split}/{name}/1.png" for split in ("Train", "test") for name in ("cat", "dog")]
    files = {name: png(number) for number, name in enumerate(names)}
    wrapped = {f"data/{name}": data for name, data in files.items()}
    places = [fill(tmp_path / "in", files)]
    places += [zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar", files)]
    places += [zipped(tmp_path / "b.zip", wrapped), tarred(tmp_path / "b.tar", wrapped)]
    for place in places:
        assert "Train and test look like splits" in told(place)["splits"]
        assert listed(place)[0].classes == ("Train", "test")
    flat = fill(tmp_path / "flat", {"train/1.png": png(), "val/2.png": png(1)})
    assert "look like splits" in told(flat)["splits"]


@pytest.mark.parametrize("files", [["bus/1.png", "car/2.png", "train/3.png"], ["bus/x/1.png", "train/y/2.png"]])
def test_a_class_called_train_is_a_class(tmp_path: Path, files: list[str]) -> None:
    content = {name: png(number) for number, name in enumerate(files)}
    for place in (
        fill(tmp_path / "in", content),
        zipped(tmp_path / "a.zip", content),
        tarred(tmp_path / "a.tar", content),
    ):
        assert "splits" not in told(place)


def test_endings_of_downloads_are_looked_into(tmp_path: Path) -> None:
    names = ["a.jpg?width=640", "b.jpg.1", "c.JPG", "d.jpeg_large", "e", "f.jpg~", "g.JpEg", "h.png#x"]
    fill(tmp_path / "in", {name: png(number) for number, name in enumerate(names)})
    fill(tmp_path / "in", {"i.jpg.2": b"<html>not found", "j.jpg.txt": b"a cat", "k.xyz": b"?"})
    assert set(labels_of(tmp_path / "in")) == set(names)
    assert listed(tmp_path / "in")[0].counts["not images"] == 3
    files = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    assert set(labels_of(tarred(tmp_path / "a.tar", files))) == set(names)
    assert set(labels_of(zipped(tmp_path / "a.zip", files))) == set(names)


def test_pictures_of_other_formats_are_told(tmp_path: Path) -> None:
    tiff = b"II*\0" + bytes(99)
    fill(tmp_path, {"a.png": png(), "b.CR2": tiff, "c.dng": tiff, "d.svg": b"<svg/>"})
    source, rows = listed(tmp_path)
    assert [row.key for row in rows] == ["a.png"]
    assert source.counts["pictures of formats that are not read"] == 3
    assert "b.CR2 for one" in told(tmp_path)["left out"]


@pytest.mark.parametrize("name", ["labels.csv", "metadata.jsonl", "a.cls", "train_labels.txt", "annotations.json"])
def test_files_that_may_hold_labels_are_told(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {"a.png": png(), name: b"0"})
    assert f"{name} for one. Say --labels FILE" in told(tmp_path)["labels not used"]
    fill(tmp_path, {"cat/1.png": png(), "dog/1.png": png()})
    assert "labels not used" not in told(tmp_path)


@pytest.mark.parametrize("files", [["dataset_info.json", "state.json"], ["dataset_dict.json"]])
def test_what_save_to_disk_wrote_says_what_to_do(tmp_path: Path, files: list[str]) -> None:
    fill(tmp_path, dict.fromkeys([*files, "data-00000-of-00001.arrow"], b"{}"))
    for place in (tmp_path, tmp_path / "data-00000-of-00001.arrow"):
        assert "to_parquet" in refused(place)


def test_folders_linked_twice_are_two_classes(tmp_path: Path) -> None:
    fill(tmp_path / "store", {"1.png": png()})
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).symlink_to("../store")
    assert labels_of(tmp_path / "in") == {"a/1.png": 0, "b/1.png": 1}
    shutil.copytree(tmp_path / "in", tmp_path / "copy")
    assert labels_of(tmp_path / "copy") == {"a/1.png": 0, "b/1.png": 1}


@pytest.mark.parametrize("where", ["around the source", "the source", "a folder of it"])
def test_links_to_an_ancestor_are_told(tmp_path: Path, where: str) -> None:
    fill(tmp_path, {"others/dog.png": png(2), "source/cat/0.png": png(0), "source/cat/deep/1.png": png(1)})
    ancestor = {"around the source": ".", "the source": "source", "a folder of it": "source/cat"}[where]
    (tmp_path / "source/cat/deep/up").symlink_to(tmp_path / ancestor)
    kind = "1 symbolic link that leads round in a circle"
    assert any(kind in text and "cat/deep/up/" in text for text in told(tmp_path / "source").values())


@pytest.mark.parametrize(
    "name", ["a.cls.txt", "data/dataset.json", "Dataset.JSON", "Annotations/a.xml", "labels/a.txt"]
)
def test_label_files_of_other_layouts_are_told(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {"a.png": png(0), name: b"3"})
    assert name in told(tmp_path)["labels not used"]


def test_classes_that_differ_in_their_unicode_form_alone_are_told(tmp_path: Path) -> None:
    fill(tmp_path, {"caf\u00e9/a.png": png(0), "cafe\u0301/b.png": png(1)})
    assert "differ only in their Unicode form" in told(tmp_path)["folders"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"Label": [1]}, None),
        ({"label": pa.array([None], pa.int64())}, "'label' is empty"),
        ({"species_class": ["cat"], "text": ["a cat"]}, "'species_class'"),
        ({"breed": [3]}, "'breed'"),
        ({"image_id": [7], "width": [4], "text": ["a cat"]}, None),
    ],
    ids=["capital", "empty", "words", "numbers", "no labels"],
)
def test_columns_of_parquet_that_may_hold_labels_are_told(
    tmp_path: Path, columns: dict[str, object], said: str | None
) -> None:
    pq.write_table(pa.table({"Image": [png(1)], **columns}), tmp_path / "a.parquet")
    warnings = told(tmp_path / "a.parquet")
    assert said in warnings["labels not used"] if said else not warnings
    assert labels_of(tmp_path / "a.parquet") == {"000000": 1 if "Label" in columns else -1}


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_columns_of_lists_that_may_hold_labels_are_told(tmp_path: Path, name: str) -> None:
    text = "path,label_name\na.png,cat\n" if name.endswith("csv") else '{"path": "a.png", "label_name": "cat"}\n'
    fill(tmp_path, {"a.png": png(0), name: text.encode()})
    assert "'label_name'" in told(tmp_path / name)["labels not used"]
    fill(tmp_path, {name: text.encode() + text.encode().splitlines()[-1].replace(b"a.png", b"./a.png")})
    assert "stands twice" in refused(tmp_path / name)


@pytest.mark.parametrize("odd", [b"\x03\0\0\0", b"9" * 5000, b"x" * 5000], ids=["bytes of a number", "digits", "name"])
def test_one_odd_label_costs_one_label(tmp_path: Path, odd: bytes) -> None:
    path = tarred(tmp_path / "a.tar", {"a.png": png(0), "a.cls": odd, "b.png": png(1), "b.cls": b"4"})
    assert labels_of(path) == {"a.png": -1, "b.png": 4}
    assert "1 label file cannot be read" in told(path)["labels not used"]


def test_a_host_that_nobody_knows_and_a_pipe_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DELAYS", ())
    assert "cannot be looked at" in refused("http://nowhere.invalid/a.tar")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["../b.png", "cat/../../b.png"])
def test_images_whose_names_lead_out_of_an_archive_are_told(tmp_path: Path, name: str) -> None:
    members = {"a.png": png(0), name: png(1)}
    for path in (zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar", members)):
        assert list(labels_of(path)) == ["a.png"]
        assert told(path)["left out"] == f"1 image whose names lead out of the archive: left out, {name} for one"
