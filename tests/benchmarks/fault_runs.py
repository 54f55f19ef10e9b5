"""Random faults by seed, as many as fit into a time: how many jobs end by themselves, and how many by another command.

    LVAE_FAULT_SEEDS=100 .venv-cluster/bin/python -m tests.benchmarks.fault_runs [--work encoding] [--minutes 25]
        [--lanes 2] [--engines dask,portable] [--first 40] [--record]

In the environment and after the installation of `make test-cluster`, which runs the first ten seeds. Each engine has so
many lanes, a lane its own cluster and its own small disk; all run at once.
"""

import argparse
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.machine import describe
from tests.pipeline.cluster import dask, portable
from tests.pipeline.random_faults import (
    WORKS,
    Engine,
    InProcess,
    OnDask,
    OnPortable,
    Outcome,
    Work,
    World,
    failing_writes,
    run,
)

RECORDS = {
    "encoding": Path(__file__).with_suffix(".md"),
    "decoding": Path(__file__).with_name("fault_runs_decoding.md"),
}
ENGINES = ("in-process", "dask", "portable")


@dataclass
class Results:
    """Seeds still to be run, outcomes, and what failed, by engine. record: rewritten after every seed."""

    heading: list[str]
    record: Path | None
    deadline: float
    seeds: dict[str, Iterator[int]]
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_seed(self, engine: str) -> int | None:
        with self.lock:
            return next(self.seeds[engine], None) if time.monotonic() < self.deadline else None

    def add(self, outcome: Outcome | None, failure: str = "") -> None:
        with self.lock:
            if outcome is None:
                self.failures.append(failure)
            else:
                self.outcomes.append(outcome)
            print(outcome or failure, file=sys.stderr, flush=True)
            if self.record is not None:
                self.record.write_text("\n".join([*self.heading, *tables(self)]).rstrip() + "\n")


@contextmanager
def engine_of(name: str, root: Path) -> Iterator[Engine]:
    if name == "in-process":
        yield InProcess()
        return
    if name == "portable":
        with portable(root / "cluster", **failing_writes(root)) as service:
            yield OnPortable(service)
        return
    with dask(root / "cluster", **failing_writes(root)) as cluster:
        yield OnDask(cluster)


def lane(name: str, root: Path, work: Work, results: Results) -> None:
    with engine_of(name, root) as engine:
        while (seed := results.next_seed(name)) is not None:
            engine.mend(stopped=True)
            try:
                results.add(run(engine, seed, work, root))
            except AssertionError as error:
                results.add(None, f"{name}, seed {seed}: {error}")


def tables(results: Results) -> list[str]:
    lines = [
        "| engine | seeds | ended by themselves | by the same command again | most commands | not as they should "
        "| longest without a receipt or a submission, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for engine in ENGINES:
        found = [outcome for outcome in results.outcomes if outcome.engine == engine]
        wrong = sum(failure.startswith(f"{engine},") for failure in results.failures)
        alone = sum(len(outcome.codes) == 1 for outcome in found)
        most = max((len(outcome.codes) for outcome in found), default=0)
        quiet = max((outcome.quiet for outcome in found), default=0.0)
        row = (engine, len(found) + wrong, alone, len(found) - alone, most, wrong, f"{quiet:.0f}")
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += [
        "",
        "| engine | seed | faults, with the progress they met | exit codes | seconds | said, where it failed |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for one in sorted(results.outcomes, key=lambda outcome: (ENGINES.index(outcome.engine), outcome.seed)):
        codes, said = " ".join(map(str, one.codes)), "; ".join(filter(None, map(shortened, one.last_words)))
        lines.append(f"| {one.engine} | {one.seed} | {', '.join(one.faults)} | {codes} | {one.seconds:.0f} | {said} |")
    return lines + [""] + [f"- {failure}" for failure in results.failures]


def shortened(line: str) -> str:
    """What a command said last, if it was an error; without the places of this run."""
    return (
        re.sub(r"^lvae: \S*/(out|images\.npz)\S* ", "", line)[:160].replace("|", "/")
        if line.startswith("lvae: ")
        else ""
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=list(WORKS), default="encoding")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--lanes", type=int, default=2, help="runs of each engine at once")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=list(ENGINES), help="some of them")
    parser.add_argument("--record", action="store_true", help="write the tables to the work's .md")
    options = parser.parse_args()
    seeds = int(os.environ.get("LVAE_FAULT_SEEDS", "100"))
    words = " ".join(["python -m tests.benchmarks.fault_runs", *sys.argv[1:]])
    heading = [f"# Random faults: {options.work}", "", f"`LVAE_FAULT_SEEDS={seeds} {words}`", ""]
    heading += [f"{describe()}; load before the start {os.getloadavg()[0]:.1f}", ""]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        work = WORKS[options.work](World.make(root))
        deadline = time.monotonic() + 60 * options.minutes
        record = RECORDS[options.work] if options.record else None
        results = Results(heading, record, deadline, {engine: iter(range(options.first, seeds)) for engine in ENGINES})
        lanes = []
        for number in range(options.lanes):
            for engine in options.engines:
                (own := root / f"{engine}-{number}").mkdir()
                lanes.append(threading.Thread(target=lane, args=(engine, own, work, results)))
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
    print("\n".join([*heading, *tables(results)]))


if __name__ == "__main__":
    main()
