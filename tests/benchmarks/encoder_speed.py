"""Our encoder beside diffusers', with equal random weights, in turns, in one run.

    python tests/benchmarks/encoder_speed.py [--names kl-f8,kl-f4,taesd] [--rounds 7] [--record]

1. One thread each, with the allocator's settings of our workers for all, one picture of 256 px at a time; also
   diffusers on one thread with the allocator as it is, which no number of threads can make cheaper.
2. The whole machine: diffusers as a user starts it (torch's threads, the system's allocator), against as many of our
   one-thread workers as there are cores, with their settings. The better of diffusers' batches of 1 and 4 counts.
3. Errors against the same network in float64, and where the time goes.

Ratios are medians over rounds in which everybody has a turn, of seconds of the clock and of the processor: other work
on the machine slows neighbours in time alike. On our side pixels to latents as float32 arrays is what is timed, on
theirs the forward pass and the same scaling of pixels.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lvae.encode.autoencoder import load
from lvae.encode.feeding.cores import cores
from lvae.encode.feeding.encoder import Encoder
from lvae.manifests.machine import keep_memory
from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings

RECORD = Path(__file__).with_suffix(".md")
SIZE = 256
WEIGHTS = "random:1"
PARTS = {
    "convolutions": ("conv",),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "norms": ("norm",),
    "activations": ("silu", "relu", "clamp"),
    "attention": ("attention",),
    "copies and zeros": ("copy_", "fill_", "zero_", "cat"),
    "sums": ("aten::add",),
}

Taken = tuple[float, float, float]


def pixels(count: int) -> Any:
    return torch.randint(0, 256, (count, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()


def scaled(count: int) -> torch.Tensor:
    return torch.from_numpy(pixels(count)).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def ours(name: str, precision: Any) -> Callable[[int], Any]:
    network = load(name, WEIGHTS)
    record = AutoencoderRecord(
        name, network.architecture, "0" * 64, network.downsampling_factor, network.latent_channels, "mode"
    )
    image = ImageSettings(SIZE, "adm", "", False, (-1.0, 1.0))
    encoder = Encoder(Encoding(image, record, 0, 1, precision, 1), network)
    return lambda count: encoder.encode(pixels(count), ["key"] * count)[:, 0]


def theirs(name: str) -> Callable[[int], Any]:
    network = load(name, WEIGHTS)
    if name == "taesd":
        import diffusers

        tiny = diffusers.AutoencoderTiny(latent_channels=network.latent_channels).eval().requires_grad_(False)
        tiny.load_state_dict(network.state_dict())
        return lambda count: tiny.encode(scaled(count)).latents
    from test_ldm import twin

    model = twin(network)
    return lambda count: model.encode(scaled(count)).latent_dist.mode()


CONTESTANTS: dict[str, Callable[[str], Callable[[int], Any]]] = {
    "diffusers": theirs,
    "ours": lambda name: ours(name, "float32"),
    "ours, winograd": lambda name: ours(name, "winograd"),
}


# --- a process that encodes when it is told to ----------------------------------------------------------------------


def serve(contestant: str, name: str, threads: int) -> None:
    """`COUNT` on stdin: so many pictures in one batch; answers seconds of the clock and of the processor."""
    encode = CONTESTANTS[contestant](name)
    torch.set_num_threads(threads or torch.get_num_threads())
    with torch.inference_mode():
        encode(1)
        for line in sys.stdin:
            start, cpu = time.perf_counter(), time.process_time()
            encode(int(line))
            taken = [time.perf_counter() - start, time.process_time() - cpu]
            print(json.dumps([*taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


class Server:
    """Such a process. threads: 0 leaves torch's own number."""

    def __init__(self, contestant: str, name: str, threads: int, settings: dict[str, str]):
        command = [sys.executable, __file__, "--serve", contestant, name, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
        )
        self.ask(1)
        self.answer()

    def ask(self, count: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()

    def answer(self) -> Taken:
        """Seconds of the clock, of the processor, MiB of memory at most."""
        assert self._process.stdout
        return tuple(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def one_thread(name: str, rounds: int) -> list[str]:
    servers = {contestant: Server(contestant, name, 1, keep_memory()) for contestant in CONTESTANTS}
    servers["diffusers, system's allocator"] = Server("diffusers", name, 1, {})
    taken: dict[str, list[Taken]] = {contestant: [] for contestant in servers}
    for _ in range(rounds):
        for contestant, server in servers.items():
            server.ask(1)
            taken[contestant].append(server.answer())
    for server in servers.values():
        server.close()
    base = taken["diffusers"]
    return [
        f"| {name} | {contestant} | {middle(t[0] for t in times):.3f} | {middle(t[1] for t in times):.3f} "
        f"| {ratio(base, times, 0):.2f} | {ratio(base, times, 1):.2f} | {max(t[2] for t in times):.0f} |"
        for contestant, times in taken.items()
    ]


def whole_machine(name: str, rounds: int) -> list[str]:
    """Seconds of the clock and of the processor for each picture."""
    workers = cores()
    single = Server("diffusers", name, 0, {})
    groups = {
        contestant: [Server(contestant, name, 1, keep_memory()) for _ in range(workers)]
        for contestant in CONTESTANTS
        if contestant != "diffusers"
    }
    taken: dict[str, list[Taken]] = {"diffusers, batch 1": [], "diffusers, batch 4": [], **{c: [] for c in groups}}
    for _ in range(rounds):
        for batch in (1, 4):
            answers = []
            for _ in range(4 // batch):
                single.ask(batch)
                answers.append(single.answer())
            taken[f"diffusers, batch {batch}"].append(
                (sum(a[0] for a in answers) / 4, sum(a[1] for a in answers) / 4, 0)
            )
        for contestant, servers in groups.items():
            for server in servers:
                server.ask(4)
            answers = [server.answer() for server in servers]
            pictures = 4 * workers
            taken[contestant].append((max(a[0] for a in answers) / pictures, sum(a[1] for a in answers) / pictures, 0))
    for server in [single, *(server for servers in groups.values() for server in servers)]:
        server.close()
    base = min(
        (taken["diffusers, batch 1"], taken["diffusers, batch 4"]), key=lambda times: middle(t[0] for t in times)
    )
    return [
        f"| {name} | {contestant} | {1 / middle(t[0] for t in times):.2f} | {middle(t[1] for t in times):.3f} "
        f"| {ratio(base, times, 0):.2f} | {ratio(base, times, 1):.2f} |"
        for contestant, times in taken.items()
    ]


def middle(values: Iterable[float]) -> float:
    return statistics.median(values)


def ratio(base: list[Taken], times: list[Taken], which: int) -> float:
    """The median over rounds of how much faster."""
    return statistics.median(b[which] / t[which] for b, t in zip(base, times, strict=True))


# --- errors, shares -------------------------------------------------------------------------------------------------


def errors(name: str) -> list[str]:
    """Of all contestants' latents against float64, over the latents' deviation from their channels' means."""
    exact = load(name, WEIGHTS).double().encode(scaled(1).double())
    deviation = (exact - exact.mean((2, 3), keepdim=True)).std()
    lines = []
    for contestant, make in CONTESTANTS.items():
        found = torch.as_tensor(make(name)(1))
        error = (found.double() - exact) / deviation
        lines.append(f"| {name} | {contestant} | {error.square().mean().sqrt():.1e} | {error.abs().max():.1e} |")
    return lines


def shares(name: str) -> list[str]:
    """Per cent of the time, by kind of operation; the best of three profiles."""
    from torch.profiler import ProfilerActivity, profile

    lines = []
    for contestant, make in CONTESTANTS.items():
        encode = make(name)
        encode(1)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            encode(1)
        events = profiled.key_averages()
        total = sum(event.self_cpu_time_total for event in events)
        found = dict.fromkeys([*PARTS, "rest"], 0.0)
        for event in events:
            part = next((part for part, words in PARTS.items() if any(word in event.key for word in words)), "rest")
            found[part] += 100 * event.self_cpu_time_total / total
        lines.append(f"| {name} | {contestant} | " + " | ".join(f"{share:.1f}" for share in found.values()) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default="kl-f8,kl-f4,taesd")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--record", action="store_true", help="write encoder_speed.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"{describe()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}", ""]
    lines += ["One thread, our allocator's settings for both:", ""]
    lines += ["| network | | s/image | CPU s/image | speed, clock | speed, CPU | peak MiB |", "|" + "---|" * 7]
    names = options.names.split(",")
    for name in names:
        lines += one_thread(name, options.rounds)
    lines += ["", f"The whole machine ({cores()} cores), diffusers as a user starts it:", ""]
    lines += ["| network | | images/s | CPU s/image | speed, clock | speed, CPU |", "|" + "---|" * 6]
    for name in names:
        lines += whole_machine(name, options.rounds)
    lines += ["", "Errors against float64, in units of the latents' deviation:", ""]
    lines += ["| network | | root mean square | largest |", "|" + "---|" * 4]
    with torch.inference_mode():
        for name in names:
            lines += errors(name)
        lines += ["", "Shares of the time, per cent:", ""]
        lines += [f"| network | | {' | '.join(PARTS)} | rest |", "|" + "---|" * (len(PARTS) + 3)]
        for name in names:
            lines += shares(name)
    lines += ["", f"Load at the end: {os.getloadavg()[0]:.1f}."]
    print("\n".join(lines))
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# Speed of the encoder\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
