"""Folders, tars, zips and noise: what is listed, what is counted, and what is said of broken ones."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvae.encode.files import naming as sources_names
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources import zip as sources_zip
from lvae.encode.sources.base import Source
from lvae.encode.sources.labels import Labels
from lvae.encode.sources.open import apply_labels, open_reader, open_source, read_labels
from lvae.encode.sources.reading import walk
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

SHARED = Path(os.environ.get("LVAE_SHARED_DATA", Path(__file__).parents[3] / "../shared/data"))


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level % 256, level // 256 % 256, 99)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, names: Iterable[str]) -> Path:
    """A file for every name; those that end like images are images."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number) if name.endswith((".png", ".jpg")) else b"text")
    return folder


def tarred(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def listed(location: object) -> tuple[Source, list[ImageRow]]:
    source = open_source(str(location))
    rows = list(source.rows())
    assert rows == list(source.rows())
    assert len({row.key for row in rows}) == len(rows)
    return source, rows


def labels_of(location: object) -> dict[str, int]:
    return {row.key: row.label for row in listed(location)[1]}


def contents(location: object) -> dict[str, bytes]:
    source, rows = listed(location)
    reader = open_reader(source.kind, source.location)
    found = {row.key: reader.read(row) for row in rows}
    assert all(len(found[row.key]) == row.length for row in rows)
    reader.close()
    return found


def refused(location: object) -> str:
    with pytest.raises(LvaeError) as caught:
        list(open_source(str(location)).rows())
    said = str(caught.value)
    assert "\n" not in said
    return said


# Folders


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


# Tars


def samples(first: int, count: int, classes: int = 3) -> dict[str, bytes]:
    members = {}
    for number in range(first, first + count):
        members[f"{number:04}.png"] = png(number)
        members[f"{number:04}.cls"] = str(number % classes).encode()
    return members


def test_webdataset_tars_are_read_in_place(tmp_path: Path) -> None:
    for number in range(3):
        tarred(tmp_path / f"train-{number:04}.tar", samples(5 * number, 5))
    (tmp_path / "classes.txt").write_text("cat\ndog\nfish\n")
    places = [tmp_path, tmp_path / "train-{0000..0002}.tar", tmp_path / "train-*.tar", tmp_path / "{train}-*.tar"]
    for place in places[:3]:
        source, rows = listed(place)
        assert (source.kind, source.classes) == ("tar", ("cat", "dog", "fish"))
        assert [row.key for row in rows] == [f"train-{n // 5:04}.tar/{n:04}.png" for n in range(15)]
        assert [row.label for row in rows] == [n % 3 for n in range(15)]
        assert source.counts == {}
        row = rows[7]
        assert (tmp_path / row.container).read_bytes()[row.offset :][: row.length] == png(7)
        assert list(contents(place).values()) == [png(n) for n in range(15)]
    assert "neither a range" in refused(places[3])


def test_a_single_tar_has_member_names_as_keys(tmp_path: Path) -> None:
    path = tarred(tmp_path / "one.tar", samples(0, 4))
    source, rows = listed(path)
    assert rows[1] == ImageRow("0001.png", "one.tar", rows[1].offset, len(png(1)), "0001.png", 1)
    assert source.classes == ("0", "1", "2")  # by number, without a classes.txt


def test_labels_may_stand_before_the_image_or_in_json(tmp_path: Path) -> None:
    members = {
        "a.cls": b"1\n",
        "a.png": png(),
        "b.json": b'{"label": 2, "caption": "x"}',
        "b.png": png(),
        "c.png": png(),
        "d.rgb.png": png(),
        "d.mask.png": png(),
        "d.cls": b"0",
    }
    source, rows = listed(tarred(tmp_path / "a.tar", members))
    assert [(row.key, row.label) for row in rows] == [
        *[("a.png", 1), ("b.png", 2), ("c.png", -1), ("d.rgb.png", 0), ("d.mask.png", 0)]
    ]
    assert [str(warning) for warning in source.warnings] == ["1 image has no label in .cls or .json: unlabelled"]


def test_names_with_several_dots_find_their_own_label(tmp_path: Path) -> None:
    members = {"x.1.png": png(), "x.1.cls": b"1", "x.2.png": png(), "x.2.cls": b"0"}
    assert labels_of(tarred(tmp_path / "a.tar", members)) == {"x.1.png": 1, "x.2.png": 0}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_tars_take_classes_from_folders(tmp_path: Path, form: int) -> None:
    long = "dog/" + "/".join(["deep" * 5] * 6) + "/3.png"
    members = {"./cat/1.png": png(1), "dog/2.png": png(2), long: png(3), "top.png": png(4), "notes.txt": b"x"}
    source, rows = listed(tarred(tmp_path / "a.tar", members, form))
    assert {row.key: row.label for row in rows} == {"cat/1.png": 0, "dog/2.png": 1, long: 1, "top.png": -1}
    assert source.classes == ("cat", "dog")
    assert source.counts == {"not images": 1, "unlabelled": 1}
    assert list(contents(tmp_path / "a.tar").values()) == [png(1), png(2), png(3), png(4)]


def test_folder_tar_and_zip_of_the_same_tree_list_alike(tmp_path: Path) -> None:
    names = ["b/1.png", "a/x/2.png", "a/1.png", "é/3.png", "top.png", "._junk.png"]
    root = fill(tmp_path / "tree", names)
    members = {name: (root / name).read_bytes() for name in names}
    tarred(tmp_path / "a.tar", members)
    zipped(tmp_path / "a.zip", members)
    folder, archive, pack = (listed(tmp_path / name) for name in ("tree", "a.tar", "a.zip"))
    assert folder[0].classes == archive[0].classes == pack[0].classes == ("a", "b", "é")
    assert [row.key for row in folder[1]] == [row.key for row in pack[1]]
    assert labels_of(tmp_path / "tree") == labels_of(tmp_path / "a.tar") == labels_of(tmp_path / "a.zip")
    assert contents(tmp_path / "tree") == contents(tmp_path / "a.tar") == contents(tmp_path / "a.zip")
    assert folder[0].counts == archive[0].counts == pack[0].counts


def test_a_wrapping_folder_in_an_archive_is_no_class(tmp_path: Path) -> None:
    members = {"photos/cat/1.png": png(1), "photos/dog/x/2.png": png(2)}
    for path in (tarred(tmp_path / "a.tar", members), zipped(tmp_path / "a.zip", members)):
        source, rows = listed(path)
        assert (source.classes, [row.label for row in rows]) == (("cat", "dog"), [0, 1])
        assert [str(warning) for warning in source.warnings] == [
            "all images lie in photos/: its subfolders are the classes"
        ]
    only = {"cat/x/1.png": png(1)}
    assert listed(tarred(tmp_path / "b.tar", only))[0].classes == ("cat",)


def test_links_devices_and_hidden_members_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in [("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("../../evil.png", "._a.png", "a.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png())
            archive.addfile(info, io.BytesIO(png()))
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    source, rows = listed(path)
    assert [row.key for row in rows] == ["a.png"]
    assert source.counts == {
        **{
            "links inside archives that lead nowhere": 2,
            "neither files nor folders": 1,
            "hidden files": 2,
            "unlabelled": 1,
        }
    }


def test_a_truncated_tar_is_never_a_smaller_dataset(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "a.tar", samples(0, 6)).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for length in [*range(0, end, 256), end]:
        (tmp_path / "b.tar").write_bytes(whole[:length])
        assert "b.tar" in refused(tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(whole[: end + 512])
    assert len(listed(tmp_path / "b.tar")[1]) == 6


def test_a_damaged_header_names_file_and_offset(tmp_path: Path) -> None:
    data = bytearray(tarred(tmp_path / "a.tar", samples(0, 6)).read_bytes())
    data[3 * 1024 : 3 * 1024 + 8] = b"\xff" * 8
    (tmp_path / "a.tar").write_bytes(data)
    assert "a.tar: damaged at byte 3072" in refused(tmp_path / "a.tar")


def test_tars_joined_by_cat_are_refused(tmp_path: Path) -> None:
    one, two = (tarred(tmp_path / f"{n}.tar", samples(n, 1)).read_bytes() for n in (1, 2))
    (tmp_path / "both.tar").write_bytes(one + two)
    assert "joined by cat" in refused(tmp_path / "both.tar")


def test_sizes_that_make_no_sense_do_not_loop(tmp_path: Path) -> None:
    data = bytearray(tarred(tmp_path / "a.tar", {"a.png": png(), "b.png": png()}).read_bytes())
    for number in (-1024, -512, 1 << 60):
        for at in (0, 1024):
            forged = bytearray(data)
            forged[at + 124 : at + 136] = (b"\xff" if number < 0 else b"\x80") + number.to_bytes(11, "big", signed=True)
            forged[at + 148 : at + 156] = b" " * 8
            forged[at + 148 : at + 156] = b"%06o\0 " % sum(forged[at : at + 512])
            (tmp_path / "b.tar").write_bytes(forged)
            assert "b.tar" in refused(tmp_path / "b.tar")


@settings(max_examples=150, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 6143), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_tar_with_any_damage_is_listed_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    data = bytearray(tarred(folder / "a.tar", samples(0, 2), tarfile.PAX_FORMAT).read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    (folder / "a.tar").write_bytes(data)
    try:
        listed(folder / "a.tar")
    except LvaeError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_compressed_tars_say_what_to_do(tmp_path: Path, ending: str) -> None:
    with tarfile.open(tmp_path / f"a.tar.{ending}", f"w:{ending}") as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("x"))
    assert "unpack it to a folder" in refused(tmp_path / f"a.tar.{ending}")
    (tmp_path / f"a.tar.{ending}").rename(tmp_path / "b.tar")
    assert "unpack it to a folder" in refused(tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("label", "said"), [(b"fish", "none of the classes"), (b"-2", "out of range"), (b"3", "names 2 classes")]
)
def test_wrong_labels_in_a_tar_name_the_member(tmp_path: Path, label: bytes, said: str) -> None:
    tarred(tmp_path / "a.tar", {"x.png": png(), "x.cls": label})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    error = refused(tmp_path / "a.tar")
    assert said in error
    assert "a.tar: x.cls" in error


def test_classes_txt_is_checked(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", samples(0, 2))
    for text, said in [("a\nb\na\n", "line 3 is 'a' again"), ("a\n\nb\n", "line 2 is empty")]:
        (tmp_path / "classes.txt").write_text(text)
        assert said in refused(tmp_path / "a.tar")


def test_names_that_stand_twice_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("a.png", "./a.png"):
            archive.addfile(tarfile.TarInfo(name))
    assert "'a.png' stands twice" in refused(tmp_path / "a.tar")
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr("a.png", png())
        pack.writestr("a.png", png())
    assert "'a.png' stands twice" in refused(tmp_path / "a.zip")


def test_missing_shards_and_patterns_without_files_are_refused(tmp_path: Path) -> None:
    tarred(tmp_path / "t-0.tar", samples(0, 1))
    assert "t-1.tar: no such file" in refused(tmp_path / "t-{0..1}.tar")
    assert "no file has such a name" in refused(tmp_path / "u-*.tar")
    assert "count upwards" in refused(tmp_path / "t-{5..1}.tar")
    assert "count upwards" in refused(tmp_path / "t-{0..99999999}.tar")
    assert "names t-0.tar twice" in refused(tmp_path / "t-{0,0}.tar")
    assert "braces that do not close" in refused(tmp_path / "t-{0..1.tar")
    assert listed(str(tmp_path / "t-{0..0}.tar"))[1][0].key == "0000.png"


def test_memory_of_tars_is_flat(tmp_path: Path) -> None:
    for number in range(20):
        tarred(tmp_path / f"{number:02}.tar", {f"{n:05}.png": b"x" for n in range(200)})
    source = open_source(str(tmp_path))
    rows = source.rows()
    next(rows)
    tracemalloc.start()
    for _ in rows:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000  # 4,000 members of tarfile's would be megabytes


# Zips


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


# Readers


@pytest.mark.parametrize("kind", ["folder", "tar", "stored", "deflated"])
def test_many_threads_and_another_process_read_alike(tmp_path: Path, kind: str) -> None:
    members = {f"{n:03}.png": png(n) for n in range(60)}
    if kind == "folder":
        location = fill(tmp_path / "x", members)
    elif kind == "tar":
        location = tmp_path / "x"
        location.mkdir()
        for number in range(20):  # more than stay open
            names = list(members)[3 * number : 3 * number + 3]
            tarred(location / f"{number:02}.tar", {name: members[name] for name in names})
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        location = zipped(tmp_path / "x.zip", members, method)
    source, rows = listed(location)
    reader = pickle.loads(pickle.dumps(open_reader(source.kind, source.location)))  # noqa: S301  our own
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reader.read, rows * 5))
    assert found == list(members.values()) * 5
    reader.close()
    reader.close()


def test_a_reader_takes_what_the_user_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarred(tmp_path / "t-0.tar", samples(0, 2))
    tarred(tmp_path / "t-1.tar", samples(2, 2))
    zipped(tmp_path / "a.zip", {"a.png": png(9)})
    fill(tmp_path / "f", ["a.png"])
    monkeypatch.chdir(tmp_path)
    for typed in ("t-{0..1}.tar", "t-*.tar", "t-0.tar", "a.zip", "f", "./f/", "synthetic:3?size=8"):
        source, rows = listed(typed)
        again = open_source(source.location)
        assert list(again.rows()) == rows
        for location in (typed, source.location):
            reader = open_reader(source.kind, location)
            assert open_image(reader.read(rows[-1])).mode == "RGB"
            reader.close()


def test_storage_faults_stay_what_they_are(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", samples(0, 1))
    source, rows = listed(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        open_reader(source.kind, source.location).read(rows[0])


def test_a_tar_that_became_shorter_is_not_an_image_to_reject(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", samples(0, 1))
    source, rows = listed(path)
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(LvaeError, match="shorter than when it was listed"):
        open_reader(source.kind, source.location).read(rows[0])


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(LvaeError, match="none of folder"):
        open_reader("hdf5", "x")


# Noise


def test_noise_is_a_function_of_seed_and_index() -> None:
    source, rows = listed("synthetic:12?size=33&seed=5&classes=4")
    assert (source.kind, source.classes) == ("synthetic", ("0", "1", "2", "3"))
    assert [row.label for row in rows] == [0, 1, 2, 3] * 3
    reader, other = (open_reader("synthetic", f"synthetic:{n}?size=33&seed={s}") for n, s in ((99, 5), (12, 6)))
    pictures = [reader.read(row) for row in rows]
    assert len(set(pictures)) == 12
    assert pictures != [other.read(row) for row in rows]
    assert all(len(data) == row.length for data, row in zip(pictures, rows, strict=True))
    image = open_image(pictures[0])
    assert image.size == (33, 33)
    assert open_image(open_reader("synthetic", "synthetic:1").read(rows[0])).size == (256, 256)


@pytest.mark.parametrize("rest", ["", "0", "-1", "5?", "5?size=0", "5?what=1", "5?size=8&size=9", "5&size=8", "1e3"])
def test_noise_of_another_grammar_is_refused(rest: str) -> None:
    said = refused(f"synthetic:{rest}")
    assert "synthetic:1000" in said or "pixels" in said


# --labels


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


# What the photographs and oddities of the workshop say


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared photographs")
def test_the_shared_photographs_are_found() -> None:
    source, rows = listed(SHARED / "photos")
    assert len(rows) == 1134
    assert source.classes is not None
    assert len(source.classes) == 12
    assert source.counts == {}
    source, rows = listed(SHARED / "photos64")
    assert len(rows) == 4857
    assert source.classes == tuple((SHARED / "photos64/classes.txt").read_text().split())
    assert all(source.classes[row.label].replace("_", "") in row.member.replace("_", "") for row in rows)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared oddities")
def test_the_shared_oddities_are_listed_or_counted() -> None:
    source, rows = listed(SHARED / "oddities")
    assert source.counts == {"hidden files": 1, "not images": 1, "unlabelled": 38}
    assert {row.key for row in rows} == set(json.loads((SHARED / "oddities/expected.json").read_text())) - {
        "._resource_fork.jpg"
    }
    assert [row.label for row in rows if row.key.startswith("deep/")] == [0]


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
