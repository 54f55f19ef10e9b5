"""How busy a device is kept: its time over the clock's, with a stand-in that answers after a set time a batch.

    python tests/benchmarks/feeding.py [--seconds 40] [--cases speeds,parts,devices,resume,cores] [--record]

Pictures are JPEGs of 500 x 375, cropped to 256 px. A worker is a process of its own, as an engine starts it, that
encodes a range of parts by the same function; decode workers share the cores of this process (`taskset` takes some
away). At first the rate of all of them without a device is measured, by a stand-in that answers at once: what decoding
can give. The others are shares of it.

- speeds, parts: shares of that rate, part sizes. Busy: from the first batch to the last. Borders: busy in the second
  after a part was finished, the least of all parts. Bar: 97 %, at borders 95 %, at 60 % of what decoding can give.
- devices: two workers, each at half of that. resume: killed half-way, begun again. Bar: 95 %.
- cores: the device is much faster than the cores. Bar: 95 % of all cores are busy.

MiB is what the worker and its processes hold at most beyond what they held at the first batch, when all that may be
opened ahead has been: what grows while a job runs. Pages that several share count in shares.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from machine import describe
from pipeline_overhead import fill

from lvae.encode.feeding.cores import cores
from lvae.encode.feeding.settings import PREFETCH

RECORD = Path(__file__).with_suffix(".md")
PICTURES_PX = 256
DIFFERENT, AT_ONCE = 12000, 1e7  # pictures on disk; images a second that are no time at all
NETWORK, WEIGHTS = "kl-f8", "random:0"
PART, SHARE = 128, 0.6  # parts so small that a run has many borders
BORDER_SECONDS = 1.0


@dataclass(frozen=True)
class Run:
    """One worker. rate: of its device, images a second. decoders, prefetch: as the command line has them."""

    rate: float
    parts: tuple[int, int]
    part_size: int = PART
    decoders: int = 1
    prefetch: int = PREFETCH


@dataclass(frozen=True)
class Result:
    """busy, border: shares. seconds, images: from the first batch to the last. cores: that its processes kept busy."""

    busy: float
    border: float
    seconds: float
    images: int
    cores: float
    mebibytes: float

    @property
    def rate(self) -> float:
        return self.images / self.seconds


def prepare(root: Path, pictures: Path, part_size: int) -> None:
    """A dataset that is planned and not encoded."""
    from lvae.manifests.storage.folder import Folder
    from lvae.pipeline.planning.existing import Existing
    from lvae.pipeline.planning.plan import EncodeOptions
    from lvae.pipeline.planning.plan import prepare as plan
    from lvae.pipeline.planning.scan import ScanOptions

    options = EncodeOptions(
        NETWORK, WEIGHTS, size=PICTURES_PX, device="stand-in:1", scan=ScanOptions(part_size=part_size)
    )
    plan(Folder(root), Existing(), str(pictures), options, lambda _: None)


def work(root: str, run: Run) -> None:
    """The worker's side: prints its result."""
    from lvae.encode.feeding.openers import choose_opener
    from lvae.encode.feeding.opening import Images
    from lvae.encode.feeding.stand_in import StandIn
    from lvae.encode.part import encode_parts
    from lvae.manifests.parts.plan import read_plan
    from lvae.manifests.storage.folder import Folder

    folder = Folder(root)
    plan = read_plan(folder)
    assert plan is not None
    encoder = StandIn(plan.encoded(), f"stand-in:{run.rate}")
    opener = choose_opener(Images.of(plan), run.decoders, run.prefetch * encoder.batch)
    watch = Watch(encoder)
    watch.start()
    borders, images = [], 0
    for receipt in encode_parts(folder, plan, range(*run.parts), encoder, opener):
        borders.append(time.monotonic())
        images += receipt.rows
    watch.end()
    begin, end = encoder.busy[0][0], encoder.busy[-1][1]
    windows = [(border, border + BORDER_SECONDS) for border in borders if begin < border < end - BORDER_SECONDS]
    result = Result(
        busy=share(encoder.busy, begin, end),
        border=min((share(encoder.busy, *window) for window in windows), default=float("nan")),
        seconds=end - begin,
        images=images,
        cores=watch.cores,
        mebibytes=watch.most / (1 << 20),
    )
    print(json.dumps(result.__dict__), flush=True)


def share(busy: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    return sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in busy) / (end - begin)


class Watch(threading.Thread):
    """Cores and memory of this process and those below it, from the first batch on."""

    def __init__(self, encoder: object):
        super().__init__(daemon=True)
        self._encoder, self._ended = encoder, threading.Event()
        self.cores, self.most = 0.0, 0

    def run(self) -> None:
        first: tuple[float, float, int] | None = None
        while not self._ended.wait(0.2):
            now, (spent, held) = time.monotonic(), measure()
            if first is not None:
                self.cores, self.most = (spent - first[1]) / (now - first[0]), max(self.most, held - first[2])
            elif self._encoder.busy:  # type: ignore[attr-defined]
                first = now, spent, held

    def end(self) -> None:
        self._ended.set()
        self.join()


def measure() -> tuple[float, int]:
    spent, held = 0.0, 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times, memory = process.cpu_times(), process.memory_full_info()
        except psutil.Error:
            continue
        spent += times.user + times.system
        held += memory.pss
    return spent, held


def start(root: Path, run: Run) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--worker", str(root), json.dumps(run.__dict__)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: "subprocess.Popen[str]") -> Result:
    said = process.communicate()[0]
    if process.returncode:
        raise SystemExit("a worker failed")
    return Result(**json.loads(said.splitlines()[-1]))


class Bench:
    """Runs of about so many seconds each, over the same pictures."""

    def __init__(self, root: Path, seconds: float):
        self._root, self._seconds, self._count = root, seconds, 0
        self.pictures = root / "pictures"
        self.pictures.mkdir()
        fill(self.pictures, DIFFERENT)
        self.opening = 0.0

    def folder(self, part_size: int = PART) -> Path:
        self._count += 1
        place = self._root / f"dataset-{self._count}"
        prepare(place, self.pictures, part_size)
        return place

    def parts(self, rate: float, part_size: int = PART, seconds: float | None = None) -> tuple[int, int]:
        wanted = round((seconds or self._seconds) * rate / part_size)
        return 0, min(max(3, wanted), DIFFERENT // part_size)

    def measure_opening(self) -> Result:
        run = Run(AT_ONCE, self.parts(200.0, seconds=self._seconds), decoders=cores())
        result = finish(start(self.folder(), run))
        self.opening = result.rate
        return result

    def one(self, rate: float, part_size: int = PART, prefetch: int = PREFETCH) -> Result:
        run = Run(rate, self.parts(rate, part_size), part_size, cores(), prefetch)
        return finish(start(self.folder(part_size), run))

    def two(self, rate: float) -> list[Result]:
        """Two devices, each with half of the cores and of the parts."""
        place, (_, stop) = self.folder(), self.parts(2 * rate)
        halves = ((0, stop // 2), (stop // 2, stop))
        workers = [start(place, Run(rate, half, decoders=max(1, cores() // 2))) for half in halves]
        return [finish(worker) for worker in workers]

    def resumed(self, rate: float) -> Result:
        """What was left when a worker was killed half-way."""
        place, run = self.folder(), Run(rate, self.parts(rate), decoders=cores())
        first = start(place, run)
        while len(list(place.glob("raw/*/part-*.json"))) < run.parts[1] // 2:
            time.sleep(0.05)
        first.kill()
        first.wait()
        return finish(start(place, run))


def table(bench: Bench, cases: Sequence[str]) -> list[str]:
    most = bench.measure_opening()
    lines = [
        f"Without a device: {most.rate:.1f} images/s with {cores()} decode workers, "
        f"{most.cores / cores():.1%} of {cores()} cores busy.",
        "",
        "| | device, images/s | of what decoding can give | part | prefetch | busy | least at a border | MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def line(
        name: str, found: Result, rate: float, part: int = PART, prefetch: int = PREFETCH, devices: int = 1
    ) -> None:
        of = devices * rate / bench.opening
        lines.append(
            f"| {name} | {rate:.0f} | {of:.0%} | {part} | {prefetch} | {found.busy:.1%} | {found.border:.1%} "
            f"| {found.mebibytes:.0f} |"
        )
        print(lines[-1], flush=True)

    if "speeds" in cases:
        for of in (0.3, SHARE, 0.8):
            line("speed", bench.one(of * bench.opening), of * bench.opening)
    if "parts" in cases:
        for part in (16, 512):
            line("parts", bench.one(SHARE * bench.opening, part), SHARE * bench.opening, part)
        for prefetch in (2, 4, 32):
            found = bench.one(SHARE * bench.opening, prefetch=prefetch)
            line("prefetch", found, SHARE * bench.opening, prefetch=prefetch)
    if "devices" in cases:
        for number, found in enumerate(bench.two(SHARE / 2 * bench.opening), 1):
            line(f"device {number} of 2", found, SHARE / 2 * bench.opening, devices=2)
    if "resume" in cases:
        line("after a kill", bench.resumed(SHARE * bench.opening), SHARE * bench.opening)
    if "cores" in cases:
        found = bench.one(10 * bench.opening)
        line("decoding binds", found, 10 * bench.opening)
        busy = found.cores / cores()
        lines += ["", f"Where decoding binds: {found.rate:.1f} images/s, {busy:.1%} of {cores()} cores busy."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--cases", default="speeds,parts,devices,resume,cores")
    parser.add_argument("--record", action="store_true", help="write feeding.md")
    options = parser.parse_args()
    lines = [f"{describe()}, {cores()} cores, load {os.getloadavg()[0]:.1f}", ""]
    with tempfile.TemporaryDirectory() as folder:
        lines += table(Bench(Path(folder), options.seconds), options.cases.split(","))
    lines += ["", f"Load at the end: {os.getloadavg()[0]:.1f}."]
    print("\n".join(lines))
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# How busy a device is kept\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        settings = json.loads(sys.argv[3])
        work(sys.argv[2], Run(**{**settings, "parts": tuple(settings["parts"])}))
    else:
        main()
