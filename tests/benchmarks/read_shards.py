"""How fast shuffled latents are read, beside a stock WebDataset loop over the same tars in the same run.

    python tests/benchmarks/read_shards.py [--latents 32768] [--folder DIR] [--record]

Batches of 256 latents 4x32x32 float16 in a random order, one process, page cache warm; the best of five passes. Also:
rates of writing, and the time of opening a split of 10^6 latents (its files are sparse: opening reads none of them).
`--record` writes the table to read_shards.md.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lvae.manifests.shards import webdataset_format as shards_webdataset
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import ShardContent, SplitLayout, SplitReader
from lvae.manifests.shards.tar_template import file_bytes as tar_bytes
from lvae.manifests.shards.zarr_layout import array_names, file_bytes, file_name
from lvae.manifests.storage.folder import Folder

SHAPE = (4, 32, 32)
BATCH = 256
PASSES = 5
FORMATS = ("zarr", "webdataset")


def layout_of(count: int, json_width: int = 0) -> SplitLayout:
    return SplitLayout("train", count, SHAPE, "float16", 8192, False, True, 4, json_width)


def contents(layout: SplitLayout) -> Iterator[tuple[int, ShardContent]]:
    random = np.random.default_rng(0)
    for number in range(layout.shards):
        first, count = layout.rows_of(number)
        rows = np.arange(first, first + count)
        yield (
            number,
            ShardContent(
                random.standard_normal((count, *SHAPE), np.float32).astype(np.float16),
                None,
                (rows % 1000).astype(np.int32),
                rows,
                rows % 2 == 1,
                [f"n{row % 1000:08d}/{row:08d}.JPEG" for row in rows],
            ),
        )


def write(name: str, folder: Folder, count: int) -> tuple[SplitLayout, float]:
    """Writes the split; latents a second, making them not included."""
    shard_format = codec(name)
    layout = layout_of(count, shard_format.json_width(count, ["n00000000/00000000.JPEG"]))
    seconds = 0.0
    shard_format.prepare(folder, name, layout)
    for number, content in contents(layout):
        start = time.perf_counter()
        shard_format.write_shard(folder, name, layout, number, content)
        seconds += time.perf_counter() - start
    return layout, count / seconds


def fastest(readers: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Latents a second in the best of some passes, which take turns so that a busy machine slows all alike."""
    rates = dict.fromkeys(readers, 0.0)
    for _ in range(PASSES):
        for name, read_all in readers.items():
            start = time.perf_counter()
            count = read_all()
            rates[name] = max(rates[name], count / (time.perf_counter() - start))
    return rates


def shuffled(reader: SplitReader, dtype: str | None) -> int:
    order = np.random.default_rng(1).permutation(len(reader))
    for start in range(0, len(order), BATCH):
        reader.read(order[start : start + BATCH], dtype)
    return len(order)


def stock(folder: Folder, layout: SplitLayout, dtype: str | None) -> int:
    """The loop of WebDataset's own documentation: samples one by one, decoded."""
    import webdataset

    urls = sorted(str(path) for path in folder.local("shards/webdataset").glob("train-*.tar"))
    count = 0
    for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode():
        latent, _ = sample["latent.npy"], sample["cls"]
        if dtype is not None:
            latent.astype(dtype)
        count += 1
    assert count == layout.count
    return count


def open_seconds(name: str, folder: Folder) -> float:
    """Opening a split of 10^6 latents, the best of some times; its files have their sizes and nothing in them."""
    shard_format = codec(name)
    layout = layout_of(1_000_000, shard_format.json_width(1_000_000, ["n00000000/00000000.JPEG"]))
    shard_format.prepare(folder, "large", layout)
    for path, size in files_of(name, layout):
        target = folder.local(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.truncate(size)
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        shard_format.open_split(folder, "large", layout).close()
        times.append(time.perf_counter() - start)
    return min(times)


def files_of(name: str, layout: SplitLayout) -> Iterator[tuple[str, int]]:
    """Names and sizes of a split's shards."""
    for number in range(layout.shards):
        if name == "webdataset":
            yield shards_webdataset.file_name("large", layout, number), tar_bytes(layout, layout.rows_of(number)[1])
            continue
        for array in array_names(layout):
            yield (
                file_name("large", layout, array, number),
                file_bytes(layout, array, number),
            )


def table(count: int, root: Path) -> str:
    folder = Folder(root)
    written = {name: write(name, folder, count) for name in FORMATS}
    layout = written["webdataset"][0]
    lines = [f"{count:,} latents 4x32x32 float16 in {layout.shards} shards, batches of {BATCH} in random order.", ""]
    lines += ["| reader | result | latents/s | over stock |", "|---|---|---|---|"]
    opened = {name: codec(name).open_split(folder, name, written[name][0]) for name in FORMATS}
    for dtype, result in ((None, "float16, as stored"), ("float32", "float32")):
        readers = {"stock WebDataset loop": partial(stock, folder, layout, dtype)}
        readers |= {f"ours, {name}": partial(shuffled, reader, dtype) for name, reader in opened.items()}
        rates = fastest(readers)
        for name, rate in rates.items():
            lines.append(f"| {name} | {result} | {rate:,.0f} | {rate / rates['stock WebDataset loop']:.0f} |")
    lines += ["", "| format | written, latents/s | opening 10^6 latents |", "|---|---|---|"]
    for name in FORMATS:
        lines.append(f"| {name} | {written[name][1]:,.0f} | {1000 * open_seconds(name, folder):.1f} ms |")
    return "\n".join(lines)


def machine() -> str:
    """What the numbers depend on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "zarr", "webdataset"))
    return "\n".join(
        [
            f"Machine: {names[0].split(': ')[1]}, {len(os.sched_getaffinity(0))} cores, {platform.platform()}",
            f"Python {platform.python_version()}, {libraries}",
            f"Commit: {commit.stdout.strip() if commit.returncode == 0 else 'none yet'}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=32768)
    parser.add_argument("--folder", type=Path, default=None, help="where to make the shards (default: temporary)")
    parser.add_argument("--record", action="store_true", help="write the table to read_shards.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        text = f"{machine()}\n\n{table(arguments.latents, Path(root))}"
    sys.stdout.write(text + "\n")
    if arguments.record:
        Path(__file__).with_suffix(".md").write_text(f"# Reading shards\n\n`{' '.join(sys.argv)}`\n\n{text}\n")


if __name__ == "__main__":
    main()
