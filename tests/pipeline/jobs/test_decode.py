"""Pictures and features by many workers: the bytes of one process, whatever happens to them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lvae.encode.scenes.make import write_scenes
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.decoded_parts import PARTS, PLAN, finished_decode, read_decode_plan, write_decoded_part
from lvae.manifests.storage.folder import Folder
from tests.conftest import SMALL_KL, lvae, make_once
from tests.pipeline.faults import kill_command, start, wait_for

PICTURES = 80  # three parts


class Colours(torch.nn.Module):
    """A feature network: means over quarters of the picture."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "colours.pt"
    with pytest.warns(DeprecationWarning):  # torch prefers torch.export, whose files it unpickles
        torch.jit.script(Colours()).save(str(path))
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        write_scenes(folder / "scenes", PICTURES, 64, 5)
        settings = ("--size", "64", "--crop", "center", "--mirror", "--shard-size", "64", "--workers", "1")
        lvae("encode", folder / "scenes", folder / "out", *settings, "--autoencoder", SMALL_KL, "--weights", "random:0")

    return make_once(tmp_path_factory, "decoded-dataset", make) / "out"


@pytest.fixture(scope="module")
def right(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process decodes."""
    decode_all = ("decode", dataset, "--limit", PICTURES)
    made = make_once(tmp_path_factory, "decoded", lambda root: lvae(*decode_all, root / "images.npz"))
    return (made / "images.npz").read_bytes()


def decode(dataset: Path, out: Path, *more: str) -> tuple[str | Path, ...]:
    return ("decode", dataset, out, "--limit", str(PICTURES), "--workers", "2", "--part-size", "32", *more)


def receipts(parts: Path) -> list[Path]:
    return sorted((parts / PARTS).glob("part-*.json"))


def test_workers_that_are_killed_and_a_command_that_is_started_again_give_the_bytes_of_one_process(
    dataset: Path, right: bytes, tmp_path: Path
) -> None:
    out, parts = tmp_path / "images.npz", tmp_path / "images.npz.parts"
    job = start(*decode(dataset, out))
    wait_for("a receipt", lambda: receipts(parts))
    kill_command(job)
    assert not out.exists()
    made = {path: path.stat().st_mtime_ns for path in receipts(parts)}
    lvae(*decode(dataset, out))
    assert out.read_bytes() == right
    assert made  # and nothing is left of them
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npz"]


def test_a_finished_part_is_not_made_again_and_a_damaged_one_is(dataset: Path, right: bytes, tmp_path: Path) -> None:
    out, parts = tmp_path / "images.npz", tmp_path / "parts"
    job = start(*decode(dataset, out, "--parts", str(parts)))
    wait_for("two receipts", lambda: len(receipts(parts)) >= 2)
    kill_command(job)
    folder = Folder(parts)
    plan = read_decode_plan(folder)
    assert plan is not None
    first, second = [part for part in range(plan.parts) if finished_decode(folder, plan, part)][:2]
    flipped = parts / str(finished_decode(folder, plan, second).files["pixels"].path)  # type: ignore[union-attr]
    before = receipts(parts)[first].stat().st_mtime_ns
    with flipped.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    told = lvae(*decode(dataset, out, "--parts", str(parts)), check=1).stderr
    assert f"part {second} is damaged. Run the same command again" in told
    assert not out.exists()
    assert receipts(parts)[first].stat().st_mtime_ns == before
    lvae(*decode(dataset, out, "--parts", str(parts)))
    assert out.read_bytes() == right


def test_other_settings_over_parts_that_were_begun_are_refused(dataset: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    job = start(*decode(dataset, tmp_path / "a.npz", "--parts", str(parts)))
    wait_for("the plan", (parts / PLAN).exists)
    kill_command(job)
    told = lvae(*decode(dataset, tmp_path / "a.npz", "--parts", str(parts), "--round", "truncate"), check=1).stderr
    assert "was made with round nearest, but this command says truncate" in told


def test_what_is_refused_leaves_nothing_behind(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    told = lvae("decode", dataset, out, "--workers", "1", "--part-size", "33", check=1).stderr
    assert "--part-size 33: write a multiple of 32" in told
    told = lvae("decode", dataset, out, "--workers", "1", "--weights", tmp_path / "none.safetensors", check=1).stderr
    assert "none.safetensors: no such file." in told
    assert not list(tmp_path.iterdir())


def test_png_files_are_those_of_one_process(dataset: Path, tmp_path: Path) -> None:
    for name, more in (("one", ()), ("many", ("--workers", "1"))):
        lvae("decode", dataset, tmp_path / name, "--indices", "3,1,40-75", *more)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 39  # and the record of what they were made from
    for name in names:
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_features_are_those_of_one_process_and_are_scored_like_pictures(
    dataset: Path, network: Path, right: bytes, tmp_path: Path
) -> None:
    some = ("--features", network, "--num", "70", "--size", "64")
    lvae("features", dataset, tmp_path / "one.npz", *some[:4])
    lvae("features", dataset, tmp_path / "many.npz", *some[:4], "--workers", "2", "--part-size", "32")
    assert (tmp_path / "many.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
    lvae("reference", dataset, tmp_path / "one-r.npz", *some[:4])
    lvae("reference", dataset, tmp_path / "many-r.npz", *some[:4], "--workers", "2")
    lvae("reference", tmp_path / "one.npz", tmp_path / "stored-r.npz", "--features", network)
    (tmp_path / "right.npz").write_bytes(right)
    found = []
    for samples, reference in (("right", "one-r"), ("right", "many-r"), ("right", "stored-r"), ("right", "many")):
        arguments = ("--samples", tmp_path / f"{samples}.npz", "--reference", tmp_path / f"{reference}.npz")
        found.append(json.loads(lvae("score", *arguments, "--features", network, "--json").stdout))
    for one in found:
        for name in ("network_frechet_distance", "network_kernel_distance", "network_precision", "network_recall"):
            assert one[name] == pytest.approx(found[0][name], rel=1e-6, abs=1e-9)
    # Features against features need no network at all, and none but the right one will do.
    stored = ("score", "--samples", tmp_path / "many.npz", "--reference", tmp_path / "one.npz")
    assert json.loads(lvae(*stored, "--json").stdout)["network_frechet_distance"] == pytest.approx(0, abs=1e-9)
    told = lvae(*stored[:3], "--reference", tmp_path / "right.npz", check=1).stderr
    assert "Give the network that the stored features are of" in told
    refused = lvae("features", dataset, tmp_path / "x.npz", *some, "--workers", "2", check=1).stderr
    assert "--size: is for sources of images; pictures of a dataset have its size" in refused


def test_originals_are_the_images_that_were_encoded(dataset: Path, network: Path, tmp_path: Path) -> None:
    lvae("features", dataset, tmp_path / "o.npz", "--features", network, "--originals", "--workers", "1")
    cropped = ("--size", "64", "--crop", "center")
    lvae("features", dataset.parent / "scenes", tmp_path / "s.npz", "--features", network, *cropped)
    with np.load(tmp_path / "o.npz") as ours, np.load(tmp_path / "s.npz") as theirs:
        assert str(ours["what"]) == "images"
        of_dataset, of_source = ours["pooled"], theirs["pooled"]
    assert len(of_dataset) == 2 * len(of_source)  # and their mirror images, as the dataset has them
    as_they_are = {row.tobytes() for row in of_dataset}
    assert all(row.tobytes() in as_they_are for row in of_source)


def test_what_workers_cannot_do_is_said_at_once(dataset: Path, network: Path, tmp_path: Path) -> None:
    grid = lvae("decode", dataset, tmp_path / "grid.png", "--workers", "2", check=1).stderr
    assert "a grid is not made by several workers" in grid
    alone = lvae("decode", dataset, tmp_path / "a.npz", "--parts", tmp_path / "p", check=1).stderr
    assert "--parts: is for workers" in alone
    batch = lvae("decode", dataset, tmp_path / "a.npz", "--workers", "1", "--batch", "8", check=1).stderr
    assert "workers take 32 pictures at a time" in batch
    source = lvae(
        "features", dataset.parent / "scenes", tmp_path / "f.npz", "--features", network, "--workers", "1", check=1
    ).stderr
    assert "workers take datasets and samples alone" in source
    assert list(tmp_path.iterdir()) == []


def test_two_unlike_attempts_at_one_part_leave_a_consistent_one(dataset: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    job = start(*decode(dataset, tmp_path / "a.npz", "--parts", str(parts)))
    wait_for("the plan", (parts / PLAN).exists)
    kill_command(job)
    folder = Folder(parts)
    plan = read_decode_plan(folder)
    assert plan is not None
    shutil.rmtree(parts / PARTS, ignore_errors=True)  # what the job made of it before it was killed
    write_decoded_part(folder, plan, 0, {"pixels": b"one", "labels": b"1"})
    write_decoded_part(folder, plan, 0, {"pixels": b"other", "labels": b"2"})
    receipt = finished_decode(folder, plan, 0)
    assert receipt is not None
    assert [folder.read(receipt.files[what].path) for what in ("pixels", "labels")] == [b"one", b"1"]


def test_features_that_are_none_are_refused(tmp_path: Path) -> None:
    from lvae.evaluate.features.feature_files import read_features

    good = {"mode": "own", "weights_sha256": "0" * 64, "what": "images", "size": np.array([8, 8])}
    for bad in (
        {**good, "pooled": np.zeros(4, np.float32)},
        {**good, "pooled": np.zeros((4, 2))},
        {**good, "pooled": np.full((4, 2), np.nan, np.float32)},
        {**good, "pooled": np.zeros((4, 2), np.float32), "logits": np.zeros((3, 2), np.float32)},
        {**good, "pooled": np.zeros((4, 2), np.float32), "size": np.zeros(3)},
        {"pooled": np.zeros((4, 2), np.float32)},
    ):
        np.savez(tmp_path / "f.npz", **bad)
        with pytest.raises(LvaeError, match=r"Make them again\."):
            read_features(tmp_path / "f.npz")
