"""The encoding job as a user runs it: real images, real processes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lvae.encode.scenes.make import write_scenes
from lvae.manifests.dataset import Dataset
from tests.conftest import SMALL_KL, lvae, make_once
from tests.pipeline.faults import contents

NETWORKS = {
    "pixels": ("--autoencoder", "pixels-f2"),
    "kl": ("--autoencoder", SMALL_KL, "--weights", "random:0"),
}


def encode(source: Path, dataset: Path, network: str, *options: str, check: int = 0) -> str:
    workers = () if "--workers" in options else ("--workers", "1")  # a worker of its own takes seconds to start
    arguments = ("--size", "32", "--mirror", "--part-size", "10", *NETWORKS[network], *workers, *options)
    return lvae("encode", source, dataset, *arguments, check=check).stderr


@pytest.fixture(scope="module")
def encoded(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The scenes encoded with one worker, by network."""

    def make(root: Path) -> None:
        for network in NETWORKS:
            encode(scenes, root / network, network)

    root = make_once(tmp_path_factory, "encoded", make)
    return {network: root / network for network in NETWORKS}


@pytest.mark.parametrize("network", NETWORKS)
def test_two_workers_give_the_bytes_of_one(
    network: str, scenes: Path, encoded: dict[str, Path], tmp_path: Path
) -> None:
    encode(scenes, tmp_path / "two", network, "--workers", "2")
    assert contents(tmp_path / "two") == contents(encoded[network])


def test_the_same_images_elsewhere_give_the_same_dataset(
    scenes: Path, encoded: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(scenes, tmp_path / "moved")
    encode(tmp_path / "moved", tmp_path / "out", "pixels")
    found, right = contents(tmp_path / "out"), contents(encoded["pixels"])
    assert {name for name in right if found.get(name) != right[name]} == {"plan.json"}  # which names the place


def test_the_same_command_again_changes_nothing(scenes: Path, encoded: dict[str, Path], tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(encoded["kl"], tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()}
    encode(scenes, dataset, "kl", "--workers", "2")
    after = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {
        "rejected.jsonl",
        "view.json",
        "zarr.json",
        "train.shards.jsonl",
        ".lock",
    }  # written again with the same bytes


def test_settings_need_not_be_given_again(scenes: Path, encoded: dict[str, Path], tmp_path: Path) -> None:
    lvae("encode", scenes, shutil.copytree(encoded["kl"], tmp_path / "out"))


def test_latents_are_those_of_the_network(scenes: Path, encoded: dict[str, Path]) -> None:
    import torch

    from lvae.encode.autoencoder import load

    dataset = Dataset.open(encoded["kl"])
    network = load(json.loads(SMALL_KL), "random:0")
    keys = sorted(path.relative_to(scenes).as_posix() for path in scenes.rglob("*.png"))
    for position in range(0, len(dataset), 7):
        pixels = np.asarray(Image.open(scenes / keys[dataset.rows[position]])).astype(np.float32) / 127.5 - 1
        pixels = pixels[:, ::-1] if dataset.mirrored[position] else pixels
        with torch.inference_mode():
            raw = network.encode(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None])[0].numpy()
        latent = np.asarray(dataset.latents[position], np.float32)
        # float16 keeps 11 bits; latents are about 1, at most 4
        np.testing.assert_allclose(latent, dataset.normalization.normalize(raw[None], "float32")[0], atol=2e-3)


def test_every_image_is_used_or_rejected_with_a_reason(tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", 16, 32, 1)
    victims = sorted((tmp_path / "in").rglob("*.png"))[3:9:2]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:60])
    shown = encode(tmp_path / "in", tmp_path / "out", "pixels")
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert manifest["counts"] == {"images": 16, "rejected": 3, "latents": 26, "selected": 26}
    assert [entry["key"] for entry in rejected] == [v.relative_to(tmp_path / "in").as_posix() for v in victims]
    assert all(entry["reason"] for entry in rejected)
    assert "3 of 16 images could not be used" in shown
    lvae("verify", "--deep", tmp_path / "out")


def test_images_smaller_than_their_crop_are_counted_and_may_be_left_out(tmp_path: Path) -> None:
    for side in (8, 16, 32, 64):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (2 * side, side), (side, 0, 0)).save(tmp_path / "photos" / f"{side}.png")
    shown = encode(tmp_path / "photos", tmp_path / "all", "pixels", "--size", "32")
    assert "2 of 4 images are smaller than 32 px: enlarged up to 4.0 x" in shown
    assert "min_size" not in (tmp_path / "all" / "manifest.json").read_text()
    shown = encode(tmp_path / "photos", tmp_path / "large", "pixels", "--size", "32", "--min-size", "16")
    assert "1 of 4 images could not be used" in shown and "1 of 4 images is smaller" in shown
    assert "16x8: smaller than --min-size 16" in (tmp_path / "large" / "rejected.jsonl").read_text()
    assert "--min-size 16" in encode(tmp_path / "photos", tmp_path / "large", "pixels", "--min-size", "9", check=1)


def test_too_many_rejected_images_fail_and_a_higher_bound_goes_on(tmp_path: Path) -> None:
    write_scenes(tmp_path / "in", 8, 32, 1)
    next((tmp_path / "in").rglob("*.png")).write_bytes(b"no image")
    shown = encode(tmp_path / "in", tmp_path / "out", "pixels", "--max-rejected", "1%", check=1)
    assert "--max-rejected 1%" in shown.splitlines()[-1]
    assert (tmp_path / "out/rejected.jsonl").read_text().count("\n") == 1
    encode(tmp_path / "in", tmp_path / "out", "pixels", "--max-rejected", "1")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--size", "64"), "--size 32"),
        (("--crop", "center"), "--crop adm"),
        (("--seed", "1"), "--seed 0"),
        (("--store", "sample"), "--store mode"),
        (("--weights", "random:1"), "--weights "),
        (("--autoencoder", "kl-f8"), "--autoencoder custom"),
        (("--part-size", "11"), "--part-size 10"),
        (("--limit", "5"), "--limit none"),
        (("--format", "webdataset"), "lvae shard"),
    ],
)
def test_other_settings_over_a_dataset_are_refused(
    options: tuple[str, ...], named: str, scenes: Path, encoded: dict[str, Path], tmp_path: Path
) -> None:
    dataset = Path(shutil.copytree(encoded["kl"], tmp_path / "out"))
    before = contents(dataset)
    done = lvae("encode", scenes, dataset, *options, check=1)
    assert named in done.stderr.splitlines()[-1]
    assert contents(dataset) == before


@pytest.mark.parametrize("change", ["new", "gone", "renamed", "other bytes", "equal length"])
def test_other_images_over_a_dataset_are_refused(
    change: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def make(root: Path) -> None:
        write_scenes(root / "in", 12, 32, 2)
        encode(root / "in", root / "out", "pixels")

    for name in ("in", "out"):
        shutil.copytree(make_once(tmp_path_factory, "twelve", make) / name, tmp_path / name)
    before = contents(tmp_path / "out")
    victim = sorted((tmp_path / "in").rglob("*.png"))[5]
    if change == "new":
        shutil.copy(victim, victim.with_name("added.png"))
    elif change == "gone":
        victim.unlink()
    elif change == "renamed":
        victim.rename(victim.with_name("other.png"))
    elif change == "other bytes":
        Image.new("RGB", (32, 32)).save(victim)
    else:
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    shown = encode(tmp_path / "in", tmp_path / "out", "pixels", check=1)
    assert "is not what" in shown or "has other bytes" in shown
    assert contents(tmp_path / "out") == before


def test_damage_is_mended_by_the_same_command(scenes: Path, encoded: dict[str, Path], tmp_path: Path) -> None:
    right = contents(encoded["kl"])
    shutil.copytree(encoded["kl"], tmp_path / "out")
    for name in (
        next(name for name in right if name.endswith(".npy")),
        next(name for name in right if "/latents/c/" in name),
        "raw/000000/part-000003.json",
        "manifest.json",
        "rows/000000.parquet",
    ):
        data = bytearray((tmp_path / "out" / name).read_bytes())
        data[len(data) // 2] ^= 4
        (tmp_path / "out" / name).write_bytes(data)
        assert lvae("verify", "--deep", tmp_path / "out", check=1).stdout.count("lvae encode")
        encode(scenes, tmp_path / "out", "kl")
        assert contents(tmp_path / "out") == right, name
    (tmp_path / "out" / next(name for name in right if name.startswith("weights/"))).unlink()
    encode(scenes, tmp_path / "out", "kl")
    assert contents(tmp_path / "out") == right


def test_a_sample_is_a_function_of_seed_and_key(scenes: Path, tmp_path: Path) -> None:
    for name, options in {"a": (), "b": ("--batch", "3"), "c": ("--seed", "1")}.items():
        encode(scenes, tmp_path / name, "kl", "--store", "sample", *options)
    a, b, c = (Dataset.open(tmp_path / name).raw_part(0) for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_moments_are_stored_and_their_statistics_obey_the_law_of_total_variance(scenes: Path, tmp_path: Path) -> None:
    encode(scenes, tmp_path / "out", "kl", "--store", "moments")
    lvae("verify", "--deep", tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    raw = np.concatenate([dataset.raw_part(part) for part in range(5)]).astype(np.float64)
    mean, variance = raw[:, :4], np.exp(raw[:, 4:])
    np.testing.assert_allclose(dataset.statistics.mean, mean.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    right = np.sqrt(mean.var((0, 2, 3)) + variance.mean((0, 2, 3)))
    np.testing.assert_allclose(dataset.statistics.std, right, rtol=1e-9)
    assert dataset.log_variances is not None
    assert dataset.log_variances.shape == dataset.latents.shape


def test_raw_parts_are_dropped_once_the_shards_are_verified(scenes: Path, tmp_path: Path) -> None:
    encode(scenes, tmp_path / "out", "pixels", "--drop-raw")
    assert not list((tmp_path / "out/raw").glob("*/*.npy"))
    lvae("verify", "--deep", tmp_path / "out")
    lvae("stats", "--check", tmp_path / "out")
    assert "dropped" in lvae("shard", tmp_path / "out", "--dtype", "float32", check=1).stderr
    encode(scenes, tmp_path / "out", "pixels")


def test_a_dry_run_writes_nothing(scenes: Path, tmp_path: Path) -> None:
    arguments = ("--size", "32", *NETWORKS["kl"], "--dry-run", "--json", "--images-per-second", "10", "--workers", "2")
    done = lvae("encode", scenes, tmp_path / "out", "--part-size", "10", *arguments)
    told = json.loads(done.stdout)
    assert (told["images"], told["parts"], told["encoding_seconds"]) == (48, 5, 2.4)
    assert told["seconds"] > 2.4  # what a job costs beside its images is in it
    assert told["raw_bytes"] == 48 * 4 * 16 * 16 * 4
    assert not (tmp_path / "out").exists()


def test_what_a_scan_set_is_inherited(scenes: Path, tmp_path: Path) -> None:
    lvae("scan", scenes, tmp_path / "out", "--part-size", "7", "--limit", "20")
    lvae("encode", scenes, tmp_path / "out", "--size", "32", "--workers", "1", *NETWORKS["pixels"])
    manifest = json.loads((tmp_path / "out/manifest.json").read_bytes())
    assert manifest["counts"]["images"] == 20
    assert len(list((tmp_path / "out/raw").glob("*/*.json"))) == 3


def test_a_batch_that_nothing_was_encoded_with_binds_nobody(scenes: Path, tmp_path: Path) -> None:
    """One that was too large for the memory, say."""
    encode(scenes, tmp_path / "out", "pixels", "--batch", "4")
    assert "batch 4" in encode(scenes, tmp_path / "out", "pixels", "--batch", "2", check=1)
    shutil.rmtree(tmp_path / "out/raw")
    (tmp_path / "out/manifest.json").unlink()
    encode(scenes, tmp_path / "out", "pixels", "--batch", "2")
    assert json.loads((tmp_path / "out/plan.json").read_bytes())["encoding"]["batch"] == 2
    lvae("verify", "--deep", tmp_path / "out")


def test_a_new_view_replaces_the_old_one_without_disturbing_its_reader(
    scenes: Path, encoded: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(encoded["kl"], tmp_path / "out")
    reader = Dataset.open(tmp_path / "out")
    before = np.asarray(reader.latents[:])
    lvae("shard", tmp_path / "out", "--format", "webdataset", "--normalization", "scalar", "--split", "val=20%")
    assert np.array_equal(np.asarray(reader.latents[:]), before)
    lvae("verify", "--deep", tmp_path / "out")
    new = Dataset.open(tmp_path / "out")
    assert new.manifest.view.format == "webdataset"
    assert len(list((tmp_path / "out/shards").iterdir())) == 1
    assert len(new) + len(new.split("val")) == len(before)
