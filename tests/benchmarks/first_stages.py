"""First stages of several architectures, each trained for the same CPU time, and what sharpening costs.

python tests/benchmarks/first_stages.py PHOTOS OUT [--seconds 60] [--only-classes A,B] [--record]

PHOTOS is a source of photographs; a tenth of them, by a hash of the key, is never trained on and is what is scored, at
128 px and at 256 px. OUT keeps the runs: the same command goes on with what is missing. The number of updates that fit
into the time is measured first. The second table starts from the shipped weights and goes on for a few updates
with each weight of the terms that sharpen.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe

from lvae.encode.autoencoder import build, load_file, multiply_adds
from lvae.encode.catalogue.architectures import parse_spec
from lvae.encode.catalogue.published import OURS
from lvae.encode.quality.fidelity import Pixels
from lvae.encode.quality.score import Score, score
from lvae.encode.sources.subset import choose
from lvae.encode.training.config import FitConfig
from lvae.encode.training.fit import FitOptions, Watcher, fit
from lvae.encode.training.trainer import Training
from lvae.manifests.records import plain
from lvae.train.devices.open import open_device

RECORD = Path(__file__).with_suffix(".md")
SHARE, SIZES = 0.1, (128, 256)
SETTINGS: dict[str, Any] = {"batch": 8, "validation": SHARE}
FINISHING: dict[str, Any] = SETTINGS | {"learning_rate": 3e-4, "warmup": 50, "decay": 1.0, "ema": 0.99}

TINY: dict[str, Any] = {"kind": "tiny", "latent_channels": 4, "width": 32, "blocks": 3, "patch": 2}
LDM: dict[str, Any] = {"kind": "kl", "latent_channels": 4, "width": 32, "blocks": 1, "middle_attention": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "tiny f=4 x 4 (default)": TINY | {"multipliers": [1, 2]},
    "tiny f=4 x 3": TINY | {"multipliers": [1, 2], "latent_channels": 3},
    "tiny f=4 x 4, full resolution": TINY | {"multipliers": [1, 1, 2], "patch": 1},
    "LDM f=4 x 4, KL": LDM | {"multipliers": [1, 2, 2]},
    "LDM f=4 x 4, VQ 1024": LDM | {"multipliers": [1, 2, 2], "kind": "vq", "codes": 1024},
    "tiny f=8 x 4": TINY | {"multipliers": [1, 2, 3]},
    "LDM f=8 x 4, KL": LDM | {"multipliers": [1, 2, 2, 2]},
    "tiny f=16 x 16": TINY | {"multipliers": [1, 2, 3, 3], "latent_channels": 16},
}
SHARPENING: tuple[dict[str, float], ...] = (
    {},
    {"contrast_weight": 0.25},
    {"contrast_weight": 0.5},
    {"contrast_weight": 1.0},
    {"contrast_weight": 2.0},
    {"contrast_weight": 4.0},
    {"adversarial_weight": 0.25, "discriminator_layers": 2},
)


def quiet(done: int, total: int) -> None:
    pass


def draw(pairs: Sequence[tuple[Pixels, Pixels]], title: str) -> bytes:
    return b""


def updates_within(seconds: float, config: FitConfig) -> int:
    """How many updates one thread makes in so much CPU time."""
    training = Training(config, open_device("cpu"), None, None)
    crops = torch.randint(0, 256, (config.batch, 3, config.size, config.size), dtype=torch.uint8)
    for step in range(3):
        training.update(crops, step)
    start, runs = time.process_time(), 12
    for step in range(runs):
        training.update(crops, step)
    return max(1, int(seconds * runs / (time.process_time() - start)))


def trained(source: str, out: Path, config: FitConfig, start: str | None = None) -> Path:
    watcher = Watcher(quiet, quiet, quiet_line, draw)
    fit(source, out, config, watcher, FitOptions(50, 500, 1_000_000, "cpu", 0, start=start))
    return out / "autoencoder.safetensors"


def quiet_line(text: str) -> None:
    pass


def scores(source: str, classes: tuple[str, ...] | None, weights: Path, name: str) -> list[Score]:
    chosen = choose(source, classes, None)
    return [score((name, load_file(weights)), chosen, size, share=SHARE, device="cpu")[0] for size in SIZES]


def kept(path: Path, make: Any) -> dict[str, Any]:
    """What an earlier run of this script found, or what is found now."""
    if not path.exists():
        path.write_text(json.dumps(make()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def variant(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    folder = arguments.out / name.replace(" ", "_").replace(",", "").replace("=", "")
    folder.mkdir(parents=True, exist_ok=True)
    base = FitConfig(as_stored(VARIANTS[name]), only_classes=arguments.classes, **SETTINGS)
    counted = kept(folder / "updates.json", lambda: {"updates": updates_within(arguments.seconds, base)})
    config = FitConfig(
        base.architecture, steps=counted["updates"], only_classes=arguments.classes, warmup=50, **SETTINGS
    )
    weights = trained(arguments.photos, folder, config)

    def measure() -> dict[str, Any]:
        near, far = scores(arguments.photos, arguments.classes, weights, name)
        with torch.device("meta"):
            network = build(config.architecture)
        cost = multiply_adds(network, 256) / 1e9
        parameters = sum(tensor.numel() for tensor in network.parameters())
        return {"near": plain(near), "far": plain(far), "cost": cost, "parameters": parameters}

    return kept(folder / "score.json", measure) | counted


def as_stored(architecture: dict[str, Any]) -> dict[str, Any]:
    """With every field written out, as a run keeps it."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(parse_spec(architecture)).items()}


def sharpened(terms: dict[str, float], arguments: argparse.Namespace) -> dict[str, Any]:
    name = "_".join(f"{key}{value:g}" for key, value in terms.items()) or "l1_alone"
    folder = arguments.out / "sharpening" / name
    folder.mkdir(parents=True, exist_ok=True)
    config = FitConfig(
        as_stored(VARIANTS["tiny f=4 x 4 (default)"]),
        steps=arguments.finishing,
        only_classes=arguments.classes,
        latent_noise=0.03,
        **FINISHING | terms,
    )
    weights = trained(arguments.photos, folder, config, str(arguments.start))
    return kept(folder / "score.json", lambda: plain(scores(arguments.photos, arguments.classes, weights, name)[0]))


def variant_row(name: str, found: dict[str, Any]) -> str:
    near, far = found["near"], found["far"]
    kurtosis = max(abs(channel["excess_kurtosis"]) for channel in near["channels"])
    dead = sum(not channel["active"] for channel in near["channels"])
    return (
        f"| {name} | {found['parameters'] / 1e6:.2f} M | {found['cost']:.1f} | {found['updates']} | "
        f"{near['psnr_db']:.2f} | {near['linear_psnr_db']:.2f} | {near['psnr_db'] - near['linear_psnr_db']:+.2f} | "
        f"{near['ssim']:.3f} | {near['detail_kept']:.3f} | {far['psnr_db']:.2f} | {kurtosis:.1f} | {dead} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="CPU time for each architecture")
    parser.add_argument("--finishing", type=int, default=600, help="updates with each weight of what sharpens")
    parser.add_argument("--start", type=Path, default=OURS, help="weights from which sharpening starts")
    parser.add_argument("--only-classes", dest="classes", type=lambda text: tuple(text.split(",")))
    parser.add_argument(
        "--only", choices=["architectures", "sharpening"], help="one table: two processes share the work"
    )
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    architectures = () if arguments.only == "sharpening" else tuple(VARIANTS)
    first = [variant_row(name, variant(name, arguments)) for name in architectures]
    second = []
    for terms in () if arguments.only == "architectures" else SHARPENING:
        found = sharpened(terms, arguments)
        label = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in terms.items()) or "L1 alone"
        second.append(f"| {label} | {found['psnr_db']:.2f} | {found['ssim']:.3f} | {found['detail_kept']:.3f} |")
    lines = [
        describe(),
        "",
        f"{arguments.seconds:.0f} s of CPU time each on one thread, batch {SETTINGS['batch']}, crops of 64 px, L1 and "
        "the bottleneck's term alone. PSNR is a mean over photographs that were never trained on.",
        "",
        "| first stage | parameters | encoder at 256 px, GMAC | updates | PSNR at 128 px | linear code | gain | SSIM | "
        "detail kept | PSNR at 256 px | largest kurtosis | dead channels |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *first,
        "",
        f"From `{arguments.start.name}`, {arguments.finishing} more updates with each, at 128 px:",
        "",
        "| term | PSNR | SSIM | detail kept |",
        "|---|---|---|---|",
        *second,
    ]
    print("\n".join(lines))
    if arguments.record:
        RECORD.write_text("# First stages compared\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
