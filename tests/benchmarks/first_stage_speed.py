"""Pictures a second that first stages encode and decode at 256 px, side by side on one thread.

python tests/benchmarks/first_stage_speed.py [--names default,taesd,kl-f8] [--record]
"""

import argparse
import time
from pathlib import Path

import torch
from machine import describe

from lvae.encode.autoencoder import load, multiply_adds

RECORD = Path(__file__).with_suffix(".md")
SIZE, SECONDS, ROUNDS = 256, 4.0, 3


def rate(network: torch.nn.Module, function: str, argument: torch.Tensor) -> float:
    """Calls a second: the best of a few rounds, since others may use the machine."""
    run = getattr(network, function)
    with torch.inference_mode():
        run(argument)
        best = 0.0
        for _ in range(ROUNDS):
            start, calls = time.process_time(), 0
            while time.process_time() - start < SECONDS:
                run(argument)
                calls += 1
            best = max(best, calls / (time.process_time() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", default="default,taesd,kl-f8")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    picture = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rates = {}
    rows = []
    for name in arguments.names.split(","):
        network = load(name, None if name == "default" else "random:0")
        with torch.inference_mode():
            latent = network.encode(picture)
        rates[name] = rate(network, "encode", picture), rate(network, "decode", latent)
        cost = multiply_adds(network, SIZE) / 1e9
        parameters = sum(tensor.numel() for tensor in network.parameters()) / 1e6
        rows.append(f"| {name} | {parameters:.1f} M | {cost:.1f} | {rates[name][0]:.2f} | {rates[name][1]:.2f} |")
    slowest = rates["kl-f8"]
    times = [f"{name} {rates[name][0] / slowest[0]:.0f} x and {rates[name][1] / slowest[1]:.0f} x" for name in rates]
    lines = [
        describe(),
        "",
        f"One picture of {SIZE} px at a time, one thread, best of {ROUNDS} rounds of {SECONDS:.0f} s of CPU time.",
        "",
        "| name | parameters | encoder, giga multiply-adds | encoded/s | decoded/s |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Against kl-f8, encoding and decoding: {', '.join(times)}.",
    ]
    print("\n".join(lines))
    if arguments.record:
        RECORD.write_text("# Speed of first stages\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
