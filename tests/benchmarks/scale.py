"""A job without its network: rows listed, parts written, folded, shuffled into shards and verified, at growing sizes.

    python tests/benchmarks/scale.py [--rows 10000,100000,1000000] [--record]
    python tests/benchmarks/scale.py --rows 10000000 --record      # one more line; 3 GB of disk, ten minutes
    python tests/benchmarks/scale.py --simulate DATASET --by 2    # from the timings of a job that two workers ran

Latents are 4x2x2. The null encoder stands in for reading, cropping and the network: it writes each part's raw latents,
noise by the part's number, and its receipt, as a worker does. All else is the command's: `lvae scan` lists the
rows, and the same `lvae encode` that goes on with any job folds, selects, writes the shards and verifies deep.
Driver: the command's process; the peak of all is that of its processes together (PSS). `--record` puts the lines into
the table of scale.md, in place of those of as many rows, and draws docs/scale.png from the whole table.
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
NAMES = (
    "rows",
    "parts",
    "scan, s",
    "parts, s",
    "fold, shards, verify, s",
    "all, s",
    "microseconds a row",
    "driver's CPU, s",
)
NAMES += ("driver's own, MiB", "driver's mapped, MiB", "all processes, MiB", "machine")
HEAD = f"| {' | '.join(NAMES)} |\n" + "|---" * len(NAMES) + "|"
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


def run(*arguments: str) -> Cost:
    command = [sys.executable, "-m", "lvae", *arguments]
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


def write_parts(dataset: Path, source: str) -> float:
    """Seconds of the null encoder."""
    folder = Folder(dataset)
    options = EncodeOptions(NULL, "random:0", size=SIZE, scan=ScanOptions(part_size=PART_SIZE))
    prepare(folder, Existing(), source, options, lambda _: None)
    plan = read_plan(folder)
    assert plan is not None
    reader, start = RowReader(folder, plan.listing), time.monotonic()
    for part in range(plan.listing.parts):
        _, labels = reader.keys_and_labels(part)
        noise = np.random.default_rng(part).standard_normal((len(labels), *plan.encoded().raw_shape), np.float32)
        write_part(folder, plan, part, noise, labels, [], None)
    return time.monotonic() - start


def measure(rows: int, dataset: Path) -> str:
    source = f"synthetic:{rows}?size={SIZE}"
    scan = run("scan", source, str(dataset), "--part-size", str(PART_SIZE))
    parts = write_parts(dataset, source)
    rest = run("encode", source, str(dataset), *SETTINGS, "--workers", "1")
    total = scan.seconds + parts + rest.seconds
    own, mapped, together = (
        max(getattr(scan, name), getattr(rest, name)) / 2**20 for name in ("own", "mapped", "together")
    )
    return (
        f"| {rows:,} | {-(-rows // PART_SIZE):,} | {scan.seconds:.1f} | {parts:.1f} | {rest.seconds:.1f} | "
        f"{total:.1f} | {total / rows * 1e6:.1f} | {scan.cpu + rest.cpu:.1f} | "
        f"{own:.0f} | {mapped:.0f} | {together:.0f} |"
    )


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
    lines = []
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(measure(rows, Path(folder) / "dataset"))
        print(lines[-1], flush=True)
        if options.record:
            record(lines)


def record(lines: list[str]) -> None:
    """Into the table, where there is one; and the plot."""
    before, head, after = RECORD.read_text().partition(HEAD)
    table, gap, rest = after.partition("\n\n")
    said = f"{describe()}, one worker, load {os.getloadavg()[0]:.1f}"
    kept = {rows_of(line): f"{line}" for line in table.split("\n") if line}
    kept |= {rows_of(line): f"{line} {said} |" for line in lines}
    table = "\n".join(kept[rows] for rows in sorted(kept))
    RECORD.write_text(f"{before}{head}\n{table}{gap}{rest}")
    draw([line.split("|")[1:] for _, line in sorted(kept.items())])


def rows_of(line: str) -> int:
    return int(line.split("|")[1].replace(",", ""))


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
