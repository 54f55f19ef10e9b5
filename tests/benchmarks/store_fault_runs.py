"""Stragglers, leases and outages by seed: how they ended.

    python -m tests.benchmarks.store_fault_runs [--seeds 200] [--record]

tests/pipeline/store_faults.py says what happens to a seed; `make faults` runs the first of them.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.benchmarks.machine import describe
from tests.pipeline.bad_s3 import bad_s3
from tests.pipeline.store_faults import ENDS, PLACES, WHATS, Outcome, make_world

RECORD = Path(__file__).with_suffix(".md")
CLEAR_END = "LvaeError"


def table(outcomes: list[Outcome], failures: list[str]) -> list[str]:
    lines = [
        "| what | where | seeds | the same bytes at once | a clear end, then the same bytes | not as they should "
        "| seconds a seed, median and most |",
        "|---|---|---|---|---|---|---|",
    ]
    for what in WHATS:
        for place in PLACES:
            found = [one for one in outcomes if (one.what, one.place) == (what, place)]
            wrong = sum(f", {what} on {place}: " in failure for failure in failures)
            clear = sum(any(CLEAR_END in event for event in one.story) for one in found)
            seconds = sorted(one.seconds for one in found) or [0.0]
            took = f"{seconds[len(seconds) // 2]:.1f}, {seconds[-1]:.1f}"
            numbers = (len(found) + wrong, len(found) - clear, clear, wrong, took)
            lines.append(f"| {what} | {place} | {' | '.join(map(str, numbers))} |")
    ends = Counter(end for one in outcomes for event in one.story for end in ENDS if end in event)
    lines += ["", "Clear ends:", ""]
    lines += [f"- {count} times: {end}" for end, count in ends.most_common()]
    return [*lines, "", *(f"- {failure}" for failure in failures)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--record", action="store_true", help="write the table to store_fault_runs.md")
    options = parser.parse_args()
    command = f"`{' '.join(['python -m tests.benchmarks.store_fault_runs', *sys.argv[1:]])}`"
    heading = [
        "# Stragglers, leases and outages",
        "",
        command,
        "",
        f"{describe()}; load before the start {os.getloadavg()[0]:.1f}",
        "",
    ]
    outcomes, failures = list[Outcome](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with bad_s3(root) as store, make_world(root, store) as world:
            for seed in range(options.seeds):
                try:
                    outcomes.append(world.run(seed))
                    print(outcomes[-1], file=sys.stderr, flush=True)
                except AssertionError as error:
                    failures.append(" ".join(str(error).split()))
                    print(failures[-1], file=sys.stderr, flush=True)
    text = "\n".join([*heading, *table(outcomes, failures)]).rstrip() + "\n"
    print(text)
    if options.record:
        RECORD.write_text(text)


if __name__ == "__main__":
    main()
