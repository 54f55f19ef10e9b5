"""What an encoding job costs beside the work itself, in turns with bare processes that do only that.

    python tests/benchmarks/pipeline_overhead.py [--cases pixels,pixels-f2,taesd,kl-f8,parts,view] [--rounds 3]
        [--record]

Pictures are JPEGs of 500 x 375 of drawn scenes with grain. The first half of a job ends with the last raw part. Each
round runs a small and a large job: their difference is what the additional pictures cost, and what is left of the small
one is the fixed start. The bare processes, one thread each and as many as workers, do the same for as many pictures:

- pixels: open and crop to 64 px. Bar: 0.9 times their rate.
- networks: forward passes of batches of the same size, 256 px. Bar: 1.05 times their time (the job also opens them).
- parts: the driver's CPU time and the clock's for 10^4 parts of four pictures. Bar: 2 % of the job of real parts.
- view: seconds for a latent 4x32x32 in the second half, and what share that is of TAESD's time for it. Bar: 5 %.

CPU seconds are those of all processes of the job, as /proc has them a few times a second.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from encode_memory import descendants
from machine import describe
from PIL import Image

from lvae.encode.autoencoder import multiply_adds
from lvae.encode.feeding.cores import cores
from lvae.encode.feeding.encoder import choose_batch
from lvae.encode.scenes.make import scene
from lvae.manifests.machine import keep_memory

RECORD = Path(__file__).with_suffix(".md")
DIFFERENT = 128  # JPEGs; the others are further names of them
TICKS = os.sysconf("SC_CLK_TCK")
PIXELS_PX, NETWORK_PX = 64, 256
SMALL_LARGE = {  # pictures of the two jobs
    "pixels": (3000, 15000),
    "pixels-f2": (3000, 15000),
    "taesd": (128, 512),
    "kl-f8": (32, 96),
}
MANY_PARTS, PARTS_AT_FIRST, IN_A_PART = 10_000, 2_000, 4
PARTS = 4  # of a worker in the small job, so that no worker waits for the last one
VIEW_SMALL_LARGE = (5_000, 25_000)
LATENTS = '{"kind": "tiny", "latent_channels": 4, "width": 1, "blocks": 1}'  # 4x32x32 of 256 px, for next to nothing


def fill(folder: Path, count: int) -> None:
    """JPEGs as of photographs, about 60 kB each."""
    random = np.random.default_rng(0)
    made = []
    for number in range(min(DIFFERENT, count)):
        pixels = np.asarray(scene(0, number, 512))[:375, :500].astype(np.int16)
        noisy = (pixels + random.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=88)
        made.append(folder / f"{number:06}.jpg")
        made[-1].write_bytes(buffer.getvalue())
    for number in range(len(made), count):
        (folder / f"{number:06}.jpg").hardlink_to(made[number % len(made)])


@dataclass(frozen=True)
class Taken:
    """Seconds of the clock and of processors until the last raw part was there, and the clock's until all was.

    driver, driver_whole: CPU seconds of the command's own process, until the last raw part and in all.
    """

    first_half: float
    cpu: float
    whole: float
    driver: float = 0.0
    driver_whole: float = 0.0


def job(source: str, dataset: Path, arguments: list[str], workers: int) -> Taken:
    command = [sys.executable, "-m", "lvae", "encode", source, str(dataset), *arguments, "--workers", str(workers)]
    start = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    spent: dict[int, float] = {}
    driver_whole = 0.0
    while process.poll() is None:
        time.sleep(0.2)
        driver_whole = max(driver_whole, cpu_seconds(process.pid))
        if (dataset / "shards").exists():
            continue
        for pid in descendants(process.pid):
            spent[pid] = max(spent.get(pid, 0.0), cpu_seconds(pid))
    if process.returncode:
        raise SystemExit(process.stderr.read().decode() if process.stderr else "failed")
    whole = time.time() - start
    parts = max(path.stat().st_mtime for path in (dataset / "raw").glob("*/part-*.json")) - start
    return Taken(parts, sum(spent.values()), whole, spent[process.pid], driver_whole)


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def bare(what: str, source: Path, count: int, workers: int) -> Taken:
    """So many pictures, spread over bare processes; their start does not count."""
    command = [sys.executable, __file__, "--bare", what, str(source), str(count // workers)]
    settings = {**os.environ, **keep_memory()}
    processes = [
        subprocess.Popen([*command, str(n)], env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(workers)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [float(process.communicate()[0]) for process in processes]
    seconds = time.perf_counter() - start
    return Taken(seconds, sum(answers), seconds)


def work_bare(what: str, source: Path, count: int, number: int) -> None:
    """One of the bare processes."""
    run = opening(source, count, number) if what.startswith("pixels") else forwards(what, count)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.process_time()
    run()
    print(time.process_time() - start)


def opening(source: Path, count: int, number: int) -> Callable[[], None]:
    from lvae.encode.crops import crop
    from lvae.encode.images import open_image

    paths = sorted(source.iterdir())[number * count : (number + 1) * count]

    def run() -> None:
        for path in paths:
            np.asarray(crop(open_image(path.read_bytes()), PIXELS_PX, "adm"))

    crop(open_image(paths[0].read_bytes()), PIXELS_PX, "adm")
    return run


def forwards(name: str, count: int) -> Callable[[], None]:
    import torch

    from lvae.encode.autoencoder import load

    torch.set_num_threads(1)
    network = load(name, "random:0").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = choose_batch(multiply_adds(network, NETWORK_PX), "cpu")
    images = torch.rand(batch, 3, NETWORK_PX, NETWORK_PX) * 2 - 1

    def run() -> None:
        with torch.inference_mode():
            for _ in range(count // batch):
                network.encode(images)

    with torch.inference_mode():
        network.encode(images[:1])
    return run


def compare(what: str, root: Path, rounds: int, workers: int) -> str:
    """A line of the table."""
    small, large = SMALL_LARGE[what]
    sources = {}
    for count in (small, large):
        sources[count] = root / f"{what}-{count}"
        sources[count].mkdir()
        fill(sources[count], count)
    arguments = ["--autoencoder", what, "--size", str(PIXELS_PX if what.startswith("pixels") else NETWORK_PX)]
    if not what.startswith("pixels"):
        arguments += ["--weights", "random:0", "--part-size", str(small // (PARTS * workers))]
    more, starts, ratios, cpu_ratios, clocks, bare_clocks = large - small, [], [], [], [], []
    for number in range(rounds):
        jobs = [job(str(sources[n]), root / f"{what}-{n}-{number}", arguments, workers) for n in (small, large)]
        alone = bare(what, sources[large], more, workers)
        clock, cpu = jobs[1].first_half - jobs[0].first_half, jobs[1].cpu - jobs[0].cpu
        starts.append(jobs[0].first_half - clock * small / more)
        ratios.append(clock / alone.first_half)
        cpu_ratios.append(cpu / alone.cpu)
        clocks.append(more / clock)
        bare_clocks.append(more / alone.first_half)
        print(what, number, jobs, alone, flush=True)
    median = statistics.median
    return (
        f"| {what} | {more} | {median(clocks):.2f} | {median(bare_clocks):.2f} | {median(ratios):.3f} "
        f"| {median(cpu_ratios):.3f} | {1 / median(cpu_ratios):.2f} | {median(starts):.1f} |"
    )


def view(root: Path, rounds: int, workers: int) -> str:
    """Of latents 4x32x32 of a network that costs nothing: the second half alone counts."""
    small, large = VIEW_SMALL_LARGE
    found = []
    for number in range(rounds):
        halves = []
        for count in (small, large):
            arguments = ["--autoencoder", LATENTS, "--weights", "random:0", "--size", "256", "--crop", "none"]
            taken = job(f"synthetic:{count}?size=256", root / f"view-{count}-{number}", arguments, workers)
            halves.append(taken.whole - taken.first_half)
        found.append((halves[1] - halves[0]) / (large - small))
        print("view", number, halves, flush=True)
    return f"Writing and verifying a view: {1e6 * statistics.median(found):.0f} µs a latent 4x32x32."


def many_parts(root: Path, workers: int) -> str:
    """Driver and clock of 10^4 parts of a few pictures each, without the start: the most that a part can cost."""
    taken = []
    for parts in (PARTS_AT_FIRST, MANY_PARTS):
        source = root / f"parts-{parts}"
        source.mkdir()
        fill(source, parts * IN_A_PART)
        arguments = ["--autoencoder", "pixels", "--size", str(PIXELS_PX), "--part-size", str(IN_A_PART)]
        taken.append(job(str(source), root / f"dataset-{parts}", arguments, workers))
        print("parts", taken[-1], flush=True)
    few, many = taken
    clock, driver = many.first_half - few.first_half, many.driver - few.driver
    rest = many.driver_whole - many.driver - (few.driver_whole - few.driver)
    more = MANY_PARTS - PARTS_AT_FIRST
    return (
        f"{more:,} parts of {IN_A_PART} pictures more: {clock:.0f} s until the last raw part, the driver's CPU "
        f"{driver:.1f} s, {driver / clock:.1%}; after that {rest:.1f} s, {1000 * rest / more:.1f} ms a part."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=f"{','.join(SMALL_LARGE)},parts,view")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--record", action="store_true", help="write pipeline_overhead.md")
    options = parser.parse_args()
    lines = [f"{describe()}, {options.workers} workers, load {os.getloadavg()[0]:.1f}", ""]
    lines += [
        "| | images | job, images/s | bare, images/s | time over bare | CPU over bare "
        "| rate over bare, by CPU | start, s |"
    ]
    lines += ["|" + "---|" * 8]
    with tempfile.TemporaryDirectory() as folder:
        cases = options.cases.split(",")
        lines += [compare(what, Path(folder), options.rounds, options.workers) for what in cases if what in SMALL_LARGE]
        if "view" in cases:
            lines += ["", view(Path(folder), options.rounds, options.workers)]
        if "parts" in cases:
            lines += ["", many_parts(Path(folder), options.workers)]
    lines += ["", f"Load at the end: {os.getloadavg()[0]:.1f}."]
    print("\n".join(lines))
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# What a job costs beside the work\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        work_bare(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
