"""Sections on speed and on where everything came from."""

import platform
import time
from dataclasses import replace
from typing import Any

import numpy as np
import scipy
import torch
from PIL import __version__ as pillow_version

from lvae.evaluate.analysis.sweep_figures import describe_setting
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.report.cache import load_or_make
from lvae.evaluate.report.inputs import UNGUIDED, ReportInputs
from lvae.evaluate.report.page import Block, Facts, Numbers, Paragraph, Section, Subtitle, WithCaption
from lvae.evaluate.samples.draw import draw
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.messages import counted
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device
from lvae.train.runs.run import CONFIG

TIMED = 64  # samples drawn, and a quarter of them decoded, to measure the speed


def show_throughput(inputs: ReportInputs, device: Device) -> Section:
    def make() -> dict[str, Any]:
        return _measure_speed(inputs, device)

    key = {"device": device.describe(), "threads": torch.get_num_threads(), "batch": inputs.options.batch}
    kept = load_or_make(inputs.cache, "throughput", key, make)
    rows = [("drawing, no guidance", [f"{kept['unguided']:.1f} s"], False)]
    if "guided" in kept:
        rows.append(("drawing, guided", [f"{kept['guided']:.1f} s"], False))
    rows.append(("decoding to pixels", [f"{kept['decoding']:.1f} s"], False))
    speeds = [line["images_per_second"] for line in inputs.log if line.get("images_per_second")]
    waits = [line["data_wait_share"] for line in inputs.log if line.get("data_wait_share") is not None]
    blocks: list[Block] = []
    if speeds:
        share = f", {np.median(waits):.1%} of the time waiting for data" if waits else ""
        words = f"Training went at {np.median(speeds):,.1f} latents a second (median of the log){share}."
        blocks.append(Paragraph(words))
    caption = (
        f"Measured while this page was made: {kept['timed']} samples in batches of {kept['batch']}, "
        f"{counted(kept['decoded'], 'picture')} decoded, on {kept['device']}. Other work on "
        "the machine makes it slower."
    )
    made_by = f"lvae sample {inputs.run} samples -n 1000"
    blocks.append(WithCaption(Numbers("Seconds", ["seconds for 1,000 samples"], rows), caption, made_by))
    return Section("throughput", "Throughput", blocks)


def _measure_speed(inputs: ReportInputs, device: Device) -> dict[str, Any]:
    """Seconds for 1,000 samples; the first batch, not measured, warms up."""
    prepared, options = inputs.prepared, inputs.options
    device.place(prepared.model)
    batch, levels = min(options.batch, TIMED), len(inputs.config.model.groups)
    rounds = [[(first + i) % options.count for i in range(batch)] for first in range(0, TIMED, batch)]
    found = dict[str, Any]()
    latents = np.empty(0, np.float32)
    for name, weight in {"unguided": 0.0, **({"guided": 1.5} if inputs.guidable else {})}.items():
        guided = replace(prepared.plan, guidance_mean=(weight,) * levels, guidance_variance=(weight,) * levels)
        own = replace(prepared, plan=guided)
        draw(own, rounds[0], device, batch)
        start = time.perf_counter()
        for indices in rounds:
            latents = draw(own, indices, device, batch)
        found[name] = (time.perf_counter() - start) / (len(rounds) * batch) * 1000
    some = prepared.plan.normalization.denormalize(latents[: max(1, TIMED // 4)])
    start = time.perf_counter()
    decode(inputs.network, some)
    found["decoding"] = (time.perf_counter() - start) / len(some) * 1000
    return found | {
        "timed": len(rounds) * batch,
        "decoded": len(some),
        "batch": batch,
        "device": device.describe(),
        "threads": torch.get_num_threads(),
    }


def show_provenance(inputs: ReportInputs) -> Section:
    """Checksums of everything that decided what the page shows, and the programs that made it."""
    config, folder = inputs.config, Folder(inputs.run)
    record = config.dataset
    rows = [
        ("dataset id", record.id),
        ("autoencoder weights", record.autoencoder.weights_sha256 or "none: pixels"),
        (CONFIG, folder.sha256(CONFIG)),
        *((f"step-{inputs.step:08d}/{name}", sha256) for name, sha256 in sorted(inputs.checkpoint.items())),
    ]
    if config.init is not None:
        rows.append(("begun with weights", config.init))
    settings = (UNGUIDED, inputs.best) if inputs.guidable else (UNGUIDED,)
    rows += [(f"samples, {describe_setting(setting)}", inputs.samples_of(setting).manifest.id) for setting in settings]
    made = [
        ("trained by", config.written_by),
        ("page by", WRITTEN_BY),
        ("Python", platform.python_version()),
        ("torch", torch.__version__),
        ("numpy, scipy, Pillow", f"{np.__version__}, {scipy.__version__}, {pillow_version}"),
    ]
    check = f"lvae verify --deep {inputs.dataset_name}"
    train = f"lvae train {inputs.dataset_name} {inputs.run}"
    words = "The run goes on, or proves to be finished, with the same command; its settings lie in config.json."
    blocks: list[Block] = [
        WithCaption(Facts("Checksums", rows, mono=True), "SHA-256. A dataset checks its own bytes:", check),
        Subtitle("Programs"),
        Facts("Programs", made),
        WithCaption(None, words, train),
    ]
    return Section("provenance", "Provenance", blocks)
