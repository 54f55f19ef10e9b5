"""`lvae latents import`: a cache of another tool becomes a dataset like any other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lvae.manifests.dataset import Dataset
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.parts.receipts import receipts
from lvae.manifests.storage.folder import Folder
from tests.conftest import SMALL_KL, lvae
from tests.pipeline.exchange import cache_examples as examples
from tests.pipeline.exchange.cache_examples import COUNT, WRITERS, latents

SAID = ("--autoencoder", SMALL_KL, "--weights", "random:0", "--input-range", "-1,1", "--crop", "adm", "--workers", "1")


def raw(dataset: Path) -> np.ndarray:
    """All raw latents of a dataset, in the order of its rows."""
    folder = Folder(dataset)
    plan = read_plan(folder)
    assert plan is not None
    opened = Dataset.open(dataset)
    return np.concatenate([opened.raw_part(receipt.part) for receipt in receipts(folder, plan)])


def test_a_cache_becomes_a_verified_dataset(tmp_path: Path) -> None:
    cache, dataset = tmp_path / "cache", tmp_path / "dataset"
    examples.lightningdit(cache)
    name = cache / "latents_rank02_shard000.safetensors"
    tensors = load_file(name)
    tensors["latents_flip"][1, 2, 3, 4] = torch.nan
    save_file(tensors, name)
    result = lvae("latents", "import", cache, dataset, *SAID, "--scale", "1", "--split", "val=30%")
    assert "1 row at the end repeat the first ones" in result.stderr
    opened = Dataset.open(dataset)
    assert opened.manifest.source.kind == "latents lightningdit"
    assert (opened.manifest.counts.images, opened.manifest.counts.rejected, opened.manifest.counts.latents) == (
        24,
        2,
        44,
    )
    rejected = [json.loads(line) for line in (dataset / "rejected.jsonl").read_text().splitlines()]
    key = "latents_rank02_shard000.safetensors:0000001"
    wanted = {"row": 13, "key": key, "reason": "nan at channel 2, row 3, column 4 of the mirror's latent"}
    assert rejected[0] == wanted
    order = np.concatenate([np.arange(24)[rank::4] for rank in range(4)])
    order = order[(order != 23) & (order != 6)]
    found = raw(dataset).reshape(22, 2, 4, 8, 8)
    np.testing.assert_array_equal(found, np.stack([latents()[order], latents(1)[order]], 1))
    np.testing.assert_allclose(opened.statistics.mean, found.mean((0, 1, 3, 4), np.float64), rtol=1e-12)
    assert sum(len(opened.split(split)) for split in opened.splits) == 44
    again = lvae("latents", "import", cache, dataset, *SAID, "--scale", "1")
    assert "there is nothing to do" in again.stderr
    other = lvae("latents", "import", cache, dataset, *SAID, "--scale", "2", check=1)
    assert "is not the cache" in other.stderr
    encode = lvae("encode", cache, dataset, check=1)
    assert "was imported as latents" in encode.stderr


def test_what_a_cache_does_not_say_is_asked_for(tmp_path: Path) -> None:
    examples.dit(tmp_path / "cache")
    line = lvae("latents", "import", tmp_path / "cache", tmp_path / "dataset", check=1).stderr
    for option in ("--autoencoder", "--weights", "--input-range", "--scale", "--crop"):
        assert option in line
    assert "0.18215" in line
    assert "--store" not in line  # fast-DiT's script draws
    assert not (tmp_path / "dataset" / "plan.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_becomes_a_whole_dataset(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    scale = "0.18215" if name in ("dit", "mds") else "1"
    store = () if name not in ("arrays.npz", "webdataset", "latents.zarr") else ("--store", "sample")
    lvae("latents", "import", tmp_path / name, tmp_path / "dataset", *SAID, "--scale", scale, *store)
    lvae("verify", tmp_path / "dataset", "--deep")
    out = tmp_path / "grid.png"
    lvae("decode", tmp_path / "dataset", out, "--limit", "4")
    assert out.exists()


@pytest.mark.slow
def test_appending_another_cache_of_the_kind(tmp_path: Path) -> None:
    examples.edm2(tmp_path / "a")
    np.savez(tmp_path / "b.npz", latents=latents(3))
    dataset = tmp_path / "dataset"
    lvae("latents", "import", tmp_path / "a", dataset, *SAID, "--scale", "1")
    line = lvae("latents", "import", tmp_path / "b.npz", dataset, "--append", check=1).stderr
    assert "holds latents of" in line
    examples.edm2(tmp_path / "b")
    line = lvae("latents", "import", tmp_path / "b", dataset, "--append", "--workers", "1").stderr
    assert "there is nothing to do" in line  # the very same cache
    lvae("latents", "import", tmp_path / "b", dataset, "--append", "--prefix", "b/", "--workers", "1")
    assert Dataset.open(dataset).manifest.counts.latents == 2 * COUNT
    lvae("verify", dataset, "--deep")


@pytest.mark.slow
def test_a_damaged_part_is_imported_again(tmp_path: Path) -> None:
    examples.edm2(tmp_path / "a.zip")
    dataset = tmp_path / "dataset"
    lvae("latents", "import", tmp_path / "a.zip", dataset, *SAID, "--scale", "1")
    before = raw(dataset)
    (part,) = dataset.glob("raw/*/*.npy")
    part.write_bytes(part.read_bytes()[:-4] + b"abcd")
    faults = lvae("verify", dataset, "--deep", check=1)
    assert "lvae latents import" in faults.stdout + faults.stderr
    lvae("latents", "import", tmp_path / "a.zip", dataset, "--workers", "1")
    np.testing.assert_array_equal(raw(dataset), before)


@pytest.mark.slow
def test_a_killed_import_goes_on_where_it_was(tmp_path: Path) -> None:
    many = np.random.default_rng(0).normal(size=(70_000, 4, 8, 8)).astype(np.float32)
    np.save(tmp_path / "latents.npy", many)
    said = [*SAID, "--scale", "1", "--store", "mode"]
    command = [sys.executable, "-m", "lvae", "latents", "import", tmp_path / "latents.npy", tmp_path / "dataset", *said]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "dataset").glob("raw/*/*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lvae("latents", "import", tmp_path / "latents.npy", tmp_path / "dataset", *said)
    np.testing.assert_array_equal(raw(tmp_path / "dataset"), many)


@pytest.mark.slow
def test_latents_of_images_from_0_to_1_decode_to_whole_pictures(tmp_path: Path) -> None:
    """edm2 shows its encoder images in [0, 1]; what comes out of the decoder is in [0, 1] too."""
    from lvae.encode.autoencoder import load
    from lvae.evaluate.pictures.decode import decode, load_decoder

    network = load(SMALL_KL, "random:0")
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoded = network.encode(images)
        wanted = (network.decode(encoded).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "latents.npy", encoded.numpy())
    said = ["--autoencoder", SMALL_KL, "--weights", "random:0", "--input-range", "0,1", "--crop", "unknown"]
    said += ["--scale", "1", "--store", "mode", "--workers", "1"]
    lvae("latents", "import", tmp_path / "latents.npy", tmp_path / "dataset", *said)
    opened = Dataset.open(tmp_path / "dataset")
    pictures = decode(load_decoder(opened), encoded.numpy())
    assert np.abs(pictures.astype(float) - wanted).max() <= 1


def test_a_cache_whose_numbers_were_changed_is_refused(tmp_path: Path) -> None:
    """Its shapes and sizes are what they were, so that nothing but its content tells."""
    np.save(tmp_path / "latents.npy", latents())
    command = ("latents", "import", tmp_path / "latents.npy", tmp_path / "dataset", *SAID, "--scale", "1")
    lvae(*command, "--store", "mode")
    np.save(tmp_path / "latents.npy", latents())
    again = lvae(*command)
    assert "files were touched since they were listed; comparing the numbers of 1 part" in again.stderr
    assert "comparing" not in lvae(*command).stderr
    np.save(tmp_path / "latents.npy", latents(7))
    line = lvae(*command, check=1).stderr
    assert "is not what it was when part 0" in line
    np.testing.assert_array_equal(raw(tmp_path / "dataset"), latents())


def test_a_name_that_is_no_text_and_a_link_to_nothing_are_told(tmp_path: Path) -> None:
    examples.edm2(tmp_path / "cache")
    (tmp_path / "cache" / "00000" / "img-mean-std-00000004.npy").rename(tmp_path / "cache" / os.fsdecode(b"\xff.npy"))
    command = ("latents", "import", tmp_path / "cache", tmp_path / "dataset", *SAID, "--scale", "1")
    assert "is no UTF-8" in lvae(*command, check=1).stderr
    (tmp_path / "cache" / os.fsdecode(b"\xff.npy")).unlink()
    (tmp_path / "cache" / "lost.npy").symlink_to(tmp_path / "nowhere")
    assert "cannot be read" in lvae(*command, check=1).stderr
