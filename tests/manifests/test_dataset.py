import contextlib
import json
import logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import every_file, read_manifest
from lvae.manifests.publishing.publish import drop_raw
from lvae.manifests.storage.folder import Folder
from tests.manifests.dataset_examples import CLASSES, Contents, Example, build, encode, files_of, flip, resign


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return build(tmp_path_factory.mktemp("dataset"), split={"val": "10"})


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return build(tmp_path_factory.mktemp("pixels"), Contents(pixels=True), dtype="uint8")


def test_a_dataset_tells_what_it_is(example: Example) -> None:
    dataset = example.open()
    assert len(dataset) == 124 and dataset.latents.shape == (124, 4, 2, 2) and dataset.latents.dtype == np.float16
    assert dataset.splits == ("train", "val") and dataset.classes == CLASSES
    assert dataset.statistics.count == 144 and dataset.statistics.mean.shape == (4,)
    assert (dataset.labels.dtype, dataset.rows.dtype, dataset.mirrored.dtype) == (np.int32, np.int64, bool)
    assert set(dataset.labels.tolist()) == {-1, 0, 1, 2}


def test_splits_share_nothing(example: Example) -> None:
    train, val = example.open(), example.open().split("val")
    assert len(val) == 20 and not set(train.rows.tolist()) & set(val.rows.tolist())


def test_an_unknown_split_is_named(example: Example) -> None:
    with pytest.raises(LvaeError, match=r"has no split 'test'\. Its splits: train, val\.$"):
        example.open().split("test")


def test_reading_keeps_the_order_asked_for_and_repeats(example: Example) -> None:
    dataset = example.open()
    order = [123, 0, 5, 5, 70]
    latents, labels = dataset.read(order)
    np.testing.assert_array_equal(latents, np.asarray(dataset.latents)[order])
    np.testing.assert_array_equal(labels, dataset.labels[order])
    assert dataset.read([])[0].shape == (0, 4, 2, 2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_reading_casts(example: Example, dtype: str) -> None:
    dataset = example.open()
    latents, _ = dataset.read(np.arange(124), dtype)
    assert latents.dtype == dtype
    np.testing.assert_array_equal(latents, np.asarray(dataset.latents).astype(dtype))


@pytest.mark.parametrize("wrong", [[-1], [124]])
def test_positions_outside_are_refused(example: Example, wrong: list[int]) -> None:
    with pytest.raises(IndexError):
        example.open().read(wrong)


def raw_of_view(example: Example, dataset: Dataset) -> np.ndarray:
    places = {(row, index % 2 == 1): index for index, row in enumerate(example.stored_rows)}
    pairs = zip(dataset.rows.tolist(), dataset.mirrored.tolist(), strict=True)
    return np.concatenate(example.raw)[[places[pair] for pair in pairs]]


def test_denormalizing_gives_what_the_autoencoder_gave(example: Example) -> None:
    dataset = example.open()
    found = dataset.denormalize(dataset.latents)
    assert found.dtype == np.float32
    stored = np.abs(np.asarray(dataset.latents).astype(np.float64))
    scale = np.array(dataset.normalization.scale)[:, None, None]
    raw = raw_of_view(example, dataset)
    # rounding to float16 (or to half of its smallest subnormal), then to float32
    allowed = np.maximum(stored * 2.0**-11, 2.0**-25) * scale * 1.001 + np.abs(raw) * 2.0**-23
    assert (np.abs(found - raw.astype(np.float64)) <= allowed).all()


def test_bytes_are_read_raw_and_as_normalized_floats(pixels: Example) -> None:
    dataset, raw = pixels.open(), raw_of_view(pixels, pixels.open())
    everything = np.arange(len(dataset))
    as_stored, labels = dataset.read(everything)
    assert as_stored.dtype == np.uint8
    np.testing.assert_array_equal(as_stored, raw)
    for dtype in ("float16", "float32"):
        latents, labels_again = dataset.read(everything, dtype)
        assert latents.dtype == dtype
        np.testing.assert_array_equal(latents, dataset.normalization.normalize(raw, dtype))
        np.testing.assert_array_equal(labels_again, labels)
    # 2,304 values a channel, in float32
    wide = dataset.read(everything, "float32")[0].astype(np.float64)
    np.testing.assert_allclose(wide.std(axis=(0, 2, 3)), 1, rtol=1e-6)


def test_floats_of_bytes_are_denormalized_to_pixel_values(pixels: Example) -> None:
    dataset = pixels.open()
    found = dataset.denormalize(dataset.read(range(20), "float32")[0])
    # one rounding to float32 of values up to 2, and one of the result
    np.testing.assert_allclose(found, raw_of_view(pixels, dataset)[:20] / 127.5 - 1, rtol=0, atol=2.0**-22)


def test_bytes_are_denormalized_to_pixel_values(pixels: Example) -> None:
    dataset = pixels.open()
    found = dataset.denormalize(dataset.read(range(20))[0])
    np.testing.assert_allclose(found, raw_of_view(pixels, dataset)[:20] / 127.5 - 1, rtol=0, atol=2.0**-22)


def test_raw_parts_are_read_in_source_order(example: Example, pixels: Example) -> None:
    for part in range(5):
        found = example.open().raw_part(part)
        assert found.dtype == np.float32 and found.flags.writeable
        np.testing.assert_array_equal(found, example.raw[part])
        found = pixels.open().raw_part(part)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, (pixels.raw[part] / 127.5 - 1).astype(np.float32))


def test_a_part_that_is_not_there_is_named(example: Example) -> None:
    for part in (5, -1):
        with pytest.raises(LvaeError, match=f"there is no part {part}"):
            example.open().raw_part(part)


def test_dropped_raw_parts_are_named(tmp_path: Path) -> None:
    dropped = build(tmp_path)
    drop_raw(dropped.folder)
    with pytest.raises(LvaeError, match="its raw parts have been dropped"):
        dropped.open().raw_part(0)
    assert len(dropped.open().read([0, 1])[0]) == 2 and not list(tmp_path.glob("raw/*.npy"))
    drop_raw(dropped.folder)


def test_kept_posteriors_are_read_beside_the_means(tmp_path: Path) -> None:
    dataset = build(tmp_path, Contents(store="moments")).open()
    assert dataset.log_variances is not None and dataset.log_variances.shape == dataset.latents.shape
    assert dataset.raw_part(0).shape == (36, 8, 2, 2)


# --- torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shards", ["zarr", "webdataset"])
def test_torchs_loader_gives_every_pair(tmp_path: Path, shards: str, workers: int) -> None:
    import torch

    dataset = build(tmp_path, format=shards).open()
    assert len(dataset.labels) == 144  # opened before workers are forked
    loader = torch.utils.data.DataLoader(dataset.torch(), batch_size=50, num_workers=workers)
    batches = list(loader)
    assert [len(latents) for latents, _ in batches] == [50, 50, 44]
    latents, labels = (torch.cat(pieces) for pieces in zip(*batches, strict=True))
    assert latents.dtype == torch.float32 and labels.dtype == torch.int64
    np.testing.assert_array_equal(latents.numpy(), np.asarray(dataset.latents).astype(np.float32))
    np.testing.assert_array_equal(labels.numpy(), dataset.labels)


def test_what_torch_gets_is_a_dataset_of_torchs_own(example: Example) -> None:
    import torch

    pairs = example.open().torch()
    assert isinstance(pairs, torch.utils.data.Dataset)
    kept = torch.utils.data.Subset(pairs, [2, 0])
    both = torch.utils.data.ConcatDataset([pairs, kept])
    assert len(both) == len(example.open()) + 2
    assert np.array_equal(both[-2][0], pairs[2][0])
    assert type(pickle.loads(pickle.dumps(pairs))) is type(pairs)  # noqa: S301 (our own bytes)


def test_indices_are_those_of_a_list(example: Example) -> None:
    pairs = example.open().torch()
    count = len(example.open())
    for index in (0, 5, count - 1, -1, -5, -count):
        latents, label = pairs[index]
        right, labels = example.open().read([index % count], np.float32)
        assert np.array_equal(latents, right[0]) and label == labels[0] and type(label) is int
    for index in (count, -count - 1, 10**12):
        with pytest.raises(IndexError, match=f"of {count} latents"):
            pairs[index]
    with pytest.raises(TypeError):
        pairs[1.5]
    assert sum(1 for _ in pairs) == count


def test_torchs_loader_gives_bytes_as_normalized_floats(pixels: Example) -> None:
    import torch

    dataset = pixels.open()
    loader = torch.utils.data.DataLoader(dataset.torch(), batch_size=10, shuffle=False)
    latents, _ = next(iter(loader))
    np.testing.assert_array_equal(latents.numpy(), dataset.read(range(10), "float32")[0])


def test_one_pair_is_like_one_of_a_batch(example: Example) -> None:
    pairs = example.open().torch("float16")
    assert len(pairs) == 124
    latents, label = pairs[7]
    assert latents.dtype == np.float16 and type(label) is int
    np.testing.assert_array_equal(latents, pairs.__getitems__([3, 7])[1][0])


def test_a_dataset_survives_pickling_and_closing(example: Example) -> None:
    dataset = example.open("val")
    wanted = dataset.read(range(20))
    for again in (dataset, pickle.loads(pickle.dumps(dataset)), pickle.loads(pickle.dumps(dataset.torch())).dataset):  # noqa: S301 (our own bytes)
        for found, expected in zip(again.read(range(20)), wanted, strict=True):
            np.testing.assert_array_equal(found, expected)
        again.close()
    assert len(pickle.dumps(dataset)) < 20_000  # no latents in it


def test_opening_loads_neither_torch_nor_beam_nor_zarr(example: Example) -> None:
    script = f"""
import sys
from lvae.manifests.dataset import Dataset
Dataset.open({str(example.root)!r}).read([0, 1], "float32")
print(sorted({{"torch", "apache_beam", "zarr", "PIL"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- other people's readers ------------------------------------------------------------------------------------------


def test_stock_zarr_reads_the_same(example: Example) -> None:
    import zarr

    for split in ("train", "val"):
        dataset = example.open(split)
        group = zarr.open_group(example.root / "shards" / example.manifest.view.name / f"{split}.zarr", mode="r")
        for name in ("latents", "labels", "rows", "mirrored"):
            np.testing.assert_array_equal(group[name][:], np.asarray(getattr(dataset, name)))  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves files open
def test_stock_webdataset_reads_the_same(tmp_path: Path) -> None:
    import webdataset

    example = build(tmp_path, Contents(store="moments"), format="webdataset")
    dataset = example.open()
    urls = sorted(map(str, (tmp_path / "shards" / example.manifest.view.name).glob("train-*.tar")))
    assert len(urls) == 3
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"{position:012d}" for position in range(144)]
    np.testing.assert_array_equal(np.stack([s["latent.npy"] for s in samples]), np.asarray(dataset.latents))
    np.testing.assert_array_equal(np.stack([s["logvar.npy"] for s in samples]), np.asarray(dataset.log_variances))
    assert [s["cls"] for s in samples] == dataset.labels.tolist()
    assert [s["json"]["row"] for s in samples] == dataset.rows.tolist()
    assert [s["json"]["mirrored"] for s in samples] == dataset.mirrored.tolist()
    assert [s["json"]["key"] for s in samples] == [example.rows[row].key for row in dataset.rows]


# --- what is no dataset ----------------------------------------------------------------------------------------------


def test_a_folder_without_a_dataset_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        LvaeError, match=rf"^{tmp_path}: is not a dataset\. Make one with 'lvae encode SOURCE DATASET'\.$"
    ):
        Dataset.open(tmp_path)
    with pytest.raises(LvaeError, match="is not a dataset"):
        Dataset.open(tmp_path / "nothing")


def test_an_unfinished_dataset_says_so(tmp_path: Path) -> None:
    encode(tmp_path)
    with pytest.raises(LvaeError, match=r"is not finished\. Run the command that made it again: lvae encode, "):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_version_is_refused(tmp_path: Path, version: Any) -> None:
    content = {"format": "latent-vae-dataset", "version": version, "new_in_version_2": True}
    (tmp_path / "manifest.json").write_bytes(records.dumps(content))
    with pytest.raises(LvaeError, match=rf"manifest\.json: has version {version}, and this program reads 1\. Update"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "other", "version": 1}'])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(LvaeError, match="does not describe a latent-vae dataset"):
        Dataset.open(tmp_path)


def test_no_flipped_bit_changes_what_a_manifest_says(example: Example, tmp_path: Path) -> None:
    """The last digit of a number is allowed to change where the number it stands for does not."""
    path = tmp_path / "manifest.json"
    shutil.copy(example.root / "manifest.json", path)
    data, good = path.read_bytes(), example.manifest
    for byte in range(0, len(data), 23):
        flip(path, byte, byte % 7)
        with contextlib.suppress(LvaeError):
            assert read_manifest(Folder(tmp_path)) == good, byte
        path.write_bytes(data)


def test_an_edited_manifest_is_refused(example: Example, tmp_path: Path) -> None:
    content = json.loads((example.root / "manifest.json").read_text())
    content["statistics"]["mean"][0] += 1
    (tmp_path / "manifest.json").write_bytes(records.dumps(content))
    with pytest.raises(LvaeError, match=r"has been changed or damaged"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [("mean", "1e999"), ("mean", "1" + 400 * "0"), ("over", r'"\ud800"'), ("count", "1" + 400 * "0"), ("std", "[]")],
    ids=lambda value: value[:6],
)
def test_a_hostile_manifest_is_refused_in_one_line(example: Example, tmp_path: Path, place: str, value: str) -> None:
    content = json.loads((example.root / "manifest.json").read_text())
    content["statistics"][place] = ["@"] if place == "mean" else "@"
    (tmp_path / "manifest.json").write_text(json.dumps(content).replace('"@"', value))
    with pytest.raises(LvaeError, match=r"manifest\.json"):
        Dataset.open(tmp_path)


def test_the_manifest_names_no_path_of_this_machine_and_no_time(example: Example, tmp_path: Path) -> None:
    data = (example.root / "manifest.json").read_bytes()
    assert str(example.root).encode() not in data
    again = build(tmp_path, split={"val": "10"})
    assert (again.root / "manifest.json").read_bytes() == data


def test_the_manifest_names_every_other_file_but_the_plan(example: Example) -> None:
    named = {record.path for record in every_file(example.folder, example.manifest)}
    raw = {name for name in files_of(example.root) if name.startswith("raw/")}
    assert named | raw | {"manifest.json", "plan.json"} == set(files_of(example.root))
    assert named.isdisjoint(raw)


def test_signing_again_changes_nothing_of_a_whole_dataset(tmp_path: Path) -> None:
    before = files_of(build(tmp_path).root)
    resign(tmp_path)
    assert files_of(tmp_path) == before


@pytest.fixture(autouse=True)
def no_slow_reading(caplog: pytest.LogCaptureFixture) -> Any:
    """Our own shards are mapped: a warning says when they are read another way."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("format_", ["zarr", "webdataset"])
def test_a_reader_whose_view_has_gone_is_told_of_the_new_one(format_: str, tmp_path: Path) -> None:
    example = build(tmp_path / "data", format=format_)
    dataset, opened = example.open(), example.open()
    reader = opened.reader
    view = dataset.manifest.view.name
    manifest = example.root / "manifest.json"
    manifest.write_text(manifest.read_text().replace(view, f"{view[:-1]}{'0' if view[-1] != '0' else '1'}"))
    shutil.rmtree(example.root / "shards")
    for read in (lambda: dataset.latents, lambda: reader.read([0])):
        with pytest.raises(LvaeError, match=r"has had a new view since it was opened\. Give the same command again\."):
            read()
