"""How long the command line takes to say what it does: every command's help, in milliseconds.

python tests/benchmarks/start.py [--record]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

from lvae.cli import main as group

RECORD = Path(__file__).with_suffix(".md")
RUNS = 7


def milliseconds(arguments: list[str]) -> float:
    """The median of a few runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lvae", *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", action="store_true")
    commands = [["--help"], *([name, "--help"] for name in sorted(group.commands))]
    rows = [f"| lvae {' '.join(arguments)} | {milliseconds(arguments):.0f} |" for arguments in commands]
    lines = [describe(), "", "| command | median of 7, ms |", "|---|---|", *rows]
    print("\n".join(lines))
    if parser.parse_args().record:
        RECORD.write_text("# Starting\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
