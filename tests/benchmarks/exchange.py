"""Importing and exporting latents beside copying the same bytes.

    python tests/benchmarks/exchange.py --rows 1000000 --record

Rows of 4x32x32 in float16 (`--dtype float32`: twice the bytes), in LightningDiT's files without flips. "raw parts" is
the import of the latents themselves: reading, float32, statistics, checksums, raw parts on the disk; "shards, verified"
is the view and the verification that follow, as for any dataset. A copy moves as many bytes: what a step reads and what
it writes, at the rate at which the same cache was copied and flushed just before. CPU seconds are those of all
processes, which a busy machine disturbs less.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import describe

SHAPE = (4, 32, 32)
FILE_ROWS = 8192
SAID = ["--autoencoder", "unknown", "--factor", "8", "--input-range", "-1,1", "--crop", "adm", "--scale", "1"]


def write_cache(folder: Path, rows: int, dtype: str) -> None:
    """In a process of its own: what a process holds when it starts another counts as memory of that one."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for file, start in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - start)
        latents = torch.randn((count, *SHAPE), generator=generator).to(getattr(torch, dtype))
        tensors = {"latents": latents, "labels": torch.arange(start, start + count) % 1000}
        save_file(tensors, folder / f"latents_rank{file // 1000:02d}_shard{file % 1000:03d}.safetensors")


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def copy_rate(folder: Path, out: Path) -> float:
    """Bytes read and written in a second."""
    out.mkdir()
    begin = time.perf_counter()
    for path in sorted(folder.iterdir()):
        shutil.copyfile(path, out / path.name)
        with (out / path.name).open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    total = 2 * size_of(folder)
    shutil.rmtree(out)
    return total / seconds


@dataclass(frozen=True)
class Cost:
    """Seconds of the clock, of the processor, and the largest resident memory of one of its processes, in MiB."""

    seconds: float
    cpu: float
    memory: int


def run(*words: str | Path) -> Cost:
    """What the command took, and the processes that it started and waited for."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "lvae", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return Cost(time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10)


def import_parts(cache: Path, dataset: Path) -> str:
    """Times the parts alone, in a process of its own, whose figures it prints."""
    code = (
        "import json, resource, sys, time\n"
        "from lvae.actions import engines\n"
        "from lvae.pipeline.engines.patience import DEFAULT_SECONDS\n"
        "from lvae.pipeline.jobs.spread import Spread\n"
        "from lvae.pipeline.exchange.caches.open import Choice\n"
        "from lvae.pipeline.exchange.listing import ListingOptions\n"
        "from lvae.pipeline.exchange.settings import ImportOptions\n"
        "from lvae.pipeline.jobs import import_latents as job\n"
        "from lvae.pipeline.planning.view import ViewOptions\n"
        "from lvae.pipeline.progress.console import CONSOLE\n"
        "from lvae.manifests.storage.open import folder_at\n"
        "from lvae.pipeline.planning.existing import Existing\n"
        "options = ImportOptions('unknown', None, 8, '-1,1', 1.0, None, 'adm', 'sample')\n"
        "request = job.ImportRequest(sys.argv[1], sys.argv[2], Choice(), options, ListingOptions(), ViewOptions())\n"
        "begin, folder = time.perf_counter(), folder_at(sys.argv[2])\n"
        "plan, cache, number = job._prepare(folder, Existing(), request, CONSOLE)\n"
        "listed, cpu = time.perf_counter(), time.process_time()\n"
        "engine = engines.choose((), 1, DEFAULT_SECONDS)\n"
        "job._import_parts(Spread(folder, folder, plan, engine, CONSOLE), {number: cache}, request)\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "print(json.dumps([listed - begin, time.perf_counter() - listed, time.process_time() - cpu, peak]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, cache, dataset], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--folder", type=Path, help="where there is room [the system's temporary folder]")
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as root:
        lines = measure(Path(root), asked.rows, asked.dtype)
    text = "\n".join(lines)
    print(text)
    if asked.record:
        command = f"python {sys.argv[0]} --rows {asked.rows} --dtype {asked.dtype} --record"
        head = f"# Import and export of latents\n\n`{command}`\n\n{describe()}\n\n"
        Path(__file__).with_suffix(".md").write_text(f"{head}{text}\n")


def measure(root: Path, rows: int, dtype: str) -> list[str]:
    cache, dataset, out = root / "cache", root / "dataset", root / "out"
    writing = multiprocessing.get_context("spawn").Process(target=write_cache, args=(cache, rows, dtype))
    writing.start()
    writing.join()
    assert writing.exitcode == 0
    read = size_of(cache)
    rate = copy_rate(cache, root / "copy")
    listed, seconds, cpu, peak = json.loads(import_parts(cache, dataset).splitlines()[-1])
    written = size_of(dataset / "raw")
    lines = [
        f"{rows:,} rows of 4x32x32, {dtype}: {read / 2**30:.2f} GiB; copying reads and writes {rate / 2**20:.0f} MiB/s",
        "",
        "| step | s | CPU s | MiB/s read and written | of copying | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]

    def row(name: str, cost: Cost, moved: int) -> str:
        speed = moved / cost.seconds
        times = f"{cost.seconds:.1f} | {cost.cpu:.1f}"
        return f"| {name} | {times} | {speed / 2**20:.0f} | {speed / rate:.2f} | {cost.memory} |"

    lines.append(f"| import: list | {listed:.1f} | | | | |")
    lines.append(row("import: raw parts", Cost(seconds, cpu, peak), read + written))
    cost = run("latents", "import", cache, dataset, *SAID)
    lines.append(row("import: shards, verified", cost, 2 * written + 2 * size_of(dataset / "shards")))
    rate = copy_rate(cache, root / "copy")
    for layout in ("safetensors", "npy", "edm2"):
        place = out / (f"{layout}.zip" if layout == "edm2" else layout)
        out.mkdir(exist_ok=True)
        needed = written * (2 if layout == "edm2" else 1)  # with deviations
        if shutil.disk_usage(out).free < 1.05 * needed:
            lines.append(f"| export: {layout} | left out: it takes {needed >> 30} GiB, which are not free | | | | |")
            continue
        cost = run("latents", "export", dataset, place, "--layout", layout)
        lines.append(
            row(f"export: {layout}", cost, written + (place.stat().st_size if place.is_file() else size_of(place)))
        )
        shutil.rmtree(out)
    return lines


if __name__ == "__main__":
    main()
