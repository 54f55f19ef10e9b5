"""Tars: their two layouts, and damage of every sort."""

import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.encode.sources.open import open_source
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from tests.encode.source_examples import labels_of, listed, refused
from tests.encode.sources.plain_files import contents, fill, png, samples, tarred, zipped


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
