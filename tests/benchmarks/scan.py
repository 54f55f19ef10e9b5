"""Listing at scale: ten million rows of noise by `lvae scan`, and a folder of many files beside os.walk and stat.

    python tests/benchmarks/scan.py [--rows 10000000] [--files 200000] [--record]

The first scan lists, plans and writes; the second finds the same images again. Peak memory is that of the process.
Of the folder (a temporary one, its names in the page cache) the best of seven passes counts, taken in turns: in seconds
of the clock, and of the processor, which a busy machine disturbs less. `--rows 0` leaves the first half out.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe

from lvae.encode.files.left_out import LeftOut
from lvae.encode.sources.open import open_source
from lvae.encode.sources.reading.walk import walk

RECORD = Path(__file__).with_suffix(".md")
PASSES = 7
FOLDERS = 100


def scan(rows: int, dataset: Path) -> tuple[float, float]:
    """(seconds, peak MiB) of the command."""
    command = [sys.executable, "-m", "lvae", "scan", f"synthetic:{rows}?size=16", str(dataset)]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def fill(root: Path, files: int) -> None:
    for folder in range(FOLDERS):
        (root / f"class{folder:03}").mkdir()
    for number in range(files):
        (root / f"class{number % FOLDERS:03}" / f"{number:08}.jpg").touch()


def bare(root: Path) -> int:
    count = 0
    for folder, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118  nothing beside the file system's time
            count += 1
    return count


def walked(root: Path) -> int:
    return sum(1 for _ in walk(str(root), LeftOut({})))


def ours(root: Path) -> int:
    return sum(1 for _ in open_source(str(root)).rows())


def fastest(calls: dict[str, Callable[[Path], int]], root: Path, files: int) -> dict[str, tuple[float, float]]:
    """(seconds, CPU seconds) of each."""
    clock: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(PASSES):
        for name, call in calls.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            assert call(root) == files
            clock[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - cpu_start)
    return {name: (min(clock[name]), min(cpu[name])) for name in calls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--record", action="store_true", help="write the table to scan.md")
    options = parser.parse_args()
    lines = [describe(), ""]
    if options.rows:
        lines += [f"| {options.rows:,} rows | seconds | rows/s | peak MiB |", "|---|---|---|---|"]
        with tempfile.TemporaryDirectory() as folder:
            for what in ("listed, planned, written", "found again"):
                seconds, peak = scan(options.rows, Path(folder) / "dataset")
                lines.append(f"| {what} | {seconds:.0f} | {options.rows / seconds:,.0f} | {peak:.0f} |")
        lines += ["", "Bars: 300 s and 4096 MiB for ten million rows.", ""]
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), options.files)
        calls = {"os.walk and stat": bare, "our walk": walked, "rows of the folder": ours}
        found = fastest(calls, Path(folder), options.files)
    lines += [f"| {options.files:,} files in {FOLDERS} folders | seconds | CPU s | files/s | over the first |"]
    lines += ["|---|---|---|---|---|"]
    for name, (seconds, cpu) in found.items():
        ratio = cpu / found["os.walk and stat"][1]
        lines.append(f"| {name} | {seconds:.2f} | {cpu:.2f} | {options.files / seconds:,.0f} | {ratio:.2f} |")
    print("\n".join(lines))
    if options.record:
        RECORD.write_text("# Scanning\n\n`" + " ".join(sys.argv) + "`\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
