"""Peak memory of an encoding job, all processes together (PSS), for two numbers of rows: it must not grow with them.

python tests/benchmarks/encode_memory.py [--record]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe

ROWS = (20_000, 200_000)
RECORD = Path(__file__).with_suffix(".md")


def descendants(root: int) -> set[int]:
    """Process ids of a process and all below it, and of its process groups' members."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss_bytes(pids: set[int]) -> int:
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def peak(rows: int, folder: Path, workers: int) -> tuple[int, float]:
    """(bytes, seconds) of encoding so many synthetic pictures of 16 px as pixels."""
    command = [sys.executable, "-m", "lvae", "encode", f"synthetic:{rows}?size=16", str(folder)]
    start, highest = time.monotonic(), 0
    job = subprocess.Popen([*command, "--autoencoder", "pixels", "--size", "16", "--workers", str(workers)])
    while job.poll() is None:
        highest = max(highest, pss_bytes(descendants(job.pid)))
        time.sleep(0.05)
    if job.returncode:
        raise SystemExit(job.returncode)
    return highest, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    lines = [f"{describe()}, {options.workers} workers", "", "| rows | peak PSS, MiB | seconds |", "|---|---|---|"]
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            highest, seconds = peak(rows, Path(folder) / str(rows), options.workers)
            peaks.append(highest)
            lines.append(f"| {rows:,} | {highest / 2**20:.0f} | {seconds:.0f} |")
    lines += ["", f"Ratio of the peaks: {peaks[1] / peaks[0]:.3f} (bar: 1.05)."]
    print("\n".join(lines))
    if options.record:
        RECORD.write_text("# Memory of an encoding job\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
