import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvae.manifests import records
from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import Manifest, dump_manifest, read_manifest
from lvae.manifests.parts.plan import Origin, write_plan
from lvae.manifests.parts.receipts import read_receipt, receipt_name
from lvae.manifests.publishing.publish import drop_raw
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.verify import mend_command, verify
from tests.manifests.dataset_examples import (
    Contents,
    Example,
    build,
    encode,
    files_of,
    flip,
    forge_raw,
    forge_shard,
    problems,
    resign,
    shard,
    shards_of,
)

WHOLE: dict[str, tuple[Contents, dict[str, Any]]] = {
    "zarr": (Contents(), {}),
    "webdataset": (Contents(), {"format": "webdataset", "split": {"val": "10"}}),
    "float32": (Contents(mirrored=False), {"dtype": "float32", "normalization": "scalar", "split": {"val": "20%"}}),
    "moments": (Contents(store="moments"), {"split": {"val": "5", "test": "5"}}),
    "moments in tars": (Contents(store="moments"), {"format": "webdataset", "limit": 50}),
    "given": (Contents(store="sample"), {"normalization": "given", "shift": (1.0,) * 4, "scale": (2.0, 3.0, 4.0, 5.0)}),
    "none": (Contents(), {"normalization": "none", "dtype": "float32"}),
    "selection": (
        Contents(),
        {"only_classes": ["猫", "cat"], "without_keys": ["0/ü00000.png"], "limit": 30, "seed": 7},
    ),
    "bytes": (Contents(pixels=True), {"dtype": "uint8"}),
    "bytes in tars": (Contents(pixels=True), {"dtype": "uint8", "format": "webdataset", "split": {"val": "20%"}}),
    "pixels as floats": (Contents(pixels=True), {}),
    "unlabelled": (Contents(classes=None), {"format": "webdataset"}),
    "one image": (Contents(images=1, rejected=frozenset(), mirrored=False), {}),
    "constant channel": (Contents(scales=(1.0, 0.0, 1.0, 0.0)), {}),
    "nothing rejected": (Contents(rejected=frozenset()), {"shard_size": 8192}),
}
whole = pytest.mark.parametrize("name", WHOLE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Example]:
    """Every kind is built once and only looked at."""
    examples: dict[str, Example] = {}

    def make(name: str) -> Example:
        if name not in examples:
            contents, settings = WHOLE[name]
            examples[name] = build(tmp_path_factory.mktemp("whole"), contents, **settings)
        return examples[name]

    return make


@pytest.fixture
def copied(made: Callable[[str], Example], tmp_path: Path) -> Callable[[str], Example]:
    """A copy to be damaged."""

    def copy(name: str) -> Example:
        example = made(name)
        root = tmp_path / "copy"
        shutil.copytree(example.root, root, ignore=shutil.ignore_patterns(".tmp"))
        return replace(example, root=root)

    return copy


# --- whole datasets --------------------------------------------------------------------------------------------------


@whole
def test_a_whole_dataset_has_no_fault(made: Callable[[str], Example], name: str) -> None:
    root = made(name).root
    assert problems(root, deep=True) == problems(root, deep=False) == []


@whole
def test_a_dataset_without_its_raw_parts_has_no_fault(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    drop_raw(example.folder)
    assert problems(example.root) == []


def test_a_copy_elsewhere_has_no_fault(copied: Callable[[str], Example], tmp_path: Path) -> None:
    shutil.copytree(copied("zarr").root, tmp_path / "ü" / "another place")
    assert problems(tmp_path / "ü" / "another place") == []


def test_stray_files_are_no_fault(copied: Callable[[str], Example]) -> None:
    root = copied("zarr").root
    for name in (
        ".DS_Store",
        "notes.txt",
        "raw/000000/part-000001.01234567.npy",
        "raw/.nfs0001",
        "rows/000000.parquet.bak",
        "weights/other.safetensors",
        "shards/old/view.json",
        "shards/.DS_Store",
        ".tmp/half",
        "timings/000000/part-000000.json",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"stray")
    assert problems(root) == []


def test_images_that_moved_are_no_fault(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    write_plan(example.folder, replace(example.plan, origins=(Origin("/mnt/elsewhere.zip", None, "source"),)))
    assert problems(example.root) == []


@pytest.mark.parametrize("name", ["zarr", "webdataset", "moments", "bytes"])
def test_looking_changes_nothing(copied: Callable[[str], Example], name: str) -> None:
    """Somebody else may be writing another view meanwhile, or the disk may be read-only."""
    root = copied(name).root
    before = files_of(root)
    problems(root)
    assert files_of(root) == before


@pytest.mark.parametrize("offset", [30.0, -200.0])
@pytest.mark.parametrize("normalization", ["none", "scalar"])
def test_channels_far_from_zero_are_no_fault_without_raw_parts(
    tmp_path: Path, normalization: str, offset: float
) -> None:
    """Half precision rounds a value by its distance from zero, which only `channel` makes small."""
    contents = Contents(offsets=(offset, 0.0, 0.0, 0.0), scales=(0.5, 1.0, 1.0, 1.0))
    example = build(tmp_path, contents, normalization=normalization)
    assert problems(tmp_path) == []
    drop_raw(example.folder)
    assert problems(tmp_path) == []


@pytest.mark.parametrize("seed", range(8))
def test_few_latents_are_no_fault_without_raw_parts(tmp_path: Path, seed: int) -> None:
    example = build(tmp_path, Contents(images=2, rejected=frozenset({seed % 2}), mirrored=False, seed=seed))
    drop_raw(example.folder)
    assert problems(tmp_path) == []


def test_what_is_looked_at_is_told(made: Callable[[str], Example]) -> None:
    told: list[str] = []
    verify(made("zarr").folder, True, told.append)
    assert "files" in told and "part 5 of 5" in told and "shard 3 of 3 of train" in told


# --- damaged files ---------------------------------------------------------------------------------------------------

damaged = pytest.mark.parametrize("name", ["zarr", "webdataset", "moments", "bytes"])


def dataset_files(example: Example) -> dict[str, bytes]:
    """Without what looking at it may leave under .tmp/."""
    return {path: data for path, data in files_of(example.root).items() if not path.startswith(".tmp/")}


def mentions(name: str, found: list[str]) -> bool:
    """Some fault stands where the damage is: the file, or what several files are checked as."""
    file = name.rpartition("/")[2]
    wholes = ["raw/*/part-*.json"] if name.startswith("raw/") else [name]
    return any(file in problem or problem.startswith(tuple(wholes)) for problem in found)


@damaged
def test_every_flipped_bit_is_found(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    random = np.random.default_rng(0)
    for path, data in dataset_files(example).items():
        for byte, bit in zip(random.integers(0, len(data), 2), random.integers(0, 8, 2), strict=True):
            flip(example.root / path, byte, bit)
            found = problems(example.root)
            assert mentions(path, found), (path, byte, bit, found)
            (example.root / path).write_bytes(data)
    assert problems(example.root) == []


@damaged
def test_every_missing_file_is_found(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    for path, data in dataset_files(example).items():
        (example.root / path).unlink()
        for deep in (False, True):
            found = problems(example.root, deep)
            assert mentions(path, found) and any("missing" in problem for problem in found), (path, found)
        (example.root / path).write_bytes(data)


@damaged
def test_every_file_cut_short_is_found_without_looking_deep(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    for path, data in dataset_files(example).items():
        for left in (len(data) // 2, len(data) - 2):
            (example.root / path).write_bytes(data[:left])
            found = problems(example.root, deep=False)
            assert mentions(path, found), (path, left, found)
        (example.root / path).write_bytes(data)


@damaged
def test_every_file_that_grew_is_found_without_looking_deep(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    for path, data in dataset_files(example).items():
        if path.endswith(".json") and not path.startswith("shards/"):
            continue  # a space behind a JSON document says nothing; the deep look compares hashes of receipts
        (example.root / path).write_bytes(data + b" ")
        assert mentions(path, problems(example.root, deep=False)), path
        (example.root / path).write_bytes(data)


def test_a_file_of_zeros_is_found(copied: Callable[[str], Example]) -> None:
    """What a power cut leaves of files on some file systems: the right size, and nothing in it."""
    example = copied("zarr")
    for path, data in dataset_files(example).items():
        (example.root / path).write_bytes(bytes(len(data)))
        assert mentions(path, problems(example.root)), path
        (example.root / path).write_bytes(data)


def test_several_faults_are_all_named(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    damage = [receipt_name(1), "rejected.jsonl", shards_of(example.root)[2].path]
    for name in damage:
        flip(example.root / name, 10, 0)
    found = problems(example.root)
    assert all(mentions(name, found) for name in damage)


def test_damaged_parts_and_shards_are_told_by_number(copied: Callable[[str], Example]) -> None:
    """Whoever mends a dataset makes these again, and nothing else."""
    for name in ("zarr", "webdataset"):
        example = copied(name)
        for path, data in dataset_files(example).items():
            flip(example.root / path, len(data) // 2, 0)
            faults = verify(example.folder, True)
            if path.startswith("raw/"):
                assert int(path.rpartition("/part-")[2][:6]) in {fault.part for fault in faults}, path
            elif path.startswith("shards/") and not path.endswith(("view.json", "zarr.json", ".jsonl")):
                local = path.split("/", 2)[2]
                split = "val" if "val" in local else "train"
                pieces = local.split("/c/")[1].split("/") if "/c/" in local else [local.split("-")[-1].split(".")[0]]
                assert (split, int(pieces[0])) in {(fault.split, fault.shard) for fault in faults}, path
            (example.root / path).write_bytes(data)
        shutil.rmtree(example.root)


# --- files in the wrong place ----------------------------------------------------------------------------------------


def exchange(a: Path, b: Path) -> None:
    first, second = a.read_bytes(), b.read_bytes()
    assert first != second
    a.write_bytes(second)
    b.write_bytes(first)


@pytest.mark.parametrize("name", ["zarr", "webdataset", "bytes"])
def test_exchanged_shards_are_found(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    paths = [shard.path for shard in shards_of(example.root)]
    assert len(paths) >= 2
    exchange(example.root / paths[0], example.root / paths[1])
    assert len(problems(example.root)) >= 2


@pytest.mark.parametrize("name", ["zarr", "bytes"])
def test_exchanged_shards_are_found_even_when_signed_for(copied: Callable[[str], Example], name: str) -> None:
    example = copied(name)
    paths = [shard.path for shard in shards_of(example.root)]
    files = [example.folder.read(path) for path in paths]
    forge_shard(example.root, paths[0], files[1])
    forge_shard(example.root, paths[1], files[0])
    assert any("does not hold what the raw parts give" in problem for problem in problems(example.root))


def test_exchanged_raw_parts_are_found(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    receipts = [read_receipt(example.folder, part) for part in (1, 3)]
    paths = [example.root / receipt.raw.path for receipt in receipts if receipt is not None]
    exchange(paths[0], paths[1])
    faults = verify(example.folder, True)
    assert {fault.part for fault in faults} >= {1, 3}
    assert verify(example.folder, False) == []  # sizes are equal: only the deep look can tell


def test_exchanged_raw_parts_are_found_even_when_signed_for(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    forge_raw(example.root, 1, example.raw[3])
    forge_raw(example.root, 3, example.raw[1])
    assert any("moments are not those of its raw file" in problem for problem in problems(example.root))


def test_the_receipt_of_another_part_is_found(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    shutil.copy(example.root / receipt_name(1), example.root / receipt_name(3))
    for deep in (False, True):
        assert any("receipt of another part" in problem for problem in problems(example.root, deep))


def test_the_plan_of_another_dataset_is_found(copied: Callable[[str], Example], made: Callable[[str], Example]) -> None:
    example = copied("zarr")
    shutil.copy(made("moments").root / "plan.json", example.root / "plan.json")
    assert any("plan.json: belongs to another dataset" in problem for problem in problems(example.root, deep=False))


def test_the_rows_of_another_listing_are_found_even_when_signed_for(
    copied: Callable[[str], Example], tmp_path: Path
) -> None:
    example = copied("zarr")
    other = encode(tmp_path / "other", classes=None)
    shutil.copy(other.root / "rows/000000.parquet", example.root / "rows/000000.parquet")
    resign(example.root)
    assert any("does not hold the listing" in problem for problem in problems(example.root))


def test_a_shorter_list_of_rejections_is_found_even_when_signed_for(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    path = example.root / "rejected.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    resign(example.root)
    assert any("rejected.jsonl" in problem for problem in problems(example.root))


# --- numbers that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_raw_latents_that_are_not_finite_are_found_even_when_signed_for(
    copied: Callable[[str], Example], value: float
) -> None:
    example = copied("zarr")
    raw = example.raw[1].copy()
    raw[7, 2, 0, 1] = value
    forge_raw(example.root, 1, raw)
    assert any("part-000001" in problem and "not finite" in problem for problem in problems(example.root))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_log_variances_that_are_not_finite_are_found_even_when_signed_for(
    copied: Callable[[str], Example], value: float
) -> None:
    example = copied("moments")
    raw = example.raw[1].copy()
    raw[7, 6, 0, 1] = value
    forge_raw(example.root, 1, raw)
    assert any("part-000001" in problem for problem in problems(example.root))


def plant(example: Example, array: str, value: float) -> None:
    """A number into the first latent of a shard, with all hashes made again."""
    [path] = (example.root / "shards").glob(f"*/train.zarr/{array}/c/0/0/0/0")
    data = bytearray(path.read_bytes())
    data[:2] = np.float16(value).tobytes()
    forge_shard(example.root, path.relative_to(example.root).as_posix(), bytes(data))


@pytest.mark.parametrize("dropped", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("array", ["latents", "log_variances"])
def test_shards_that_are_not_finite_are_found_even_when_signed_for(
    copied: Callable[[str], Example], array: str, value: float, dropped: bool
) -> None:
    example = copied("moments")
    if dropped:
        drop_raw(example.folder)
    plant(example, array, value)
    assert problems(example.root)


def test_a_latent_that_is_not_finite_in_a_tar_is_found_even_when_signed_for(copied: Callable[[str], Example]) -> None:
    example = copied("webdataset")
    drop_raw(example.folder)
    name = shards_of(example.root)[0].path
    data = bytearray(example.folder.read(name))
    data[512 + 128 : 512 + 130] = np.float16(np.nan).tobytes()  # behind a tar header and an .npy header
    forge_shard(example.root, name, bytes(data))
    assert any("not finite" in problem for problem in problems(example.root))


def test_another_finite_number_in_a_shard_is_found_even_when_signed_for(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    plant(example, "latents", 0.125)
    assert any("does not hold what the raw parts give" in problem for problem in problems(example.root))


@pytest.mark.parametrize(("array", "value"), [("labels", 3), ("labels", 0), ("rows", 1), ("mirrored", 2)])
def test_other_labels_rows_and_orientations_are_found_even_when_signed_for(
    copied: Callable[[str], Example], array: str, value: int
) -> None:
    example = copied("zarr")
    values = getattr(example.open(), array)
    place = next(index for index in range(64) if values[index] != value)
    [path] = (example.root / "shards").glob(f"*/train.zarr/{array}/c/0")
    data = bytearray(path.read_bytes())
    data[place * values.itemsize] = value if array != "mirrored" else not values[place]
    forge_shard(example.root, path.relative_to(example.root).as_posix(), bytes(data))
    assert problems(example.root)


def test_labels_outside_of_the_classes_are_found_without_raw_parts(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    drop_raw(example.folder)
    [path] = (example.root / "shards").glob("*/train.zarr/labels/c/0")
    data = bytearray(path.read_bytes())
    data[0:4] = np.int32(3).tobytes()
    forge_shard(example.root, path.relative_to(example.root).as_posix(), bytes(data))
    assert any("labels outside of the 3 classes" in problem for problem in problems(example.root))


# --- manifests that say something else -------------------------------------------------------------------------------


def put(*place: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one entry of a manifest; a function is applied to what was there."""

    def change(content: dict[str, Any]) -> None:
        *way, last = place
        here: Any = content
        for step in way:
            here = here[step]
        here[last] = value(here[last]) if callable(value) else value

    return change


def forget(name: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        names = [path for path in content["files"] if path.endswith(name)]
        assert names
        del content["files"][names[0]]

    return change


def name_a_missing_file(content: dict[str, Any]) -> None:
    content["files"]["elsewhere"] = {"bytes": 1, "sha256": "0" * 64}


EDITS = {
    "mean": put("statistics", "mean", 0, value=lambda mean: mean + 1e-9),
    "std": put("statistics", "std", 1, value=lambda std: std * (1 + 1e-12)),
    "min": put("statistics", "min", 2, value=-1e3),
    "max": put("statistics", "max", 3, value=1e3),
    "fewer statistics": put("statistics", "mean", value=lambda mean: mean[:3]),
    "statistics of others": put("statistics", "over", value="all rows"),
    "statistics from elsewhere": put("statistics", "computed_from", value="shards"),
    "statistics.count": put("statistics", "count", value=143),
    "shift": put("normalization", "shift", 0, value=lambda shift: shift + 1e-9),
    "scale": put("normalization", "scale", 0, value=lambda scale: scale * 2),
    "normalization.kind": put("normalization", "kind", value="scalar"),
    "id": put("id", value="0" * 64),
    "class name": put("classes", 1, value="wolf"),
    "classes exchanged": put("classes", value=["dog", "cat", "猫"]),
    "a class more": put("classes", value=["cat", "dog", "猫", "cow"]),
    "a class fewer": put("classes", value=["cat", "dog"]),
    "no classes": put("classes", value=None),
    "images": put("counts", "images", value=96),
    "rejected": put("counts", "rejected", value=0),
    "latents": put("counts", "latents", value=145),
    "selected": put("counts", "selected", value=145),
    "source.images": put("source", "images", value=96),
    "source.kind": put("source", "kind", value="zip"),
    "listing": put("source", "listing_sha256", value="0" * 64),
    "crop": put("image", "crop", value="lsun"),
    "mirrored": put("image", "mirrored", value=False),
    "autoencoder": put("autoencoder", "name", value="kl-f4"),
    "weights": put("autoencoder", "weights_sha256", value="6" * 64),
    "store": put("autoencoder", "store", value="sample"),
    "split count": put("splits", "train", "count", value=145),
    "a shard fewer": put("splits", "train", "shards", value=lambda shards: shards - 1),
    "index bytes": put("splits", "train", "index", "bytes", value=1),
    "index sha256": put("splits", "train", "index", "sha256", value="0" * 64),
    "index path": put("splits", "train", "index", "path", value="elsewhere"),
    "a split more": put("splits", value=lambda splits: splits | {"val": splits["train"] | {"count": 0, "shards": 0}}),
    "split name": put("splits", value=lambda splits: {"val": splits["train"]}),
    "view.seed": put("view", "seed", value=1),
    "view.shape": put("view", "shape", value=[2, 4, 2]),
    "view.format": put("view", "format", value="webdataset"),
    "view.dtype": put("view", "dtype", value="float32"),
    "view.shard_size": put("view", "shard_size", value=128),
    "view.selection": put("view", "selection", "limit", value=1000),
    "plan": put("plan_sha256", value="0" * 64),
    "forgotten weights": forget(".safetensors"),
    "forgotten rows": forget(".parquet"),
    "forgotten receipts": forget("part-*.json"),
    "forgotten view": forget("view.json"),
    "forgotten index": forget("train.shards.jsonl"),
    "file that is not there": name_a_missing_file,
}
# what can be told by the receipts, the rows and the shards alone
WITHOUT_RAW = [
    *("class name", "classes exchanged", "a class more", "a class fewer", "no classes", "id", "view.seed"),
    *("view.shard_size", "view.selection", "view.format", "view.dtype", "images", "rejected", "latents", "selected"),
    *("source.images", "source.kind", "listing", "crop", "autoencoder", "store", "scale", "split count"),
    *("a shard fewer", "split name", "plan", "forgotten rows", "file that is not there"),
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_found_even_when_signed_for(copied: Callable[[str], Example], edit: str) -> None:
    example = copied("zarr")
    resign(example.root, EDITS[edit])
    assert problems(example.root)


@pytest.mark.parametrize("edit", WITHOUT_RAW)
def test_an_edited_manifest_is_found_without_raw_parts(copied: Callable[[str], Example], edit: str) -> None:
    example = copied("zarr")
    drop_raw(example.folder)
    resign(example.root, EDITS[edit])
    assert problems(example.root)


def test_edited_statistics_are_found_without_raw_parts(copied: Callable[[str], Example]) -> None:
    for edit in (lambda std: std * 1.01, lambda std: std / 1.01):
        example = copied("zarr")
        drop_raw(example.folder)
        resign(example.root, put("statistics", "std", 1, value=edit))
        assert any("statistics.std is not that of the shards" in problem for problem in problems(example.root))
        shutil.rmtree(example.root)


# --- hostile files ---------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def view_json(root: Path) -> Path:
    [path] = (root / "shards").glob("*/view.json")
    return path


def latents_json(root: Path) -> Path:
    [path] = (root / "shards").glob("*/train.zarr/latents/zarr.json")
    return path


def no_chunks(content: dict[str, Any]) -> dict[str, Any]:
    content["chunk_grid"]["configuration"]["chunk_shape"][0] = 0
    return content


def short_moments(content: dict[str, Any]) -> dict[str, Any]:
    content["moments"]["m2"] = []
    return content


def huge_moments(content: dict[str, Any]) -> dict[str, Any]:
    content["moments"]["m2"][0] = 10**400
    return content


def surrogate_key(content: dict[str, Any]) -> dict[str, Any]:
    content["rejected"][0]["key"] = "\ud800"
    return content


HOSTILE: dict[str, tuple[Callable[[Path], Path], Callable[[Any], Any]]] = {
    "view of no format": (view_json, lambda content: content | {"format": "lmdb"}),
    "array of no object": (latents_json, lambda content: []),
    "chunks of no rows": (latents_json, no_chunks),
    "receipt of short moments": (lambda root: root / receipt_name(1), short_moments),
    "receipt of huge moments": (lambda root: root / receipt_name(1), huge_moments),
    "receipt of no text": (lambda root: root / receipt_name(0), surrogate_key),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_faults_and_no_crash(copied: Callable[[str], Example], kind: str, signed: bool) -> None:
    example = copied("zarr")
    place, change = HOSTILE[kind]
    rewrite(place(example.root), change)
    if signed:
        resign(example.root)
    assert problems(example.root)


def edit_index(root: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Other lines in the index of a split, under a manifest that agrees with them."""
    folder = Folder(root)
    manifest = read_manifest(folder)
    assert manifest is not None
    index = manifest.splits["train"].index
    lines = [json.loads(line) for line in folder.read(index.path).splitlines()]
    change(lines)
    record = records.plain(folder.write(index.path, map(records.line, lines)))
    content = records.plain(manifest)
    content["splits"]["train"]["index"] = record
    content["files"][index.path] = {"bytes": record["bytes"], "sha256": record["sha256"]}
    folder.write("manifest.json", dump_manifest(records.from_plain(Manifest, content, "forged")))


def recount_shards(lines: list[dict[str, Any]]) -> None:
    lines[0]["count"] -= 1
    lines[1]["count"] += 1


INDEXES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "count": lambda lines: lines[0].update(count=63),
    "counts": recount_shards,
    "sha256": lambda lines: lines[0].update(sha256="0" * 64),
    "bytes": lambda lines: lines[0].update(bytes=1),
    "path": lambda lines: lines[0].update(path="elsewhere"),
    "a shard fewer": lambda lines: lines.pop(),
    "a shard more": lambda lines: lines.append(lines[0]),
    "a file fewer": lambda lines: lines[1]["beside"].pop(),
    "exchanged": lambda lines: lines.reverse(),
    "a field more": lambda lines: lines[0].update(more=1),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("edit", INDEXES)
def test_every_edit_of_an_index_is_found(copied: Callable[[str], Example], edit: str, deep: bool) -> None:
    example = copied("zarr")
    edit_index(example.root, INDEXES[edit])
    found = problems(example.root, deep)
    assert any("train.shards.jsonl" in problem for problem in found), found


@pytest.mark.parametrize("name", ["shards/{view}/train.zarr/strange", "shards/{view}/shard-train-x.json"])
def test_strange_names_in_a_manifest_are_faults_and_no_crash(copied: Callable[[str], Example], name: str) -> None:
    example = copied("zarr")
    strange = name.format(view=example.manifest.view.name)
    resign(example.root, lambda content: content["files"].update({strange: {"bytes": 1, "sha256": "0" * 64}}))
    assert problems(example.root)


# --- what is no dataset, and advice ----------------------------------------------------------------------------------


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LvaeError, match="is not a dataset"):
        verify(Folder(tmp_path), False)


def test_an_unfinished_dataset_is_a_fault(tmp_path: Path) -> None:
    example = encode(tmp_path)
    assert problems(tmp_path) == ["manifest.json: is missing: the dataset is not finished"]
    shard(example)
    assert problems(tmp_path) == []


def test_faults_are_told_in_one_line_each(copied: Callable[[str], Example]) -> None:
    example = copied("zarr")
    for path in files_of(example.root):
        flip(example.root / path, 5, 0)
    found = problems(example.root)
    assert found and all("\n" not in problem and not problem.endswith(".") for problem in found)


def test_the_command_that_mends_names_source_and_dataset(made: Callable[[str], Example]) -> None:
    plan = replace(made("zarr").plan, origins=(Origin("my pictures", None, "source"),))
    folder = Folder("flowers")
    assert mend_command(plan, folder) == "lvae encode 'my pictures' flowers"
    assert "with the options of the first run" in mend_command(None, folder)
    assert mend_command(plan, folder, [Fault("weights/5.safetensors", "")]).endswith("--weights FILE")


def test_a_signature_is_over_everything_else(made: Callable[[str], Example]) -> None:
    """By hand, as another program would check it."""
    content = json.loads((made("zarr").root / "manifest.json").read_text())
    claimed = content.pop("self_sha256")
    assert claimed == records.sha256_of(content)
