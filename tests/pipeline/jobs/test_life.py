"""The life of a dataset after its first day: whatever was done to it, it is what encoding everything at once gives."""

import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.verify import verify
from tests.conftest import SMALL_KL, lvae, make_once
from tests.pipeline.faults import contents, kill_command, start, wait_for

SETTINGS = ("--size", "32", "--mirror", "--part-size", "7", "--workers", "1")
NETWORK = ("--autoencoder", SMALL_KL, "--weights", "random:0")


def encode(source: Path, dataset: Path, *options: str, check: int = 0) -> str:
    return lvae("encode", source, dataset, *SETTINGS, *NETWORK, *options, check=check).stderr


def raw_by_key(root: Path) -> dict[str, NDArray[np.float32]]:
    """Key -> the raw latents of an image and its mirror, from raw parts, receipts and rows alone."""
    found = {}
    keys = [key for path in sorted((root / "rows").iterdir()) for key in pq.read_table(path)["key"].to_pylist()]
    for path in sorted((root / "raw").glob("*/*.json")):
        receipt = json.loads(path.read_bytes())
        rejected = {rejection["row"] for rejection in receipt["rejected"]}
        rows = range(receipt["first_row"], receipt["first_row"] + receipt["rows"])
        raw = np.load(root / receipt["raw"]["path"], mmap_mode="r")
        for index, row in enumerate(row for row in rows if row not in rejected):
            found[keys[row]] = np.array(raw[2 * index : 2 * index + 2])
    return found


def rows_by_split(root: Path) -> dict[str, set[tuple[str, str | None, bool]]]:
    """Split -> key, class and orientation of every latent in the view."""
    keys = [key for path in sorted((root / "rows").iterdir()) for key in pq.read_table(path)["key"].to_pylist()]
    found = {}
    whole = Dataset.open(root)
    for name in whole.splits:
        one, classes = whole.split(name), whole.classes or ()
        names = [classes[label] if label >= 0 else None for label in one.labels]
        found[name] = set(zip([keys[row] for row in one.rows], names, one.mirrored.tolist(), strict=True))
    return found


def same_as_at_once(changed: Path, at_once: Path) -> None:
    """Raw latents, classes, row sets and statistics; and nothing is wrong with the dataset."""
    assert verify(Folder(changed), deep=True) == []
    ours, theirs = raw_by_key(changed), raw_by_key(at_once)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert rows_by_split(changed) == rows_by_split(at_once)
    a, b = Dataset.open(changed), Dataset.open(at_once)
    assert a.classes == b.classes and a.statistics.count == b.statistics.count
    for name in ("mean", "std"):
        difference = np.abs(getattr(a.statistics, name) - getattr(b.statistics, name))
        assert (difference <= 1e-12 * b.statistics.std).all()
    assert np.array_equal(a.statistics.min, b.statistics.min) and np.array_equal(a.statistics.max, b.statistics.max)


def images_of(scenes: Path) -> list[Path]:
    return sorted(path.relative_to(scenes) for path in scenes.glob("*/*.png"))


def put(scenes: Path, names: list[Path], folder: Path) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def at_once(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scenes, encoded in one go, a fifth of them set aside."""
    made = make_once(tmp_path_factory, "at-once", lambda root: encode(scenes, root / "dataset", "--split", "val=20%"))
    return made / "dataset"


@pytest.fixture
def halves(scenes: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two folders that share the scenes: the second has classes that the first does not have, and the reverse."""
    images = images_of(scenes)
    folders = sorted({name.parts[0] for name in images})
    first = [name for index, name in enumerate(images) if name.parts[0] != folders[2] and (index % 3 or index < 4)]
    return put(scenes, first, tmp_path / "first"), put(scenes, sorted(set(images) - set(first)), tmp_path / "second")


# --- new images arrive -----------------------------------------------------------------------------------------------


def test_new_images_in_the_same_folder_are_added(scenes: Path, at_once: Path, tmp_path: Path) -> None:
    images = images_of(scenes)
    source, dataset = put(scenes, images[::2], tmp_path / "photos"), tmp_path / "dataset"
    encode(source, dataset, "--split", "val=20%")
    before = {path: path.stat().st_mtime_ns for path in (dataset / "raw").glob("*/*")}
    put(scenes, images, source)  # also touches the old ones, whose bytes are compared
    assert "--append" in encode(source, dataset, check=1)
    rehearsed = lvae(
        "encode", source, dataset, "--append", "--dry-run", "--json", "--images-per-second", "9", "--workers", "1"
    )
    shown = json.loads(rehearsed.stdout)
    assert (shown["images"], shown["images_to_encode"]) == (48, 24)
    assert "24 new images" in encode(source, dataset, "--append")
    same_as_at_once(dataset, at_once)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (dataset / "raw").glob("*/*")}.items()
    assert "nothing is new" in encode(source, dataset, "--append")
    encode(source, dataset)
    same_as_at_once(dataset, at_once)


@pytest.mark.slow
def test_new_images_from_another_source_are_added(halves: tuple[Path, Path], at_once: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    encode(halves[0], dataset, "--split", "val=20%")
    shutil.make_archive(str(tmp_path / "second"), "zip", halves[1])
    encode(tmp_path / "second.zip", dataset, "--append")
    same_as_at_once(dataset, at_once)
    encode(halves[0], dataset)  # either source is one of this dataset's
    encode(tmp_path / "second.zip", dataset)
    next((dataset / "raw").glob("*/part-000007.*.npy")).unlink()
    assert str(tmp_path / "second.zip") in lvae("verify", dataset, check=1).stdout
    encode(tmp_path / "second.zip", dataset)
    same_as_at_once(dataset, at_once)


def test_scan_adds_too(scenes: Path, at_once: Path, halves: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    lvae("scan", halves[0], dataset, "--part-size", "7")
    shown = json.loads(lvae("scan", halves[1], dataset, "--append", "--json").stdout)
    assert shown["images"] == 48 and len(shown["segments"]) == 2
    encode(halves[1], dataset, "--split", "val=20%")
    same_as_at_once(dataset, at_once)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["other bytes", "gone", "same name", "moved to another class"])
def test_changed_images_are_refused_and_nothing_is_lost(change: str, scenes: Path, tmp_path: Path) -> None:
    images = images_of(scenes)
    source, dataset = put(scenes, images[:20], tmp_path / "photos"), tmp_path / "dataset"
    encode(source, dataset)
    before = contents(dataset)
    put(scenes, images[20:30], source)
    if change == "other bytes":
        shutil.copy(scenes / images[40], source / images[3])
    elif change == "gone":
        (source / images[3]).unlink()
    elif change == "same name":
        source = put(scenes, images[3:30], tmp_path / "others")
    else:
        (source / images[3]).rename(source / images[19].parent / "moved.png")
    refusal = encode(source, dataset, "--append", check=1)
    assert images[3].as_posix() in refusal and "Traceback" not in refusal
    assert contents(dataset) == before
    assert verify(Folder(dataset), deep=True) == []


@pytest.mark.slow
def test_an_interrupted_append_leaves_the_old_dataset_whole(
    halves: tuple[Path, Path], at_once: Path, tmp_path: Path
) -> None:
    dataset = tmp_path / "dataset"
    encode(halves[0], dataset, "--split", "val=20%")
    (halves[1] / images_of(halves[1])[0].parent / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    rng = random.Random(5)
    old = Dataset.open(dataset).manifest.id
    for _ in range(3):
        command = start("encode", halves[1], dataset, "--append", *SETTINGS, *NETWORK)
        wait_for("the plan", lambda: len(json.loads((dataset / "plan.json").read_bytes())["origins"]) == 2)
        time.sleep(rng.uniform(0, 4))
        kill_command(command)
        if Dataset.open(dataset).manifest.id != old:
            break
        shown = json.loads(lvae("verify", "--deep", "--json", dataset).stdout)
        assert shown["faults"] == [] and shown["images_being_added"] > 0 and str(halves[1]) in shown["mend"]
    encode(halves[1], dataset)
    assert Dataset.open(dataset).manifest.counts.rejected == 1
    (halves[1] / images_of(halves[1])[0].parent / "broken.png").unlink()
    same_as_at_once(dataset, at_once)


@pytest.mark.slow
def test_raw_parts_that_were_dropped_cannot_be_added_to(scenes: Path, tmp_path: Path) -> None:
    images = images_of(scenes)
    source, dataset = put(scenes, images[:10], tmp_path / "photos"), tmp_path / "dataset"
    encode(source, dataset, "--drop-raw")
    put(scenes, images[:12], source)
    before = contents(dataset)
    assert "raw parts have been dropped" in encode(source, dataset, "--append", check=1)
    assert contents(dataset) == before


# --- images are removed ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("erase", [False, True])
def test_a_class_and_keys_are_removed(erase: bool, scenes: Path, at_once: Path, tmp_path: Path) -> None:
    images = images_of(scenes)
    gone_class, gone = images[0].parts[0], [images[20], images[33]]
    left = [name for name in images if name.parts[0] != gone_class and name not in gone]
    encode(put(scenes, left, tmp_path / "left"), tmp_path / "right", "--split", "val=20%")
    dataset = tmp_path / "dataset"
    shutil.copytree(at_once, dataset)
    (tmp_path / "gone.txt").write_text("".join(f"{name.as_posix()}\n" for name in [*gone, Path("no/such.png")]))
    selection = ("--without-classes", gone_class, "--without-keys", str(tmp_path / "gone.txt"), "--split", "val=20%")
    before = contents(dataset)
    assert "no image has 1 of these 3 keys, 'no/such.png'" in lvae("shard", dataset, *selection, check=1).stderr
    assert contents(dataset) == before
    said = lvae("shard", dataset, *selection, "--missing-ok", *(["--erase"] if erase else [])).stderr
    assert "warning: --without-keys: no image has 1 of these 3 keys" in said
    assert ("by --out or 'lvae merge', keep the erased images: erase them there, too" in said) == erase
    if not erase:
        assert len(raw_by_key(dataset)) == 48
        ours, theirs = Dataset.open(dataset), Dataset.open(tmp_path / "right")
        assert rows_by_split(dataset) == rows_by_split(tmp_path / "right") and ours.classes == theirs.classes
        assert (np.abs(ours.statistics.mean - theirs.statistics.mean) <= 1e-12 * theirs.statistics.std).all()
        assert (np.abs(ours.statistics.std - theirs.statistics.std) <= 1e-12 * theirs.statistics.std).all()
        lvae("shard", dataset, "--everything", "--split", "val=20%")
        same_as_at_once(dataset, at_once)
        return
    same_as_at_once(dataset, tmp_path / "right")
    # The source may lose them too: what is erased is neither missed nor encoded again.
    source = put(scenes, left, tmp_path / "source")
    for path in sorted((dataset / "raw").glob("*/*.json"))[:3]:
        path.unlink()
    encode(source, dataset)
    same_as_at_once(dataset, tmp_path / "right")
    reasons = [json.loads(line)["reason"] for line in (dataset / "rejected.jsonl").read_text().splitlines()]
    assert len(reasons) == 48 - len(left) and set(reasons) == {"erased on request"}


def test_a_takedown_keeps_the_view_as_it_is(at_once: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(at_once, dataset)
    lvae("shard", dataset, "--format", "webdataset", "--dtype", "float32", "--normalization", "scalar")
    before = rows_by_split(dataset)
    gone, also = (pq.read_table(dataset / "rows")["key"][row].as_py() for row in (30, 40))
    (tmp_path / "gone.txt").write_text(f"{gone}\n")
    said = lvae("shard", dataset, "--without-keys", tmp_path / "gone.txt", "--erase").stderr
    assert "stays as it was: --split" in said
    (tmp_path / "gone.txt").write_text(f"{also}\n")
    lvae("shard", dataset, "--without-keys", tmp_path / "gone.txt", "--erase")
    view = Dataset.open(dataset).manifest.view
    assert (view.format, view.dtype, view.selection.split) == ("webdataset", "float32", {"val": "20%"})
    left = {split: {row for row in rows if row[0] not in (gone, also)} for split, rows in before.items()}
    assert rows_by_split(dataset) == left


def test_what_the_view_left_out_is_not_erased(at_once: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(at_once, dataset)
    classes = Dataset.open(dataset).manifest.classes
    assert classes is not None
    lvae("shard", dataset, "--only-classes", classes[0])
    key = pq.read_table(dataset / "rows")["key"][0].as_py()
    (tmp_path / "gone.txt").write_text(f"{key}\n")
    lvae("shard", dataset, "--without-keys", tmp_path / "gone.txt", "--erase")
    assert Dataset.open(dataset).manifest.view.selection.only_classes == (classes[0],)
    assert len(raw_by_key(dataset)) == 47
    lvae("shard", dataset, "--everything")
    assert Dataset.open(dataset).manifest.counts.selected == 2 * 47


def test_an_erasure_that_was_stopped_goes_on_with_the_next_command(at_once: Path, tmp_path: Path) -> None:
    dataset, finished = tmp_path / "dataset", tmp_path / "finished"
    shutil.copytree(at_once, dataset)
    shutil.copytree(at_once, finished)
    key = pq.read_table(dataset / "rows")["key"][30].as_py()
    (tmp_path / "gone.txt").write_text(f"{key}\n")
    arguments = ("--without-keys", str(tmp_path / "gone.txt"), "--split", "val=20%", "--erase")
    lvae("shard", finished, *arguments)
    shutil.copytree(finished / "erased", dataset / "erased")
    shutil.copy(finished / "plan.json", dataset / "plan.json")  # all that there was before the first part was rewritten
    assert "to be erased" in lvae("verify", dataset, check=1).stdout
    assert Dataset.open(dataset).read([0, 1])[0].shape == (2, 4, 16, 16)
    lvae("shard", dataset, *arguments)
    assert contents(dataset) == contents(finished)
    assert key not in raw_by_key(dataset)


def test_what_erase_would_take_has_to_be_said(at_once: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(at_once, dataset)
    before = contents(dataset)
    assert "--erase: say what" in lvae("shard", dataset, "--erase", check=1).stderr
    (tmp_path / "all.txt").write_text("".join(f"{key}\n" for key in raw_by_key(dataset)))
    assert (
        "nothing is selected"
        in lvae("shard", dataset, "--erase", "--without-keys", tmp_path / "all.txt", check=1).stderr
    )
    assert contents(dataset) == before


# --- several datasets, and a dataset of its own ----------------------------------------------------------------------


@pytest.mark.slow
def test_merged_datasets_are_what_one_encoding_gives(halves: tuple[Path, Path], at_once: Path, tmp_path: Path) -> None:
    encode(halves[0], tmp_path / "a", "--split", "val=20%")
    encode(halves[1], tmp_path / "b", "--format", "webdataset")
    before = contents(tmp_path / "a")
    lvae("merge", tmp_path / "a", tmp_path / "b", tmp_path / "both")
    same_as_at_once(tmp_path / "both", at_once)
    assert contents(tmp_path / "a") == before
    shutil.rmtree(tmp_path / "a")  # what was linked is the merged dataset's own
    assert verify(Folder(tmp_path / "both"), deep=True) == []
    encode(halves[0], tmp_path / "both")  # and can be mended from its sources
    lvae("shard", tmp_path / "both", "--normalization", "scalar")


@pytest.mark.slow
def test_a_key_that_occurs_twice_is_refused_or_skipped(scenes: Path, at_once: Path, tmp_path: Path) -> None:
    images = images_of(scenes)
    encode(put(scenes, images[:30], tmp_path / "one"), tmp_path / "a", "--split", "val=20%")
    encode(put(scenes, images[22:], tmp_path / "two"), tmp_path / "b")
    refusal = lvae("merge", tmp_path / "a", tmp_path / "b", tmp_path / "both", check=1).stderr
    assert "8 keys" in refusal and images[22].as_posix() in refusal
    assert not (tmp_path / "both/plan.json").exists() and not (tmp_path / "both/raw").exists()
    for _ in range(2):
        lvae("merge", tmp_path / "a", tmp_path / "b", tmp_path / "both", "--skip-duplicates")
        same_as_at_once(tmp_path / "both", at_once)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "named"),
    [(("--crop", "center"), "image.crop"), (("--weights", "random:1"), "weights"), (("--store", "moments"), "store")],
    ids=str,
)
def test_unlike_datasets_are_not_merged(
    other: tuple[str, ...], named: str, scenes: Path, at_once: Path, tmp_path: Path
) -> None:
    encode(put(scenes, images_of(scenes)[:5], tmp_path / "few"), tmp_path / "other", *other)
    refusal = lvae("merge", at_once, tmp_path / "other", tmp_path / "both", check=1).stderr
    assert named in refusal and "can be merged" in refusal and "Traceback" not in refusal


def test_a_view_becomes_a_dataset_of_its_own(at_once: Path, tmp_path: Path) -> None:
    before = contents(at_once)
    lvae("shard", at_once, "--out", tmp_path / "own", "--normalization", "none", "--dtype", "float32")
    assert contents(at_once) == before
    own = Dataset.open(tmp_path / "own")
    assert own.normalization.kind == "none" and own.splits == ("train", "val")
    ours, theirs = raw_by_key(tmp_path / "own"), raw_by_key(at_once)
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs) and len(ours) == 48
    assert rows_by_split(tmp_path / "own") == rows_by_split(at_once)
    lvae("verify", "--deep", tmp_path / "own")


def test_a_view_elsewhere_with_images_erased_holds_nothing_of_them(at_once: Path, tmp_path: Path) -> None:
    first = next(iter(raw_by_key(at_once)))
    name = first.split("/")[0]
    lvae("shard", at_once, "--out", tmp_path / "own", "--without-classes", name, "--erase")
    assert {key.split("/")[0] for key in raw_by_key(tmp_path / "own")} == {
        key.split("/")[0] for key in raw_by_key(at_once)
    } - {name}
    lvae("verify", "--deep", tmp_path / "own")
