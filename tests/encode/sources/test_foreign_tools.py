"""Archives as the tools of the trade make them: zip, tar, WebDataset's writer, ImageNet's layout."""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from lvae.encode.sources.nested_tar import class_of_tar
from lvae.encode.sources.tar import Member
from tests.encode.source_examples import contents, labels_of, listed, png, refused, survives

PICTURES = {
    f"{folder}/{number}.png": png(10 * number + len(folder)) for folder in ("cat", "dog é") for number in range(5)
}


UNPACKED = {**PICTURES, "link.png": PICTURES["cat/0.png"]}  # what a link stands for is an image, too


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, data in PICTURES.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "tree/notes.txt").write_text("text " * 99)
    (tmp_path / "tree/.hidden.png").write_bytes(png())
    (tmp_path / "tree/link.png").symlink_to("cat/0.png")
    return tmp_path / "tree"


def run(*command: str, folder: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("options", [["-0"], ["-9"], ["-6", "-X"], ["-fz-"], ["-fz", "-0"]])
def test_zips_of_info_zip(tree: Path, options: list[str]) -> None:
    run("zip", "-q", "-r", "-y", *options, "../a.zip", ".", folder=tree)
    source, rows = listed(tree.parent / "a.zip")
    assert contents(tree.parent / "a.zip") == UNPACKED
    assert source.classes == ("cat", "dog é")
    assert [row.label for row in rows] == [0] * 5 + [1] * 5 + [-1]
    assert source.counts == {"hidden files": 1, "not images": 1, "unlabelled": 1}
    if "-0" in options:
        assert all(row.offset > 0 for row in rows)


def test_a_zip_written_to_a_pipe(tree: Path) -> None:
    """Sizes stand behind the members then, not before them."""
    run("sh", "-c", "zip -q -r -y -0 - . > ../a.zip", folder=tree)
    assert contents(tree.parent / "a.zip") == UNPACKED


@pytest.mark.parametrize("form", ["gnu", "ustar", "posix", "v7"])
@pytest.mark.parametrize("what", [".", "*"])
def test_tars_of_gnu_tar(tree: Path, form: str, what: str) -> None:
    run("sh", "-c", f"tar --format={form} -cf ../a.tar {what}", folder=tree)
    source, _ = listed(tree.parent / "a.tar")
    assert contents(tree.parent / "a.tar") == UNPACKED
    assert source.classes == ("cat", "dog é")
    assert source.counts["unlabelled"] == 1


def test_a_sparse_member_is_counted(tree: Path) -> None:
    with (tree / "sparse.png").open("wb") as file:
        file.truncate(1 << 20)
    run("tar", "--sparse", "-cf", "../a.tar", ".", folder=tree)
    source, _ = listed(tree.parent / "a.tar")
    assert contents(tree.parent / "a.tar") == UNPACKED
    assert "left out" in [warning.kind for warning in source.warnings]
    assert source.counts["neither files nor folders"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["cls", "json"])
def test_shards_of_webdatasets_writer(tmp_path: Path, labels: str) -> None:
    """Its import takes seconds."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "s-%06d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            label = {"cls": number % 3} if labels == "cls" else {"json": {"label": number % 3, "caption": "x"}}
            writer.write({"__key__": f"n/{number:05}", "png": png(number), **label})
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    source, rows = listed(tmp_path / "s-{000000..000002}.tar")
    assert (source.classes, source.counts) == (("a", "b", "c"), {})
    assert [row.label for row in rows] == [number % 3 for number in range(10)]
    assert list(contents(tmp_path).values()) == [png(number) for number in range(10)]


# ImageNet's tar of tars


def imagenet(tmp_path: Path, classes: tuple[str, ...] = ("n02", "n01"), per_class: int = 3) -> Path:
    for name in classes:
        (tmp_path / name).mkdir(parents=True)
        for number in range(per_class):
            (tmp_path / name / f"{name}_{number}.JPEG").write_bytes(png(number + len(name)))
        run("sh", "-c", f"cd {name} && tar -cf ../{name}.tar *", folder=tmp_path)
    run("tar", "-cf", "ILSVRC2012_img_train.tar", *(f"{name}.tar" for name in classes), folder=tmp_path)
    return tmp_path / "ILSVRC2012_img_train.tar"


def test_imagenets_tar_of_tars_is_read_in_place(tmp_path: Path) -> None:
    path = imagenet(tmp_path)
    source, rows = listed(path)
    assert (source.kind, source.classes, source.counts, source.warnings) == ("tar", ("n01", "n02"), {}, [])
    assert [(row.key, row.label) for row in rows] == [
        (f"{n}/{n}_{i}.JPEG", n == "n02") for n in ("n02", "n01") for i in range(3)
    ]
    assert rows[0].member == "n02.tar/n02_0.JPEG"
    data = path.read_bytes()
    for row in rows:
        assert data[row.offset :][: row.length] == (tmp_path / row.key).read_bytes()
    assert list(contents(path).values()) == [png(3), png(4), png(5)] * 2


def test_imagenets_class_tars_in_a_folder_are_classes(tmp_path: Path) -> None:
    imagenet(tmp_path / "x", ("n02000002", "n01000001"))
    (tmp_path / "x/ILSVRC2012_img_train.tar").unlink()
    for place in ("x/*.tar", "x/{n01000001,n02000002}.tar"):
        source, rows = listed(tmp_path / place)
        assert source.classes == ("n01000001", "n02000002")
        assert [row.label for row in rows] == [0, 0, 0, 1, 1, 1]
        assert rows[0].key == "n01000001.tar/n01000001_0.JPEG"


def test_an_inner_tar_may_be_empty_but_never_damaged(tmp_path: Path) -> None:
    path = imagenet(tmp_path)
    whole = path.read_bytes()
    for place in (512 + 148, 512 + 1024 + 148):
        data = bytearray(whole)
        data[place] ^= 0xFF
        path.write_bytes(data)
        assert "n02.tar: damaged" in refused(path)
    with tarfile.open(path, "w") as outer:
        for name, size in (("a.tar", 1024), ("b.tar", 1536)):
            info = tarfile.TarInfo(name)
            info.size = size
            outer.addfile(info, io.BytesIO(bytes(size)))
    assert "no images found" in refused(path)


def test_pictures_beside_class_tars_are_left_out_with_a_warning(tmp_path: Path) -> None:
    imagenet(tmp_path)
    (tmp_path / "z.png").write_bytes(png())
    run("tar", "-cf", "a.tar", "n01.tar", "z.png", folder=tmp_path)
    source, rows = listed(tmp_path / "a.tar")
    assert (len(rows), source.counts) == (3, {"images beside the class tars": 1})
    assert "left out" in str(source.warnings[0])


def test_classes_that_would_be_called_alike_are_refused(tmp_path: Path) -> None:
    imagenet(tmp_path)
    for folder in ("x", "x-n01"):
        (tmp_path / folder).mkdir()
    shutil.copy(tmp_path / "n01.tar", tmp_path / "x/n01.tar")
    shutil.copy(tmp_path / "n01.tar", tmp_path / "x-n01.tar")
    run("tar", "-cf", "a.tar", "x/n01.tar", "x-n01.tar", folder=tmp_path)
    assert "called alike" in refused(tmp_path / "a.tar")
    assert class_of_tar(Member("x/n01.tar", "x/n01.tar", 0, 0)) == "x-n01"


def test_a_compressed_inner_tar_says_so(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as outer:
        info = tarfile.TarInfo("a.tar")
        info.size = 1024
        outer.addfile(info, io.BytesIO(b"\x1f\x8b" + bytes(1022)))
    assert "is compressed" in refused(tmp_path / "a.tar")


# Hostile archives


def test_names_that_climb_out_are_only_names(tmp_path: Path) -> None:
    import zipfile

    names = ["../../evil.png", "/etc/evil.png", "a/../../evil2.png", "C:\\evil.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, png(number))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(png(number))
            archive.addfile(info, io.BytesIO(png(number)))
    for path in (tmp_path / "a.zip", tmp_path / "a.tar"):
        survives(path)
        assert {file.name for file in tmp_path.iterdir()} == {"a.zip", "a.tar"}
        assert set(contents(path).values()) <= {png(number) for number in range(4)}


def test_labels_in_json_beside_other_things(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in {
            "0.jpg": png(0),
            "0.json": json.dumps({"caption": "none"}).encode(),
            "1.jpg": png(1),
            "1.json": json.dumps({"label": 2, "nested": {"label": 9}}).encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert labels_of(tmp_path / "a.tar") == {"0.jpg": -1, "1.jpg": 2}
