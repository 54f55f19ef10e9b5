"""A job without its network: rows listed, parts written, folded, shuffled into shards and verified, at growing sizes.

    python tests/benchmarks/scale.py [--rows 10000,100000,1000000] [--record]
    python tests/benchmarks/scale.py --rows 10000000 --record      # one more line; 4 GB of disk
    python tests/benchmarks/scale.py --rows 20000,40000,400000 --part-size 4    # many parts: the driver's work for each
    python tests/benchmarks/scale.py --simulate DATASET --by 2    # from the timings of a job that two workers ran

Latents are 4x2x2. The null encoder stands in for reading, cropping and the network: it writes each part's raw latents,
noise by the part's number, and its receipt, as a worker does. All else is the command's: `lvae scan` lists the
rows, and the same `lvae encode` that goes on with any job folds, selects, writes the shards and verifies deep, by
workers from the first row on (`--here` lets the command do small jobs by itself, as it does by default).
Driver: the command's process; the peak of all is that of its processes together (PSS). ms a part: the driver's CPU time
beside that of the first line, over the parts beside those of the first line: what a part more costs. `--record` puts
the lines into the table of scale.md, in place of those of as many rows and parts.
"""

import argparse
import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import log10
from pathlib import Path

import numpy as np
from encode_memory import descendants, pss_bytes
from machine import describe
from pipeline_overhead import cpu_seconds

from lvae.evaluate.figures.charts import Series, chart_points
from lvae.evaluate.figures.render import render_png
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.parts.receipts import write_part
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.parts.timings import read_timing
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.planning.existing import Existing
from lvae.pipeline.planning.plan import EncodeOptions, prepare
from lvae.pipeline.planning.scan import ScanOptions

RECORD = Path(__file__).with_suffix(".md")
NULL = '{"kind": "tiny", "latent_channels": 4, "width": 4, "blocks": 1, "multipliers": [1, 1]}'  # f = 2, never run
SIZE = 4
PLOT = Path(__file__).parents[2] / "docs" / "scale.png"
PART_SIZE = 4096
LARGE_PARTS = 1024  # rows in a part: what the plot shows
NAMES = (
    "rows",
    "parts",
    "scan, s",
    "parts, s",
    "fold, shards, verify, s",
    "all, s",
    "microseconds a row",
    "scan's CPU, s",
    "driver's CPU, s",
    "ms a part more",
)
NAMES += (
    "driver's own, MiB",
    "driver's mapped, MiB",
    "all processes, MiB",
    "files",
    "MB",
    "most in a folder",
    "machine",
)
HEAD = f"| {' | '.join(NAMES)} |\n" + "|---" * len(NAMES) + "|"
SPREAD = (
    "from lvae.pipeline.jobs import spread; from lvae.cli import main\n"
    "spread.SMALL_BYTES = spread.SMALL_LATENTS = 0\n"
    "main()"
)
SETTINGS = ("--autoencoder", NULL, "--weights", "random:0", "--size", str(SIZE), "--shard-size", "65536")


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds, the driver's CPU seconds, and peaks in bytes.

    own, mapped: what the driver has allocated, and the pages of files in its address space (the cache's, which it may
    lose at any time). together: of all processes, both kinds.
    """

    seconds: float
    cpu: float
    own: int
    mapped: int
    together: int


def run(*arguments: str, here: bool = True) -> Cost:
    """here: whether the command may do what is little by itself."""
    begin = ["-m", "lvae"] if here else ["-c", SPREAD]
    command = [sys.executable, *begin, *arguments]
    start, cpu, own, mapped, together = time.monotonic(), 0.0, 0, 0, 0
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while job.poll() is None:
        cpu = max(cpu, cpu_seconds(job.pid))
        now_own, now_mapped = own_and_mapped(job.pid)
        own, mapped = max(own, now_own), max(mapped, now_mapped)
        together = max(together, pss_bytes(descendants(job.pid)))
        time.sleep(0.1)
    if job.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {job.returncode}")
    return Cost(time.monotonic() - start, cpu, own, mapped, together)


def own_and_mapped(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {line.partition(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith("kB")}
    return found.get("Pss_Anon", 0), found.get("Pss_File", 0)


def write_parts(dataset: Path, source: str, part_size: int) -> float:
    """Seconds of the null encoder."""
    folder = Folder(dataset)
    options = EncodeOptions(NULL, "random:0", size=SIZE, scan=ScanOptions(part_size=part_size))
    prepare(folder, Existing(), source, options, lambda _: None)
    plan = read_plan(folder)
    assert plan is not None
    reader, start = RowReader(folder, plan.listing), time.monotonic()
    for part in range(plan.listing.parts):
        _, labels = reader.keys_and_labels(part)
        noise = np.random.default_rng(part).standard_normal((len(labels), *plan.encoded().raw_shape), np.float32)
        write_part(folder, plan, part, noise, [], None)
    return time.monotonic() - start


@dataclass(frozen=True)
class Line:
    """Of the table, without the machine."""

    rows: int
    parts: int
    scan: Cost
    encoded: float
    rest: Cost
    files: int
    bytes: int
    most: int

    def text(self, first: "Line") -> str:
        total = self.scan.seconds + self.encoded + self.rest.seconds
        more = self.parts - first.parts
        each = f"{1000 * (self.rest.cpu - first.rest.cpu) / more:.2f}" if more else "-"
        own, mapped, together = (
            max(getattr(self.scan, one), getattr(self.rest, one)) / 2**20 for one in ("own", "mapped", "together")
        )
        cells = [
            f"{self.rows:,}",
            f"{self.parts:,}",
            *(f"{one:.1f}" for one in (self.scan.seconds, self.encoded, self.rest.seconds, total)),
            f"{total / self.rows * 1e6:.1f}",
            f"{self.scan.cpu:.1f}",
            f"{self.rest.cpu:.1f}",
            each,
            *(f"{one:.0f}" for one in (own, mapped, together)),
            f"{self.files:,}",
            f"{self.bytes / 1e6:.1f}",
            f"{self.most:,}",
        ]
        return f"| {' | '.join(cells)} |"


def measure(rows: int, dataset: Path, part_size: int, here: bool) -> Line:
    source = f"synthetic:{rows}?size={SIZE}"
    scan = run("scan", source, str(dataset), "--part-size", str(part_size))
    encoded = write_parts(dataset, source, part_size)
    rest = run("encode", source, str(dataset), *SETTINGS, "--workers", "1", here=here)
    folders = [(len(folders) + len(files), files, path) for path, folders, files in os.walk(dataset)]
    sizes = sum((Path(path) / name).stat().st_size for _, files, path in folders for name in files)
    files = sum(len(files) for _, files, _ in folders)
    return Line(rows, -(-rows // part_size), scan, encoded, rest, files, sizes, max(count for count, _, _ in folders))


def simulate(dataset: Path, by: int) -> list[str]:
    """How busy the workers of a real job were, and, a simulation, what more would make of parts that take as long.

    Of a job that ran at once, on one machine: breaks and clocks that differ would count as idle.
    """
    folder = Folder(dataset)
    plan = read_plan(folder)
    assert plan is not None
    timings = [timing for part in range(plan.listing.parts) if (timing := read_timing(folder, part)) is not None]
    if not timings:
        raise SystemExit(f"{dataset}: no part has timings.")
    measured = np.array([timing.seconds for timing in timings])
    took = max(timing.ended for timing in timings) - min(timing.ended - timing.seconds for timing in timings)
    busy = measured.sum() / by / took
    if busy > 1:
        raise SystemExit(f"{dataset}: {by} busy for {busy:.2f} of the time? Say with --by how many it had.")
    lines = [
        f"Workers: {by}, busy for {busy:.3f} of the {took:.1f} s from the first part's start to "
        f"the last one's end. Simulated from these parts:",
        "",
        f"{len(measured)} parts measured: median {np.median(measured):.2f} s, "
        f"99 % below {np.quantile(measured, 0.99):.2f} s, longest {measured.max():.2f} s.",
        "",
        "| workers | parts | parts a worker | seconds | busy |",
        "|---|---|---|---|---|",
    ]
    for workers in (1, 2, 100, 1000):
        for each in (4, 25, 100):
            durations = np.random.default_rng(0).choice(measured, workers * each)
            ends = [0.0] * workers
            for seconds in durations:
                heapq.heapreplace(ends, ends[0] + seconds)
            share = durations.sum() / (workers * max(ends))
            lines.append(f"| {workers:,} | {workers * each:,} | {each} | {max(ends):.1f} | {share:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--part-size", type=int, default=PART_SIZE)
    parser.add_argument("--here", action="store_true", help="let the command do by itself what is little")
    parser.add_argument("--simulate", type=Path, metavar="DATASET")
    parser.add_argument("--by", type=int, metavar="WORKERS", help="how many ran the job of DATASET")
    parser.add_argument("--record", action="store_true", help="write the table to scale.md")
    options = parser.parse_args()
    if (options.simulate is None) != (options.by is None):
        parser.error("--simulate and --by belong together")
    if options.simulate is not None:
        print("\n".join(simulate(options.simulate, options.by)))
        return
    print(f"{describe()}, one worker, load {os.getloadavg()[0]:.1f}\n\n{HEAD}", flush=True)
    lines: list[Line] = []
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measure(rows, Path(folder) / "dataset", options.part_size, options.here))
        print(lines[-1].text(lines[0]), flush=True)
        if options.record:
            record([line.text(lines[0]) for line in lines])


def record(lines: list[str]) -> None:
    """Into the table, where there is one; and the plot."""
    before, head, after = RECORD.read_text().partition(HEAD)
    table, gap, rest = after.partition("\n\n")
    said = f"{describe()}, one worker, load {os.getloadavg()[0]:.1f}"
    kept = {size_of(line): f"{line}" for line in table.split("\n") if line}
    kept |= {size_of(line): f"{line} {said} |" for line in lines}
    table = "\n".join(kept[size] for size in sorted(kept))
    RECORD.write_text(f"{before}{head}\n{table}{gap}{rest}")
    large = [line.split("|")[1:] for (rows, parts), line in sorted(kept.items()) if rows >= LARGE_PARTS * parts]
    draw(large)


def size_of(line: str) -> tuple[int, int]:
    """Rows and parts."""
    rows, parts = line.split("|")[1:3]
    return int(rows.replace(",", "")), int(parts.replace(",", ""))


def draw(table: list[list[str]]) -> None:
    """Two charts beside each other, over the decimal logarithm of the rows."""

    def curve(name: str, column: str, scale: Callable[[float], float] = float) -> Series:
        found = NAMES.index(column)
        return Series(name, tuple((log10(int(r[0].replace(",", ""))), scale(float(r[found])), 0.0) for r in table))

    processes = ("driver's own", "driver's mapped", "all processes")
    charts = [
        chart_points("log10 of seconds", "log10 of rows", [curve("all", "all, s", log10)]),
        chart_points(
            "memory, MiB", "log10 of rows", [curve(one, f"{one}, MiB") for one in processes], ("nothing", 0.0)
        ),
    ]
    PLOT.write_bytes(render_png(charts, columns=2))


if __name__ == "__main__":
    main()
