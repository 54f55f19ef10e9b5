"""Caches of a few latents in the layouts of other tools, written as their scripts write them."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from safetensors.torch import save_file

COUNT = 23
SHAPE = (4, 8, 8)
CLASSES = 3


def latents(seed: int = 0, count: int = COUNT) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.random.default_rng(seed).normal(0.5, 4, (count, *SHAPE)).astype(np.float32)
    return found


def deviations(count: int = COUNT) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.random.default_rng(9).uniform(0.01, 0.4, (count, *SHAPE)).astype(np.float32)
    return found


def labels(count: int = COUNT) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % CLASSES


def npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def edm2(path: Path) -> None:
    """A folder, or a zip by the name: dataset_tool.py, `encode`."""
    names = [f"{index // 1000:05d}/img-mean-std-{index:08d}.npy" for index in range(COUNT)]
    both = np.concatenate([latents(), deviations()], 1)
    files = {name: npy(array) for name, array in zip(names, both, strict=True)}
    files["dataset.json"] = json.dumps(
        {"labels": [list(pair) for pair in zip(names, labels().tolist(), strict=True)]}
    ).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def repa(path: Path) -> None:
    edm2(path / "vae-sd")


def lightningdit(path: Path, ranks: int = 4) -> None:
    """extract_features.py: rows dealt out to ranks, the first ones again where they do not come out even."""
    path.mkdir()
    padded = np.concatenate([np.arange(COUNT), np.arange(-COUNT % ranks)])
    noise = np.random.default_rng(5).normal(0, 0.02, (len(padded), *SHAPE)).astype(np.float32)
    noise[:COUNT] = 0
    for rank in range(ranks):
        mine = padded[rank::ranks]
        for shard, some in enumerate(np.array_split(mine, 2)):
            drawn = latents()[some] + noise[rank::ranks][: len(mine)][np.isin(mine, some)]
            tensors = {"latents": drawn, "latents_flip": latents(1)[some], "labels": labels()[some]}
            name = path / f"latents_rank{rank:02d}_shard{shard:03d}.safetensors"
            save_file({key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in tensors.items()}, name)


def dit(path: Path) -> None:
    """extract_features.py: (1, C, h, w) times 0.18215, labels (1,)."""
    for name, values in (("features", latents() * np.float32(0.18215)), ("labels", labels())):
        folder = path / f"imagenet256_{name}"
        folder.mkdir(parents=True)
        for index in range(COUNT):
            np.save(folder / f"{index}.npy", values[index : index + 1])


def mar(path: Path) -> None:
    """main_cache.py: moments and those of the mirror, below folders of classes."""
    log_variances = 2 * np.log(deviations())
    for index in range(COUNT):
        folder = path / f"n{labels()[index]:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        both = {
            "moments": np.concatenate([latents()[index], log_variances[index]]),
            "moments_flip": np.concatenate([latents(1)[index], log_variances[index]]),
        }
        np.savez(folder / f"{index:05d}.JPEG.npz", **both)


def mds(path: Path) -> None:
    """streaming's MDSWriter, with the columns of precompute_latents.py that matter here; float16 as plain bytes."""
    path.mkdir()
    names, encodings, sizes = ["caption", "label", "latents_256"], ["str", "int64", "bytes"], [None, 8, None]
    shards = []
    for shard, some in enumerate(np.array_split(np.arange(COUNT), 2)):
        samples = []
        for index in some:
            numbers = (latents()[index] * 0.18215).astype(np.float16).tobytes() if index != 7 else b""
            columns = [f"caption {index}".encode(), labels()[index].tobytes(), numbers]
            lengths = [len(column) for column, size in zip(columns, sizes, strict=True) if size is None]
            samples.append(np.array(lengths, np.uint32).tobytes() + b"".join(columns))
        config = json.dumps({"column_names": names}).encode()
        offsets = np.cumsum([0, *map(len, samples)]).astype(np.uint32) + 4 * (len(samples) + 2) + len(config)
        data = np.uint32(len(samples)).tobytes() + offsets.astype(np.uint32).tobytes() + config + b"".join(samples)
        name = f"shard.{shard:05d}.mds"
        (path / name).write_bytes(data)
        described = {"column_names": names, "column_encodings": encodings, "column_sizes": sizes, "version": 2}
        raw = {"basename": name, "bytes": len(data), "hashes": {}}
        described |= {"compression": None, "format": "mds", "hashes": [], "raw_data": raw, "samples": len(samples)}
        shards.append(described | {"size_limit": 1 << 28, "zip_data": None})
    (path / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))


def arrays(path: Path) -> None:
    np.savez(path, latents=latents(), latents_flip=latents(1), labels=labels())


def tars(path: Path) -> None:
    path.mkdir()
    for shard, some in enumerate(np.array_split(np.arange(COUNT), 2)):
        with tarfile.open(path / f"latents-{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for index in some:
                for kind, data in (("npy", npy(latents()[index])), ("cls", str(labels()[index]).encode())):
                    member = tarfile.TarInfo(f"{index:06d}.{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def zarrs(path: Path) -> None:
    group = zarr.open_group(str(path), mode="w")
    for name, values in (("latents", latents()), ("labels", labels())):
        group.create_array(name, data=values, chunks=(5, *values.shape[1:]))


WRITERS: dict[str, Callable[[Path], None]] = {
    "edm2": edm2,
    "edm2.zip": edm2,
    "repa": repa,
    "lightningdit": lightningdit,
    "dit": dit,
    "mar": mar,
    "mds": mds,
    "arrays.npz": arrays,
    "webdataset": tars,
    "latents.zarr": zarrs,
}
