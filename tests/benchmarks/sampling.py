"""Table 4's form: seconds per 1,000 samples, decoding apart, guided and not, beside the published sampler's arithmetic.

    python tests/benchmarks/sampling.py [--cases small:1,small:64,imagenet256-f8:1] [--rounds 3] [--threads 2]
        [--device cpu] [--precision float32] [--record]

The published sampler always carries the conditional and the unconditional path, each by calls of its own, guided or
not. It is written here over the same weights; both keep freed memory, as `lvae sample` does. A denoiser of equal cost
is one whose single pass takes what our generator's takes: 50 passes of the unguided (guided: twice as many) generator,
in the same latents. All in turns, at least --rounds of them and for some seconds. The weights are random ones of which
none is near zero, so that guidance moves the samples and the largest difference says something.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from machine import describe
from torch import Tensor
from train_step import flops_of, peak_flops

from lvae.encode.autoencoder import load
from lvae.manifests.machine import keep_freed_memory
from lvae.train.devices.device import Device, Precision
from lvae.train.devices.open import open_device
from lvae.train.model import HierarchicalVAE
from lvae.train.network.groups import StochasticGroup
from lvae.train.network.guidance import guide
from lvae.train.network.layers import Upsample
from lvae.train.network.noise import draw_noise
from lvae.train.presets import model_preset

RECORD = Path(__file__).with_suffix(".md")
GUIDANCE = (1.5, 3.0)
PASSES = 50
SECONDS, MOST_ROUNDS = 5.0, 200  # of each kind
DECODERS = (("default", None, 64), ("kl-f8", "random:0", 256))  # name, weights, pixels


def published(model: HierarchicalVAE, labels: Tensor, noise: list[Tensor], weights: tuple[float, float]) -> Tensor:
    """Both paths always, one call after the other."""
    count, drawn = len(labels), iter(noise)
    label, nobody = model._embed(model._classes(labels, count)), model._embed(model._classes(None, count))
    one = other = model._start(count, None)
    for layer, size in model._layers():
        if isinstance(layer, StochasticGroup):
            (prior, residual), (free, free_residual) = layer.prior(one, label), layer.prior(other, nobody)
            assert prior is not None and free is not None
            z = guide(prior, free, *weights).draw(next(drawn))
            one, other = layer.join(one, z, residual, label), layer.join(other, z, free_residual, nobody)
        elif isinstance(layer, Upsample):
            one, other = layer(one, size), layer(other, size)
        else:
            one, other = layer(one), layer(other)
    return model._observe(one)[0]


def lively(model: HierarchicalVAE) -> HierarchicalVAE:
    """A fresh model draws nearly the same samples with and without guidance."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.7 * (parameter[0].numel() if parameter.ndim > 1 else 10) ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def timed(run: Callable[[], object], device: Device) -> float:
    device.synchronize()
    start = time.perf_counter()
    run()
    device.synchronize()
    return time.perf_counter() - start


def compare(name: str, batch: int, rounds: int, device: Device, peak: float) -> list[str]:
    """Two rows of the table: unguided and guided."""
    config = replace(model_preset(name), hierarchical_prior=True, classes=model_preset(name).classes or 10)
    model = device.place(lively(HierarchicalVAE(config, 0))).eval().requires_grad_(False)
    labels = device.put(torch.arange(batch) % config.classes)
    noise = [device.put(values) for values in draw_noise(config, range(batch))]
    rows = []
    for what, weights in (("no", (0.0, 0.0)), ("yes", GUIDANCE)):

        def ours(weights: tuple[float, float] = weights) -> Tensor:
            with device.autocast():
                return model.sample(batch, labels, noise, 1.0, *weights)

        def theirs(weights: tuple[float, float] = weights) -> Tensor:
            with device.autocast(), torch.no_grad():
                return published(model, labels, noise, weights)

        difference = float((ours() - theirs()).abs().max() / theirs().abs().max())
        taken: dict[str, list[float]] = {"ours": [], "published": []}
        for _ in range(max(rounds, min(int(SECONDS / timed(theirs, device)), MOST_ROUNDS))):
            taken["ours"].append(timed(ours, device))
            taken["published"].append(timed(theirs, device))
        median = {which: statistics.median(times) for which, times in taken.items()}
        denoiser = timed(lambda: [ours() for _ in range(PASSES)], device) if batch * PASSES <= 64 else None
        shown = "not run" if denoiser is None else f"{1000 * denoiser / batch:.0f}"
        share = 100 * flops_of(ours) / median["ours"] / peak
        per_thousand = {which: 1000 * seconds / batch for which, seconds in median.items()}
        rows.append(
            f"| {name} | {batch} | {what} | {per_thousand['ours']:.1f} | {per_thousand['published']:.1f} "
            f"| {median['published'] / median['ours']:.2f} | {shown} | {share:.0f} % | {difference:.1e} |"
        )
        print(rows[-1], flush=True)
    return rows


def decoding(name: str, weights: str | None, size: int, rounds: int, device: Device) -> str:
    network = load(name, weights).to(device.torch_device)
    with torch.inference_mode():
        latents = network.encode(torch.rand(4, 3, size, size, device=device.torch_device) * 2 - 1)
        network.decode(latents[:1])
        found = [timed(lambda: [network.decode(one[None]) for one in latents], device) / 4 for _ in range(rounds)]
    return f"| {name} | {size} | {1000 * statistics.median(found):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="small:1,small:64,imagenet256-f8:1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--record", action="store_true", help="write sampling.md")
    options = parser.parse_args()
    precision: Precision = options.precision
    device = open_device(options.device, precision, threads=options.threads)
    if device.kind == "cpu":
        keep_freed_memory()
    peak = peak_flops(device)
    lines = [
        f"{describe()}, torch {torch.__version__}, {device}; matrix products reach {peak / 1e9:.0f} GFLOP/s",
        "",
        "Seconds per 1,000 samples, without decoding:",
        "",
        "| preset | batch | guided | ours | published | ratio | 50 passes of a denoiser of equal cost "
        "| share of peak, ours | largest difference |",
        "|" + "---|" * 9,
    ]
    for case in options.cases.split(","):
        name, _, batch = case.partition(":")
        lines += compare(name, int(batch), options.rounds, device, peak)
    lines += ["", "Seconds to decode 1,000:", "", "| autoencoder | pixels | seconds |", "|---|---|---|"]
    lines += [decoding(*decoder, options.rounds, device) for decoder in DECODERS]
    print("\n".join(lines))
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# Sampling\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
