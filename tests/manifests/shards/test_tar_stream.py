"""Tar shards through `Dataset.webdataset()`: here and at a URL, for ranks and workers, and whoever wrote them."""

import tarfile
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset
from torch.utils.data import DataLoader
from webdataset.tariterators import group_by_keys, tar_file_expander

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from tests.manifests.dataset_examples import Contents, Example, build, shards_of


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return build(tmp_path_factory.mktemp("tars"), format="webdataset", split={"val": "10"})


def put_in_memory(root: Path, url: str) -> str:
    fsspec.filesystem("memory").put(str(root), url.removeprefix("memory:/"), recursive=True)
    return url


def test_a_pipeline_gives_what_the_reader_gives(tars: Example) -> None:
    for split in ("train", "val"):
        dataset = tars.open(split)
        latents, labels, keys = zip(*dataset.webdataset(), strict=True)
        np.testing.assert_array_equal(np.stack(latents), np.asarray(dataset.latents))
        assert list(labels) == dataset.labels.tolist() and latents[0].dtype == np.float16
        assert list(keys) == [tars.rows[row].key for row in dataset.rows.tolist()]
    assert len(list(tars.open().webdataset("val"))) == len(tars.open("val"))


def test_a_pipeline_reads_shards_at_a_url(tars: Example) -> None:
    dataset = Dataset.open(put_in_memory(tars.root, "memory://stream/tars"))
    (latents, label, key), *others = dataset.webdataset(dtype=np.float32)
    assert latents.dtype == np.float32 and len(others) == len(dataset) - 1
    np.testing.assert_array_equal(latents, np.asarray(tars.open().latents[0], np.float32))
    assert (label, key) == (int(tars.open().labels[0]), tars.rows[int(tars.open().rows[0])].key)


def test_shuffling_is_by_seed_and_other_each_time(tars: Example) -> None:
    def epochs(seed: int) -> list[list[bytes]]:
        pipeline = tars.open().webdataset(shuffle=50, seed=seed)
        return [[latents.tobytes() for latents, _, _ in pipeline] for _ in range(2)]

    (first, second), again, other = epochs(1), epochs(1), epochs(2)
    assert again == [first, second] and first != second and other[0] != first
    assert sorted(first) == sorted(second) == sorted(latent.tobytes() for latent in np.asarray(tars.open().latents))


def test_nodes_and_workers_share_the_shards(tars: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sorted(latent.tobytes() for latent in np.asarray(tars.open().latents))
    loader = DataLoader(tars.open().webdataset(), batch_size=None, num_workers=2)
    assert sorted(latents.numpy().tobytes() for latents, _, _ in loader) == whole
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        mine = [latents.tobytes() for latents, _, _ in tars.open().webdataset()]
        assert len(list(tars.open().webdataset(by_node=False))) == len(whole)
        assert 0 < len(mine) < len(whole)
        found += mine
    assert sorted(found) == whole


def test_bytes_are_normalized_where_floats_are_asked_for(tmp_path: Path) -> None:
    dataset = build(tmp_path, Contents(pixels=True, classes=None), dtype="uint8", format="webdataset").open()
    assert next(iter(dataset.webdataset()))[0].dtype == np.uint8
    latents, label, _ = next(iter(dataset.webdataset(dtype=np.float32)))
    np.testing.assert_array_equal(latents, dataset.read([0], np.float32)[0][0])
    assert label == -1


def test_shards_that_another_program_wrote_are_read(tmp_path: Path) -> None:
    example = build(tmp_path, format="webdataset")
    before = [latents.tobytes() for latents, _, _ in example.open().webdataset()]
    for shard in shards_of(tmp_path):
        path = tmp_path / shard.path
        with path.open("rb") as file:
            samples = list(group_by_keys(tar_file_expander([{"url": "", "stream": file}])))
        path.unlink()
        with webdataset.TarWriter(str(path)) as writer:
            for sample in samples:
                writer.write({"more.txt": "hello", **{name: sample[name] for name in sample if name != "__url__"}})
        assert path.stat().st_size != shard.bytes
    assert [latents.tobytes() for latents, _, _ in example.open().webdataset()] == before


def test_damage_is_named(tmp_path: Path) -> None:
    example = build(tmp_path, format="webdataset")
    path = tmp_path / shards_of(tmp_path)[0].path
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x93NUMPY", b"\x93NUMPX", 1))
    with pytest.raises(LvaeError, match=r"sample 000000000000: is damaged"):
        list(example.open().webdataset())
    for cut in (len(data) // 2, 0):
        path.write_bytes(data[:cut])
        with pytest.raises(LvaeError, match=r"train-000000\.tar.*(is damaged|holds \d+ of 64 samples)"):
            list(example.open().webdataset())
    path.unlink()
    with pytest.raises(LvaeError, match="this shard is missing"):
        list(example.open().webdataset())


def test_a_dataset_of_zarr_shards_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LvaeError, match=r"its shards are zarr\. Make a view of tars: 'lvae shard --format webdataset'"):
        build(tmp_path).open().webdataset()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_hundreds_of_megabytes_takes_none(tmp_path: Path, kind: bytes) -> None:
    """Of a shard, streamed or mapped, and of a source."""
    from lvae.encode.files.left_out import LeftOut
    from lvae.encode.sources.reading.tar_members import read_members

    example = build(tmp_path / "dataset", format="webdataset")
    [shard, *_] = shards_of(example.root)
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 200 << 20
    path = example.root / shard.path
    hostile = header.tobuf(tarfile.USTAR_FORMAT) + path.read_bytes()
    with path.open("wb") as file:
        file.write(hostile)
        file.truncate(256 << 20)
    tracemalloc.start()
    with path.open("rb") as file:
        for read in (
            lambda: list(example.open().webdataset()),
            lambda: example.open().read([0]),
            lambda: list(read_members(str(path), file, LeftOut({}))),
        ):
            with pytest.raises(LvaeError):
                read()
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
