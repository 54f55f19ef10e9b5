"""From a run to SAMPLES: a dataset of latents drawn from the model, each a function of (seed, its index)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lvae.evaluate.samples.correlated_noise import CorrelatedNoise
from lvae.evaluate.samples.options import Convention, guidance_weights, labels_of, parse_step, temperatures
from lvae.evaluate.samples.output import draw_output
from lvae.evaluate.samples.replayed import ReplayedDecoder
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.messages import counted
from lvae.manifests.publishing import samples
from lvae.manifests.records import require_real
from lvae.manifests.seeds import derive
from lvae.manifests.statistics import Normalization, require_finite
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.selection import TRAIN
from lvae.train.config import ModelConfig
from lvae.train.devices.device import Device
from lvae.train.model import Decoded, HierarchicalVAE
from lvae.train.network.choices import Guidance
from lvae.train.network.noise import noise_shapes
from lvae.train.runs.drawing import OutputNoise
from lvae.train.runs.run import average_group, find_checkpoint, load_weights, read_run

COOLER = "Lower the guidance weights or the temperature."
BATCH, MOST = 64, 2048  # samples drawn at a time
FREE_SHARE, LIVE_LAYERS = 0.5, 6
COUNT = 50_000  # what scores are usually computed from


@dataclass(frozen=True)
class SampleOptions:
    """What a user asks for; None where nothing was said."""

    count: int | None = None
    seed: int = 0
    labels: str | None = None
    guidance_mean: str | None = None
    guidance_variance: str | None = None
    guidance: str | None = None
    convention: Convention = "extra"
    temperature: str = "1"
    weights: Literal["ema", "raw"] = "ema"
    low_resolution: str | None = None
    output_temperature: float = 0.0
    output_noise: OutputNoise = "independent"
    step: str = "last"
    ema: float | None = None

    def which(self) -> int | Literal["best", "last"]:
        """Of which checkpoint."""
        return parse_step(self.step)


@dataclass(frozen=True)
class Prepared:
    """The model of a run and everything that decides its samples."""

    run: str
    model: HierarchicalVAE
    plan: samples.SamplesPlan
    labels: NDArray[np.int32]
    low_resolution: Dataset | None
    decode: Callable[..., Decoded]  # the model's, perhaps compiled or recorded
    correlated: CorrelatedNoise | None = None


def prepare(run: Path, options: SampleOptions, precision: str = "float32") -> Prepared:
    """Load the model and make the options exact."""
    config = read_run(run)
    model_config, record = config.model, config.dataset
    levels = len(model_config.groups)
    means, variances = guidance_weights(
        model_config, options.guidance_mean, options.guidance_variance, options.guidance, options.convention
    )
    temperature = temperatures(options.temperature, levels)
    require_real("--output-temperature", options.output_temperature, least=0.0)
    low = _low_resolution(options.low_resolution, model_config.low_resolution_factor, record.shape, options.count)
    count = options.count if options.count is not None else (len(low) if low is not None else COUNT)
    classes = model_config.classes
    labels = labels_of(options.labels, count, classes, record.classes, options.seed, counts=record.class_counts)
    group = "model" if options.weights == "raw" else average_group(run, config.training, options.ema)
    checkpoint = find_checkpoint(run, options.which(), (group,))
    model = HierarchicalVAE(model_config)
    load_weights(model, checkpoint.read(group), str(checkpoint.path))
    model_sha256, correlated = checkpoint.sha256[f"{group}.safetensors"], None
    if options.output_noise == "correlated" and options.output_temperature:
        correlated = CorrelatedNoise.read(run, model_sha256, record.shape)
    plan = samples.SamplesPlan(
        format="latent-vae-samples",
        version=1,
        written_by=WRITTEN_BY,
        dataset=record.id,
        model_sha256=model_sha256,
        step=checkpoint.step,
        weights=options.weights,
        count=count,
        seed=options.seed,
        labels=options.labels or ("cycle" if model_config.classes else "none"),
        labels_sha256=samples.hash_labels(labels),
        guidance_mean=means,
        guidance_variance=variances,
        temperature=temperature,
        low_resolution=None if low is None else low.manifest.id,
        precision=precision,
        shape=record.shape,
        image=replace(record.image, mirrored=False),
        autoencoder=replace(record.autoencoder, store="mode"),
        classes=record.classes if model_config.classes else None,
        normalization=record.normalization,
        output_temperature=options.output_temperature,
        residuals_sha256=None if correlated is None else correlated.sha256,
    )
    return Prepared(str(run), model.eval(), plan, labels, low, model.decode, correlated)


def _low_resolution(
    path: str | None, factor: int | None, shape: tuple[int, int, int], count: int | None
) -> Dataset | None:
    if (path is None) != (factor is None):
        if path is None:
            raise LvaeError(
                "", "an upsampler needs low-resolution images to sample from", "Give --low-resolution SAMPLES."
            )
        raise LvaeError("--low-resolution", "this model is no upsampler", "Leave the option out.")
    if path is None or factor is None:
        return None
    low = Dataset.open(path)
    wanted = (shape[0], shape[1] // factor, shape[2] // factor)
    if low.manifest.view.shape != wanted:
        raise LvaeError(path, f"latents of {low.manifest.view.shape}, where this upsampler needs {wanted}")
    if count is not None and count > len(low):
        raise LvaeError(
            path, f"has {counted(len(low), 'sample')}, and -n asks for {count}", "Draw more of them, or ask for fewer."
        )
    return low


def usual_batch(config: ModelConfig, device: Device) -> int:
    """Samples drawn at a time where nobody says: 64, which every machine can; on a GPU, what its memory holds."""
    free = device.free_bytes()
    if device.kind != "cuda" or free is None:
        return BATCH
    levels = zip(config.widths, config.ffn_ratios, config.resolutions, strict=True)
    widest = max(width * max(ratio, 1) * side**2 for width, ratio, side in levels)
    noise = sum(z * height * width for z, height, width in noise_shapes(config))
    # float32: some layers' activations of two paths; noise as words of 64 bits, in a few copies, and as numbers
    bytes_a_sample = 4 * LIVE_LAYERS * 2 * widest + 40 * noise
    return int(min(MOST, max(1, FREE_SHARE * free // bytes_a_sample)))


def sample(
    run: Path,
    out: Path,
    options: SampleOptions,
    device: Device,
    batch: int,
    progress: Callable[[int], None] = lambda _: None,
) -> samples.SamplesPlan:
    """Draw what is not there yet, and publish. Ranks share the shards. LvaeError where `out` holds other samples."""
    return sample_prepared(prepare(run, options, device.precision), run, out, device, batch, progress)


def sample_prepared(
    prepared: Prepared,
    run: Path,
    out: Path,
    device: Device,
    batch: int,
    progress: Callable[[int], None] = lambda _: None,
) -> samples.SamplesPlan:
    """The same for a model that is loaded already."""
    folder, plan = Folder(out), prepared.plan
    incomplete = device.from_main(int(device.is_main and samples.begin(folder, plan, prepared.labels)))
    # Every process looks for itself: those of a pod exchange nothing, and must all run the same programs.
    layout, todo = plan.view.layouts[TRAIN], samples.pending(folder, plan)
    # Processes of a pod would not agree on what is there already: they draw all of it anew.
    earlier = samples.open_earlier(folder, plan) if device.kind != "xla" else None
    known = 0 if earlier is None else len(earlier)
    device.barrier()
    if not todo and not incomplete:
        progress(plan.count)
        return plan
    device.place(prepared.model)
    decode: Callable[..., Decoded] = device.compile(prepared.model.decode)
    if (record := device.recorder()) is not None:
        decode = ReplayedDecoder(decode, record)
    prepared = replace(prepared, decode=decode)
    progress(plan.count - sum(layout.rows_of(number)[1] for number in todo))
    for number in todo[device.rank :: device.world]:
        first, count = layout.rows_of(number)
        latents = np.empty((count, *plan.shape), np.float32)
        there = min(max(known - first, 0), count)
        if earlier is not None and there:
            latents[:there] = earlier.latents[first : first + there]
            progress(there)
        for start in range(there, count, batch):
            indices = range(first + start, first + min(start + batch, count))
            latents[start : start + len(indices)] = draw(prepared, indices, device, batch, str(out))
            progress(len(indices))
        if device.is_main or device.world > 1:  # the processes of a pod have all drawn the same
            samples.write_shard(folder, plan, number, latents, prepared.labels[first : first + count])
    device.barrier()
    if device.is_main:
        samples.publish(folder, plan, Folder(run))
        folder.sweep()
    device.barrier()
    return plan


def draw(
    prepared: Prepared, indices: Sequence[int], device: Device, batch: int, where: str = ""
) -> NDArray[np.float32]:
    """Normalized latents (n, C, h, w) of these samples. Devices that want one shape get whole batches.

    where: what they are drawn for, named where one is not finite.
    """
    plan, model = prepared.plan, prepared.model
    one_shape = device.kind == "xla" or device.compiled
    padded = list(indices) + [indices[-1]] * (batch - len(indices) if one_shape else 0)
    shapes = noise_shapes(model.config)
    sizes = [z * height * width for z, height, width in shapes]
    flat = device.seeded_normals([derive(plan.seed, "sample", i) for i in padded], sum(sizes))
    parts = flat.split(sizes, 1)  # type: ignore[no-untyped-call]
    noise = [part.reshape(len(padded), *shape) for part, shape in zip(parts, shapes, strict=True)]
    labels = device.put(torch.from_numpy(prepared.labels[padded])) if model.config.classes else None
    low = None
    if prepared.low_resolution is not None:
        low = device.put(torch.from_numpy(_in_units_of(plan.normalization, prepared.low_resolution, padded)))
    with device.autocast():
        guidance = Guidance(plan.guidance_mean, plan.guidance_variance, plan.temperature)
        decoded = prepared.decode([None] * len(noise), labels, noise, guidance=guidance, low_resolution=low)
        latents = draw_output(decoded, plan.output_temperature, plan.seed, padded, prepared.correlated)
    device.mark_step()
    found: NDArray[np.float32] = device.fetch(latents).float().numpy()[: len(indices)]
    require_finite(found, where or prepared.run, "numbers of sample", indices, COOLER)
    return found


def _in_units_of(normalization: Normalization, low: Dataset, indices: Sequence[int]) -> NDArray[np.float32]:
    """Low-resolution latents as the upsampler's own dataset normalizes them."""
    latents, _ = low.read(np.array(indices), np.float32)
    return np.asarray(normalization.normalize(low.normalization.denormalize(latents), "float32"))


def guidance_in_words(plan: samples.SamplesPlan) -> str:
    """Both conventions."""
    if not any((*plan.guidance_mean, *plan.guidance_variance)):
        return "guidance: none"

    def show(values: Sequence[float], more: float) -> str:
        same = len(set(values)) == 1
        return f"{values[0] + more:g}" if same else ",".join(f"{value + more:g}" for value in values)

    extra = f"mean {show(plan.guidance_mean, 0)}, variance {show(plan.guidance_variance, 0)}"
    scale = f"mean {show(plan.guidance_mean, 1)}, variance {show(plan.guidance_variance, 1)}"
    return f"guidance: extra {extra}; as scale: {scale}; lowest resolution first"
