"""Everything that the documentation claims of GPUs, measured by one command in less than eight minutes, as one record.

    python tests/benchmarks/gpu.py --record
    python tests/benchmarks/gpu.py --device cpu --tiny      # in seconds, as the test suite runs it

A section each: encoding by precision, batch and compiled or not; what a precision rounds, beside the CPU's float32;
encoding a dataset of JPEGs; training steps; sampling; decoding. Weights are random ones. A section that fails says so
in the record, the others go on, and the command ends with an error.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from latent_error import error
from machine import describe
from numpy.typing import NDArray
from pipeline_overhead import fill
from reckoning import count_flop
from train_step import batch_of

from lvae.encode.autoencoder import load
from lvae.encode.feeding.cores import cores
from lvae.encode.feeding.encoder import Encoder
from lvae.encode.feeding.openers import choose_opener
from lvae.encode.feeding.opening import Images
from lvae.encode.feeding.settings import PREFETCH
from lvae.encode.part import encode_parts
from lvae.encode.scenes.make import scene
from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings, Precision, read_plan
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.planning.existing import Existing
from lvae.pipeline.planning.plan import EncodeOptions, prepare
from lvae.pipeline.planning.scan import ScanOptions
from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.devices.open import open_device
from lvae.train.loop.replay import WARM_UP, Replay
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import draw_noise
from lvae.train.presets import preset

RECORD = Path(__file__).with_suffix(".md")
MINUTES = 8.0


@dataclass(frozen=True)
class Sizes:
    """How large everything is. seconds: of one measurement. compared: images whose latents the CPU computes as well."""

    autoencoder: str
    pixels: int
    batches: tuple[int, ...]
    seconds: float
    compared: int
    jpegs: int
    presets: tuple[tuple[str, int], ...]
    samples: int


FULL = Sizes("kl-f8", 256, (32, 64, 128), 3.0, 8, 20_000, (("imagenet256-f8", 32), ("church256-f8", 32)), 64)
TINY_NETWORK = '{"kind": "tiny", "latent_channels": 4, "width": 4, "blocks": 1}'
TINY = Sizes(TINY_NETWORK, 32, (2,), 0.0, 2, 5, (("tiny", 2),), 2)


@dataclass(frozen=True)
class Bench:
    """A device, and how much of everything."""

    device: str
    sizes: Sizes

    @property
    def gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def precisions(self) -> tuple[Precision, ...]:
        return ("float32", "tf32", "bfloat16") if self.gpu else ("float32", "bfloat16")

    def synchronize(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def rate(self, work: Callable[[], object], items: int, warm: int = 2) -> float:
        """Items a second of work that is repeated."""
        for _ in range(warm):
            work()
        self.synchronize()
        start, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - start < self.sizes.seconds:
            work()
            done += items
        self.synchronize()
        return done / (time.perf_counter() - start)

    def memory(self) -> str:
        """The most that was taken since it was last asked."""
        if not self.gpu:
            return "-"
        most = torch.cuda.max_memory_allocated(self.device) / (1 << 30)
        torch.cuda.reset_peak_memory_stats(self.device)
        torch.cuda.empty_cache()
        return f"{most:.1f} GiB"

    def encoder(self, precision: Precision, batch: int, compiled: bool = False) -> Encoder:
        network = load(self.sizes.autoencoder, "random:0")
        record = AutoencoderRecord(
            network.name,
            network.architecture,
            "0" * 64,
            network.downsampling_factor,
            network.latent_channels,
            "mode",
        )
        image = ImageSettings(self.sizes.pixels, "none", "none", False, (-1.0, 1.0))
        return Encoder(Encoding(image, record, 0, batch, precision, 1), network, self.device, compiled)

    def pictures(self, number: int) -> list[NDArray[np.uint8]]:
        return [np.asarray(scene(0, n % 64, self.sizes.pixels)) for n in range(number)]


def encode(bench: Bench) -> list[str]:
    """The network with its copies, from pictures in memory to latents in memory."""
    lines = ["| precision | batch | compiled | images/s | memory |", "|---|---|---|---|---|"]
    for precision in bench.precisions:
        for batch, compiled in [(size, False) for size in bench.sizes.batches] + [(bench.sizes.batches[0], bench.gpu)]:
            encoder = bench.encoder(precision, batch, compiled)
            pictures, keys = bench.pictures(batch), [""] * batch
            waiting = deque([encoder.submit(pictures, keys) for _ in range(encoder.in_flight - 1)])

            def work(
                encoder: Encoder = encoder,
                pictures: Sequence[NDArray[np.uint8]] = pictures,
                keys: list[str] = keys,
                waiting: deque = waiting,  # type: ignore[type-arg]
            ) -> None:
                waiting.append(encoder.submit(pictures, keys))
                waiting.popleft().result()

            rate = bench.rate(work, batch, warm=3)
            for pending in waiting:
                pending.result()
            lines.append(f"| {precision} | {batch} | {'yes' if compiled else 'no'} | {rate:.0f} | {bench.memory()} |")
    return lines


def compare_latents(bench: Bench) -> list[str]:
    """Against float32 of the CPU, in units of the latents' deviation."""
    number = bench.sizes.compared
    pictures, keys = bench.pictures(number), [""] * number
    right = torch.from_numpy(replace(bench, device="cpu").encoder("float32", number).encode(pictures, keys)[:, 0])
    lines = ["| precision | error, deviations | largest channel |", "|---|---|---|"]
    for precision in bench.precisions:
        found = torch.from_numpy(bench.encoder(precision, number).encode(pictures, keys)[:, 0])
        mean, largest = error(found, right)
        lines.append(f"| {precision} | {mean:.6f} | {largest:.6f} |")
    return lines


def feed(bench: Bench) -> list[str]:
    """A dataset from JPEGs of 500 x 375, by one worker with all cores."""
    sizes = bench.sizes
    with tempfile.TemporaryDirectory() as place:
        source, dataset = Path(place) / "pictures", Folder(Path(place) / "dataset")
        source.mkdir()
        fill(source, sizes.jpegs)
        precision: Precision = "tf32" if bench.gpu else "float32"
        options = EncodeOptions(
            sizes.autoencoder,
            "random:0",
            size=sizes.pixels,
            batch=sizes.batches[0],
            precision=precision,
            device=bench.device,
            scan=ScanOptions(part_size=max(sizes.jpegs // 5, 1)),
        )
        plan = prepare(dataset, Existing(), str(source), options, lambda _: None)
        assert read_plan(dataset) == plan
        encoder = bench.encoder(precision, sizes.batches[0])
        opener = choose_opener(Images.of(plan), cores() if bench.gpu else 0, PREFETCH * encoder.batch)
        receipts = encode_parts(dataset, plan, range(plan.listing.parts), encoder, opener)
        moments = [time.perf_counter() for _ in receipts]
        parts = [plan.listing.place(part).rows for part in range(1, plan.listing.parts)]
        rate = sum(parts) / (moments[-1] - moments[0])  # the first part's time has the start of processes in it
    return [f"{rate:.0f} images/s with {cores()} cores, {precision}, batch {encoder.batch}, {len(parts) + 1} parts."]


def train(bench: Bench) -> list[str]:
    """Updates of two micro-batches, as `lvae train` makes them: the same in every row, so that losses say who errs."""
    lines = [
        "| preset | micro-batch | precision | compiled | CUDA graph | first update, s | step, s | images/s | TFLOP/s "
        "| loss, nats | memory |",
        "|" + "---|" * 11,
    ]
    for name, size in bench.sizes.presets:
        found = preset(name)
        training = replace(found.training, batch=size, accumulate=2)
        hows = (("float32", False), ("tf32", False), ("bfloat16", False), ("bfloat16", True))
        flops = count_flop(found, 2) - count_flop(found, 1)
        lines += [
            f"| {name} {train_one(bench, found.model, training, how, flops)}"
            for how in (hows if bench.gpu else (("float32", False), ("bfloat16", False)))
        ]
    return lines


def train_one(bench: Bench, model: ModelConfig, training: TrainConfig, how: tuple[str, bool], flops: float) -> str:
    precision, compiled = how
    device = open_device(bench.device.split(":")[0], precision, compiled)  # type: ignore[arg-type]
    updater = Updater(HierarchicalVAE(model, 0), replace(training, precision=device.precision), device)
    micro_batch = batch_of(model, training.batch, device)
    times = []
    for _ in range(WARM_UP + 1 + (10 if bench.gpu else 1)):
        bench.synchronize()
        start = time.perf_counter()
        updater([micro_batch] * training.accumulate)
        bench.synchronize()
        times.append(time.perf_counter() - start)
    taken = statistics.median(times[WARM_UP + 1 :])
    counts = updater.read_counts()
    loss, rate = float(counts["sums"][0] / counts["summed"]), training.update_size / taken
    recorded = isinstance(updater._pass, Replay) and updater._pass.is_recorded
    return (
        f"| {training.batch} | {precision} | {'yes' if compiled else 'no'} | {'yes' if recorded else 'no'} "
        f"| {times[0]:.1f} | {taken:.3f} | {rate:.1f} | {flops * rate / 1e12:.2f} | {loss:.1f} | {bench.memory()} |"
    )


def sample(bench: Bench) -> list[str]:
    """Latents of a model's prior, guided and not."""
    lines = ["| preset | batch | guided | samples/s | memory |", "|---|---|---|---|---|"]
    for name, _ in bench.sizes.presets:
        config, number = preset(name).model, bench.sizes.samples
        model = HierarchicalVAE(config, 0).to(bench.device).eval()
        labels = torch.arange(number, device=bench.device) % config.classes if config.classes else None
        noise = [drawn.to(bench.device) for drawn in draw_noise(config, list(range(number)))]
        for weight in (0.0, 1.5) if config.classes else (0.0,):
            with torch.inference_mode():
                work = partial(model.sample, number, labels=labels, noise=noise, guidance_mean=weight)
                rate = bench.rate(work, number)
            lines.append(f"| {name} | {number} | {'yes' if weight else 'no'} | {rate:.1f} | {bench.memory()} |")
    return lines


def decode(bench: Bench) -> list[str]:
    """Latents to pictures."""
    lines = ["| precision | batch | pictures/s | memory |", "|---|---|---|---|"]
    network = load(bench.sizes.autoencoder, "random:0").to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side, batch = bench.sizes.pixels // network.downsampling_factor, bench.sizes.batches[0]
    latents = torch.randn(batch, network.latent_channels, side, side).to(bench.device)
    for precision in bench.precisions:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        half = precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(bench.device.split(":")[0], torch.bfloat16, enabled=half):
            rate = bench.rate(partial(network.decode, latents), batch)
        lines.append(f"| {precision} | {batch} | {rate:.1f} | {bench.memory()} |")
    return lines


SECTIONS = {
    "Encoding": encode,
    "What a precision rounds": compare_latents,
    "From JPEGs": feed,
    "Training": train,
    "Sampling": sample,
    "Decoding": decode,
}


def measure(bench: Bench, names: Sequence[str], tell: Callable[[str], None]) -> int:
    """Tell of every section as it is done, each within the time that is left; how many failed."""
    failed, end = 0, time.monotonic() + 60 * MINUTES
    for number, name in zip(count(1), names, strict=False):
        if time.monotonic() > end:
            tell(f"\n## {name}\n\nNot measured: the {MINUTES:.0f} minutes were over.\n")
            continue
        start = time.monotonic()
        try:
            lines = SECTIONS[name](bench)
        except Exception:  # the others are worth having
            failed += 1
            lines = ["Failed:", "", "```", *traceback.format_exc().splitlines(), "```"]
        seconds = time.monotonic() - start
        tell("\n".join([f"\n## {name}", "", SECTIONS[name].__doc__ or "", "", *lines, "", f"({seconds:.0f} s)"]))
        print(f"{number} of {len(names)}: {name}, {seconds:.0f} s", file=sys.stderr, flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that it runs")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--record", action="store_true", help="write gpu.md")
    parser.add_argument("--out", type=Path, help="write the record there")
    options = parser.parse_args(arguments)
    bench = Bench(options.device, TINY if options.tiny else FULL)
    named = torch.cuda.get_device_name(options.device) if bench.gpu else "no GPU"
    about = f"{describe()}, {named}, torch {torch.__version__}, {cores()} cores, load {os.getloadavg()[0]:.1f}"
    told = [f"# What a GPU does\n\n{about}"]
    out = options.out or (RECORD if options.record else None)

    def tell(text: str) -> None:
        told.append(text)
        print(text, flush=True)
        if out is not None:
            out.write_text("\n".join(told) + "\n")

    failed = measure(bench, options.sections.split(","), tell)
    if failed:
        raise SystemExit(f"{failed} sections failed")


if __name__ == "__main__":
    main()
