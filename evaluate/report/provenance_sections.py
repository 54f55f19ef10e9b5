"""Sections on speed and on where everything came from."""

import platform
import time
from dataclasses import replace
from typing import Any

import numpy as np
import scipy
import torch
from PIL import __version__ as pillow_version

from lvae.evaluate.analysis.sweep_figures import setting_in_words
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.report.cache import remembered
from lvae.evaluate.report.html import Section, facts, figure, numbers, paragraph, subtitle
from lvae.evaluate.report.inputs import UNGUIDED, Subject
from lvae.evaluate.samples.draw import draw
from lvae.manifests.dataset import Dataset
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.messages import counted
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device
from lvae.train.runs.run import CONFIG

TIMED = 64  # samples drawn, and a quarter of them decoded, to measure the speed


def throughput_section(subject: Subject, device: Device) -> Section:
    def make() -> dict[str, Any]:
        return _measured(subject, device)

    key = {"device": device.describe(), "threads": torch.get_num_threads(), "batch": subject.options.batch}
    kept = remembered(subject.kept, "throughput", key, make)
    rows = [("drawing, no guidance", [f"{kept['unguided']:.1f} s"], "")]
    if "guided" in kept:
        rows.append(("drawing, guided", [f"{kept['guided']:.1f} s"], ""))
    rows.append(("decoding to pixels", [f"{kept['decoding']:.1f} s"], ""))
    speeds = [line["images_per_second"] for line in subject.log if line.get("images_per_second")]
    waits = [line["data_wait_share"] for line in subject.log if line.get("data_wait_share") is not None]
    body = ""
    if speeds:
        share = f", {np.median(waits):.1%} of the time waiting for data" if waits else ""
        body += paragraph(f"Training went at {np.median(speeds):,.1f} latents a second (median of the log){share}.")
    caption = (
        f"Measured while this page was made: {kept['timed']} samples in batches of {kept['batch']}, "
        f"{counted(kept['decoded'], 'picture')} decoded, on {kept['device']}. Other work on "
        "the machine makes it slower."
    )
    made_by = f"lvae sample {subject.run} samples -n 1000"
    table = numbers("Seconds", ["seconds for 1,000 samples"], rows)
    return Section("throughput", "Throughput", body + figure(table, caption, made_by))


def _measured(subject: Subject, device: Device) -> dict[str, Any]:
    """Seconds for 1,000 samples; the first batch, not measured, warms up."""
    prepared, options = subject.prepared, subject.options
    device.place(prepared.model)
    batch, levels = min(options.batch, TIMED), len(subject.config.model.groups)
    rounds = [[(first + i) % options.count for i in range(batch)] for first in range(0, TIMED, batch)]
    found = dict[str, Any]()
    latents = np.empty(0, np.float32)
    for name, weight in {"unguided": 0.0, **({"guided": 1.5} if subject.guidable else {})}.items():
        guided = replace(prepared.plan, guidance_mean=(weight,) * levels, guidance_variance=(weight,) * levels)
        own = replace(prepared, plan=guided)
        draw(own, rounds[0], device, batch)
        start = time.perf_counter()
        for indices in rounds:
            latents = draw(own, indices, device, batch)
        found[name] = (time.perf_counter() - start) / (len(rounds) * batch) * 1000
    some = prepared.plan.normalization.denormalize(latents[: max(1, TIMED // 4)])
    start = time.perf_counter()
    decode(subject.network, some)
    found["decoding"] = (time.perf_counter() - start) / len(some) * 1000
    return found | {
        "timed": len(rounds) * batch,
        "decoded": len(some),
        "batch": batch,
        "device": device.describe(),
        "threads": torch.get_num_threads(),
    }


def provenance_section(subject: Subject) -> Section:
    """Checksums of everything that decided what the page shows, and the programs that made it."""
    config, folder = subject.config, Folder(subject.run)
    record = config.dataset
    rows = [
        ("dataset id", record.id),
        ("autoencoder weights", record.autoencoder.weights_sha256 or "none: pixels"),
        (CONFIG, folder.sha256(CONFIG)),
        *((f"step-{subject.step:08d}/{name}", sha256) for name, sha256 in sorted(subject.checkpoint.items())),
    ]
    if config.init is not None:
        rows.append(("begun with weights", config.init))
    settings = (UNGUIDED, subject.best) if subject.guidable else (UNGUIDED,)
    for setting in settings:
        manifest = Dataset.open(subject.samples_of(setting)).manifest
        rows.append((f"samples, {setting_in_words(setting)}", manifest.id))
    made = [
        ("trained by", config.written_by),
        ("page by", WRITTEN_BY),
        ("Python", platform.python_version()),
        ("torch", torch.__version__),
        ("numpy, scipy, Pillow", f"{np.__version__}, {scipy.__version__}, {pillow_version}"),
    ]
    check = f"lvae verify --deep {subject.dataset_name}"
    body = figure(facts("Checksums", rows, mono=True), "SHA-256. A dataset checks its own bytes:", check)
    body += subtitle("Programs") + facts("Programs", made)
    train = f"lvae train {subject.dataset_name} {subject.run}"
    words = "The run goes on, or proves to be finished, with the same command; its settings lie in config.json."
    return Section("provenance", "Provenance", body + figure("", words, train))
