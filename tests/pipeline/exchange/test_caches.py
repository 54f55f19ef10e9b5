"""Every layout that others write is recognized and read, numbers, labels and mirrors; odd ones are one line."""

import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from lvae.pipeline.exchange.caches.cache import REPEATS, Cache
from lvae.pipeline.exchange.caches.open import Choice, open_cache
from lvae.pipeline.exchange.part import convert
from lvae.pipeline.exchange.settings import Conversion
from tests.manifests.dataset_examples import Contents, build
from tests.pipeline.exchange import cache_examples as examples
from tests.pipeline.exchange.cache_examples import COUNT, WRITERS, deviations, labels, latents

SCALED = {"dit", "mds"}
FLIPPED = {"lightningdit", "mar", "arrays.npz"}


def contents(cache: Cache) -> tuple[list[ImageRow], NDArray[np.float32], dict[int, str]]:
    rows = list(cache.rows())
    out = np.full((len(rows), cache.orientations, *cache.shape), np.nan, np.float32)
    return rows, out, cache.read(rows, out)


def in_order(name: str, rows: list[ImageRow]) -> NDArray[np.int64]:
    """Which of the written latents each row is."""
    if name == "lightningdit":
        ranked = [np.concatenate([np.arange(COUNT), np.arange(-COUNT % 4)])[rank::4] for rank in range(4)]
        return np.concatenate(ranked)
    if name == "dit":
        return np.array([int(row.key.removesuffix(".npy")) for row in rows])
    return np.array([int(row.key[6:11]) for row in rows]) if name == "mar" else np.arange(COUNT)


@pytest.mark.parametrize("name", WRITERS)
def test_a_cache_gives_the_numbers_that_were_written(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    cache = open_cache(str(tmp_path / name), Choice(channels=4))
    rows, found, reasons = contents(cache)
    order = in_order(name, rows)
    convert(
        found, cache.moments is not None, cache.moments == "deviation", Conversion(0.18215 if name in SCALED else 1)
    )
    usable = [position for position in range(len(rows)) if position not in reasons]
    assert [row.label for row in rows] == labels()[order].tolist()
    assert cache.layout == {"arrays.npz": "npy", "latents.zarr": "zarr"}.get(name, name.partition(".")[0])
    assert len({row.key for row in rows}) == len(rows)
    wanted, tolerance = latents()[order], {"mds": 5e-3, "dit": 2e-6}.get(name, 0)
    whole = [position for position in usable if not rows[position].member.startswith(REPEATS)]
    np.testing.assert_allclose(found[whole, 0, :4], wanted[whole], rtol=tolerance, atol=tolerance)
    if name in FLIPPED:
        assert cache.orientations == 2
        np.testing.assert_array_equal(found[usable, 1, :4], latents(1)[order][usable])
    if cache.moments is not None:
        np.testing.assert_allclose(np.exp(found[:, 0, 4:] / 2), deviations()[order], rtol=1e-6)
    assert reasons == ({7: "latents_256 is empty"} if name == "mds" else {})


def test_rows_that_a_sampler_repeats_are_found(tmp_path: Path) -> None:
    examples.lightningdit(tmp_path / "padded", ranks=5)
    cache = open_cache(str(tmp_path / "padded"))
    members = [row.member for row in cache.rows() if row.member]
    assert members == [f"{REPEATS}latents_rank{rank:02d}_shard000.safetensors:0000000" for rank in range(2)]
    assert cache.notes == ["2 rows at the end repeat the first ones (a padded sampler, not images): left out"]


def test_rows_of_an_even_count_are_no_repeats(tmp_path: Path) -> None:
    examples.lightningdit(tmp_path / "even", ranks=23)
    assert not any(row.member for row in open_cache(str(tmp_path / "even")).rows())


def test_deviations_of_nothing_and_below_it() -> None:
    entry = np.array([[0.0, 1.0], [-0.1, np.inf]], np.float32)
    found = np.concatenate([np.zeros((1, 1, 1, 2, 2), np.float32), entry[None, None, None]], 2)
    convert(found, True, True, Conversion())
    np.testing.assert_array_equal(found[0, 0, 1], np.array([[-30, 0], [np.nan, np.nan]], np.float32))


def truncated_zip(path: Path) -> None:
    examples.edm2(path / "c.zip")
    (path / "c.zip").write_bytes((path / "c.zip").read_bytes()[:-40])


def torn_safetensors(path: Path) -> None:
    examples.lightningdit(path / "c")
    name = path / "c" / "latents_rank00_shard000.safetensors"
    name.write_bytes(name.read_bytes()[:-8])


def objects(path: Path) -> None:
    np.save(path / "c.npy", np.array([{"a": 1}], object), allow_pickle=True)


def leaving_shard(path: Path) -> None:
    examples.mds(path / "c")
    index = json.loads((path / "c" / "index.json").read_text())
    index["shards"][0]["raw_data"]["basename"] = "../secret"
    (path / "c" / "index.json").write_text(json.dumps(index))


def lying_shard(path: Path) -> None:
    examples.mds(path / "c")
    shard = path / "c" / "shard.00000.mds"
    data = bytearray(shard.read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    shard.write_bytes(data)


def pickling_zarr(path: Path) -> None:
    examples.zarrs(path / "c")
    metadata = {"zarr_format": 2, "shape": [2, 1, 1, 1], "chunks": [2, 1, 1, 1], "dtype": "<f4", "order": "C"}
    folder = path / "c" / "evil"
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps({**metadata, "filters": [{"id": "pickle"}], "compressor": None}))
    (folder / "0.0.0.0").write_bytes(pickle.dumps(np.zeros(2, np.float32)))


def lost_labels(path: Path) -> None:
    examples.dit(path / "c")
    (path / "c" / "imagenet256_labels" / "3.npy").unlink()


def wide_latents(path: Path) -> None:
    np.save(path / "c.npy", np.zeros((3, 4, 8, 9), np.float32))


def compressed(path: Path) -> None:
    np.savez_compressed(path / "c.npz", latents=latents())


def several(path: Path) -> None:
    np.savez(path / "c.npz", a=latents(), b=latents())


def whole_numbers(path: Path) -> None:
    np.save(path / "c.npy", np.zeros((3, 4, 8, 8), np.int32))


def eight_bits(path: Path) -> None:
    entry = {"dtype": "F8_E4M3", "shape": [1, 4, 8, 8], "data_offsets": [0, 256]}
    head = json.dumps({"latents": entry}).encode()
    (path / "c.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(256))


def member_elsewhere(path: Path) -> None:
    with zipfile.ZipFile(path / "c.zip", "w") as archive:
        archive.writestr("../a.npy", examples.npy(latents()[0]))


def tar_member_elsewhere(path: Path) -> None:
    with tarfile.open(path / "c.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("/a.npy"))


def change_index(path: Path, change: Callable[[list[dict[str, object]]], None]) -> None:
    examples.mds(path / "c")
    index = json.loads((path / "c" / "index.json").read_text())
    change(index["shards"])
    (path / "c" / "index.json").write_text(json.dumps(index))


def shard_listed_twice(path: Path) -> None:
    change_index(path, lambda shards: shards.append(shards[0]))


def too_many_samples(path: Path) -> None:
    change_index(path, lambda shards: shards[0].update(samples=(1 << 32) - 1))


def other_columns(path: Path) -> None:
    change_index(path, lambda shards: shards[1].update(column_names=["caption", "label", "other"]))


def pipe_for_a_table(path: Path) -> None:
    examples.edm2(path / "c")
    (path / "c" / "dataset.json").unlink()
    os.mkfifo(path / "c" / "dataset.json")


def two_layouts(path: Path) -> None:
    examples.edm2(path / "c")
    np.save(path / "c" / "latents.npy", latents())


def two_pairs(path: Path) -> None:
    examples.dit(path / "c")
    for name in ("features", "labels"):
        shutil.copytree(path / "c" / f"imagenet256_{name}", path / "c" / f"other_{name}")


def two_kinds(path: Path) -> None:
    examples.lightningdit(path / "c", ranks=1)
    for file in list((path / "c").iterdir()):
        file.rename(path / "c" / f"my-{file.name}")
    np.save(path / "c" / "moments.npy", latents())


def describe_zarr(path: Path, rows: int, chunk: int) -> None:
    (path / "c").mkdir()
    sides = {"shape": [rows, 4, 8, 8], "chunks": [chunk, 4, 8, 8], "fill_value": 0}
    told = {"zarr_format": 2, "dtype": "<f4", "order": "C", "filters": None, "compressor": None}
    (path / "c" / ".zarray").write_text(json.dumps(told | sides))


def zarr_of_nothing(path: Path) -> None:
    describe_zarr(path, 1 << 40, 1)


def zarr_of_one_chunk(path: Path) -> None:
    describe_zarr(path, 64, 1 << 24)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (truncated_zip, "not a whole zip"),
        (torn_safetensors, "damaged or incomplete safetensors"),
        (objects, "nothing is unpickled"),
        (leaving_shard, "leads out of the cache"),
        (lying_shard, "damaged"),
        (pickling_zarr, 'the codec "pickle"'),
        (lost_labels, "3.npy has no partner"),
        (wide_latents, "is no latent"),
        (compressed, "is compressed"),
        (several, "which are the latents"),
        (whole_numbers, r"has c \(3x4x8x8, <i4\), and no latents"),
        (eight_bits, "its tensors are F8_E4M3"),
        (member_elsewhere, r"'\.\./a.npy' leads out of it"),
        (tar_member_elsewhere, "'/a.npy' leads out of it"),
        (shard_listed_twice, r"shard.00000.mds is listed twice"),
        (too_many_samples, "not described as MDS shards are"),
        (other_columns, "latents_256 is bytes in the first shard, and here no such column"),
        (pipe_for_a_table, "is no file that can be read"),
        (two_layouts, r"looks like edm2 and like npy\. Say --layout edm2 or --layout npy"),
        (two_pairs, "has several pairs of folders"),
        (two_kinds, r"holds my-latents_rank00_shard000.safetensors and moments.npy"),
        (zarr_of_nothing, "1099511627776 of 1099511627776 chunks are missing"),
        (zarr_of_one_chunk, "its chunks are 16777216x4x8x8, more than 1 GiB each"),
    ],
)
def test_an_odd_cache_is_refused_in_one_line(tmp_path: Path, write: object, problem: str) -> None:
    assert callable(write)
    write(tmp_path)
    (place,) = tmp_path.glob("c*")
    with pytest.raises(LvaeError, match=problem) as raised:
        contents(open_cache(str(place), Choice(channels=4)))
    assert "\n" not in str(raised.value)


def test_a_dataset_of_ours_is_told_from_a_cache(tmp_path: Path) -> None:
    made = build(tmp_path / "dataset", Contents(images=6, classes=None))
    with pytest.raises(LvaeError, match=r"is a dataset already. 'lvae train .*dataset RUN' reads it; 'lvae merge'"):
        open_cache(str(made.root), Choice("npy"))
    (made.root / "manifest.json").unlink()
    with pytest.raises(LvaeError, match="is an unfinished dataset"):
        open_cache(str(made.root))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(LvaeError, match=r"holds images, not latents\. Encode them: 'lvae encode "):
        open_cache(str(tmp_path / "photos"))


def test_a_torn_file_among_many_is_a_rejected_row(tmp_path: Path) -> None:
    examples.edm2(tmp_path / "c")
    (tmp_path / "c" / "00000" / "img-mean-std-00000004.npy").write_bytes(b"\x93NUMPY")
    reasons = contents(open_cache(str(tmp_path / "c")))[2]
    assert list(reasons) == [4]
    (tmp_path / "c" / "00000" / "img-mean-std-00000000.npy").write_bytes(b"")
    assert list(contents(open_cache(str(tmp_path / "c")))[2]) == [0, 4]


def test_labels_that_are_not_one_a_row_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", latents=latents(), labels=np.eye(COUNT, 3))
    cache = open_cache(str(tmp_path / "c.npz"))
    assert {row.label for row in cache.rows()} == {-1}
    assert cache.notes[0].startswith("labels (23x3, <f8) is not a number or a name a row, and was not read")
