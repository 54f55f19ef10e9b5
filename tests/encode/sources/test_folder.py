"""Folders: classes, names, links, and a dataset.json."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from lvae.encode.files import naming as sources_names
from lvae.encode.images import ImageRejected
from lvae.encode.sources.open import open_reader, open_source
from lvae.encode.sources.reading import walk
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from tests.encode.source_examples import labels_of, listed, refused
from tests.encode.sources.plain_files import contents, fill, png, zipped


def test_first_level_folders_are_the_classes(tmp_path: Path) -> None:
    fill(tmp_path, ["dog/2.png", "dog/1.png", "cat/deep/er/3.png", "Zebra/4.png", "docs/readme.txt"])
    source, rows = listed(tmp_path)
    assert (source.kind, source.classes) == ("folder", ("Zebra", "cat", "dog"))
    assert [(row.key, row.label) for row in rows] == [
        ("Zebra/4.png", 0),
        ("cat/deep/er/3.png", 1),
        ("dog/1.png", 2),
        ("dog/2.png", 2),
    ]
    assert source.counts == {"not images": 1}
    assert rows[0] == ImageRow("Zebra/4.png", "", 0, len(png(3)), "", 0)


def test_files_beside_class_folders_are_unlabelled_with_a_warning(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/1.png", "lost.png"])
    source, rows = listed(tmp_path)
    assert [row.label for row in rows] == [0, UNLABELLED]
    assert source.counts["unlabelled"] == 1
    assert "1 image lies beside" in str(source.warnings[0])


def test_a_flat_folder_has_no_classes_and_no_warning(tmp_path: Path) -> None:
    source, rows = listed(fill(tmp_path, ["b.png", "a.png"]))
    assert [(row.key, row.label) for row in rows] == [("a.png", -1), ("b.png", -1)]
    assert (source.classes, source.warnings) == (None, [])


def test_hidden_files_and_other_files_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "._a.png", ".git/x.png", "Thumbs.db", "__MACOSX/a.png", "notes.txt", "b.JSON"])
    source, rows = listed(tmp_path)
    assert [row.key for row in rows] == ["a.png"]
    assert source.counts == {"hidden files": 4, "not images": 2, "unlabelled": 1}


def test_images_are_told_by_extension_or_else_by_first_bytes(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.jPeG", "c.webp", "d.tif", "e.heic", "broken.jpg"):
        (tmp_path / name).write_bytes(b"anything")
    (tmp_path / "no_extension").write_bytes(png())
    (tmp_path / "README").write_bytes(b"text")
    (tmp_path / "image.txt").write_bytes(png())
    source, rows = listed(tmp_path)
    assert {row.key for row in rows} == {"a.JPG", "b.jPeG", "c.webp", "d.tif", "e.heic", "broken.jpg", "no_extension"}
    assert source.counts["not images"] == 2


def test_order_does_not_depend_on_the_locale(tmp_path: Path) -> None:
    names = ["B.png", "a.png", "Ä.png", "a-.png", "a/x.png", "花.png", "10.png", "9.png"]
    fill(tmp_path, names)
    keys = [row.key for row in listed(tmp_path)[1]]
    assert keys == ["10.png", "9.png", "B.png", "a/x.png", "a-.png", "a.png", "Ä.png", "花.png"]
    script = (
        "import sys; from lvae.encode.sources.open import open_source;"
        "print(ascii([row.key for row in open_source(sys.argv[1]).rows()]))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == ascii(keys)


def test_symbolic_links_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", ["1.png", "sub/2.png"])
    root = fill(tmp_path / "source", ["cat/3.png"])
    (root / "dog").symlink_to(outside)
    (root / "dog2").symlink_to(outside)
    (root / "cat/again.png").symlink_to("3.png")
    (root / "cat/far.png").symlink_to(outside / "sub/2.png")
    (root / "gone.png").symlink_to("nowhere")
    source, rows = listed(root)
    cat = ["cat/3.png", "cat/again.png", "cat/far.png"]
    assert [row.key for row in rows] == [*cat, *(f"{name}/{key}" for name in ("dog", "dog2") for key in FAR)]
    assert source.classes == ("cat", "dog", "dog2")
    assert source.counts == {"broken symbolic links": 1}
    assert [warning.kind for warning in source.warnings] == ["left out"]


FAR = ("1.png", "sub/2.png")


def test_links_into_one_store_are_images_of_their_own(tmp_path: Path) -> None:
    store, root = fill(tmp_path / "store", ["one"]), tmp_path / "in"
    (store / "one").write_bytes(png())
    for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to("../../store/one" if name == "cat/1.png" else store / "one")
    assert labels_of(root) == {"cat/0.png": 0, "cat/1.png": 0, "dog/0.png": 1}
    assert set(contents(root).values()) == {png()}


def test_loops_of_symbolic_links_end(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", ["1.png"])
    root = fill(tmp_path / "source", ["a/b/2.png"])
    (root / "a/b/up").symlink_to(root)
    (root / "a/b/above").symlink_to(tmp_path)
    (root / "self").symlink_to("self")
    (root / "out").symlink_to(outside)
    (outside / "round").symlink_to(outside)
    (outside / "back").symlink_to(root)
    source, rows = listed(root)
    assert [row.key for row in rows] == ["a/b/2.png", "out/1.png"]
    assert source.counts == {"symbolic links that lead round in circles": 4, "broken symbolic links": 1}


def test_links_into_a_hidden_store_are_followed(tmp_path: Path) -> None:
    """As git-annex and DVC keep files."""
    fill(tmp_path, [".store/1.png"])
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").symlink_to("../.store/1.png")
    assert labels_of(tmp_path) == {"cat/1.png": 0}


def test_links_that_multiply_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_LINKED_FOLDERS", 200)
    for number in range(12):
        (tmp_path / f"{number:02}").mkdir()
        for name in "ab":
            (tmp_path / f"{number:02}" / name).symlink_to(f"../{number + 1:02}")
    fill(tmp_path, ["12/1.png"])
    assert "lead to more than 200 folders" in refused(tmp_path)


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png"])
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9")).mkdir()
        Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9/1\xff.png")).write_bytes(png(9))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    source, rows = listed(tmp_path)
    assert [(row.key, row.label) for row in rows] == [("a.png", -1), ("caf\\xe9/1\\xff.png", 0)]
    assert source.classes == ("caf\\xe9",)
    assert "names" in [warning.kind for warning in source.warnings]
    assert contents(tmp_path)["caf\\xe9/1\\xff.png"] == png(9)


def test_fifos_are_not_opened(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png"])
    os.mkfifo(tmp_path / "b.png")
    assert listed(tmp_path)[0].counts["neither files nor folders"] == 1


def test_a_reader_gives_the_bytes_of_odd_names(tmp_path: Path) -> None:
    names = ["naïve 花 №7 — wild.png", "two  spaces & (brackets) #1 %20.png", "line\nbreak.png", "a\\b.png"]
    fill(tmp_path, names)
    assert set(contents(tmp_path)) == set(names)


def test_a_file_that_changed_or_vanished_is_not_an_image_to_reject(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "b.png"])
    source, rows = listed(tmp_path)
    reader = open_reader(source.kind, source.location)
    (tmp_path / "a.png").write_bytes(b"grown" * 99)
    with pytest.raises(LvaeError, match="not as long as when it was listed"):
        reader.read(rows[0])
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError):
        reader.read(rows[1])


def test_a_file_too_long_to_be_an_image_is_rejected_unread(tmp_path: Path) -> None:
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(sources_names.MAX_MEMBER_BYTES + 1)
    source, rows = listed(tmp_path)
    with pytest.raises(ImageRejected, match="more than 1024 MiB"):
        open_reader(source.kind, source.location).read(rows[0])


def test_missing_and_empty_sources_are_one_line(tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty").endswith("no images found (it is empty).")
    fill(tmp_path / "texts", ["a.txt", "b.txt", ".c"])
    assert refused(tmp_path / "texts").endswith("no images found (1 hidden file, 2 not images).")
    assert "not a source" in refused(fill(tmp_path, ["words"]) / "words")
    assert "Protocol not known" in refused("nowhere://bucket/images")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/1.png", "dog/2.png"])
    (tmp_path / "cat").chmod(0)
    try:
        assert "cannot be read" in refused(tmp_path)
    finally:
        (tmp_path / "cat").chmod(0o700)


def test_classes_of_a_folder_are_known_where_a_listing_ends_early(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/deep/er/2.png", "c/no image.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    source = open_source(str(tmp_path))
    next(iter(source.rows()))
    assert source.classes == ("a", "b")


def test_memory_of_a_large_folder_is_names_only(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:06}.png").touch()
    source = open_source(str(tmp_path))
    tracemalloc.start()
    for _ in source.rows():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 200  # bytes


# dataset.json


def test_dataset_json_wins_over_folders(tmp_path: Path) -> None:
    members = {"00000/a.png": png(1), "00000/b.png": png(2), "00001/c.png": png(3)}
    text = json.dumps({"labels": [["00000/a.png", 2], ["00000\\b.png", 0], ["00001/c.png", 2]]}).encode()
    for name, data in members.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    (tmp_path / "folder/dataset.json").write_bytes(text)
    zipped(tmp_path / "a.zip", {**members, "dataset.json": text})
    for location in (tmp_path / "folder", tmp_path / "a.zip"):
        source, rows = listed(location)
        assert {row.key: row.label for row in rows} == {"00000/a.png": 2, "00000/b.png": 0, "00001/c.png": 2}
        assert source.classes == ("0", "1", "2")
        assert source.warnings == []


def test_dataset_json_without_labels_means_unlabelled(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/1.png"])
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    source, rows = listed(tmp_path)
    assert (source.classes, rows[0].label, source.warnings) == (None, -1, [])


def test_images_that_dataset_json_leaves_out_are_unlabelled(tmp_path: Path) -> None:
    fill(tmp_path, ["1.png", "2.png"])
    (tmp_path / "dataset.json").write_text('{"labels": [["2.png", 0]]}')
    source, rows = listed(tmp_path)
    assert [row.label for row in rows] == [-1, 0]
    assert [str(warning) for warning in source.warnings] == ["1 image is not in dataset.json: unlabelled"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"labels": [["1.png", 0],]}', "not JSON"),
        ("", "not JSON"),
        ('{"label": []}', 'no "labels"'),
        ("[]", 'no "labels"'),
        ('{"labels": {"1.png": 0}}', "neither a list nor null"),
        ('{"labels": [["1.png"]]}', "labels[0] is"),
        ('{"labels": [["1.png", -2]]}', "out of range"),
        ('{"labels": [["1.png", 0.5]]}', "not a whole number"),
        ('{"labels": [["1.png", [0, 1]]]}', "neither a whole number nor a name"),
        ('{"labels": [["1.png", NaN]]}', "NaN"),
        ('{"labels": [["1.png", 99999999999]]}', "out of range"),
        ('{"labels": [["1.png", 1], ["1.png", 2]]}', "has two labels"),
        ('{"labels": [["1.png", 1], ["gone.png", 2]]}', "names 1 image not there, 'gone.png' for one"),
        ('{"labels": null, "labels": []}', "stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"labels": [["1.png", ' + "9" * 5000 + "]]}", "dataset.json"),
    ],
)
def test_a_broken_dataset_json_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    fill(tmp_path, ["1.png"])
    (tmp_path / "dataset.json").write_text(text)
    assert said in refused(tmp_path)
    zipped(tmp_path / "a.zip", {"1.png": png(), "dataset.json": text.encode()})
    assert said in refused(tmp_path / "a.zip")
