"""From what a user asks for to a dataset's plan: defaults, what an earlier command set, and what cannot be changed."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lvae.encode.autoencoder import RANDOM, build, load, load_file, multiply_adds
from lvae.encode.catalogue.presets import about_classes
from lvae.encode.catalogue.published import DEFAULT, find_weights
from lvae.encode.crops import CROPS
from lvae.encode.devices import choose_precision
from lvae.encode.feeding.encoder import choose_batch, choose_part_size, weights_in
from lvae.encode.networks.base import Autoencoder, save_safetensors
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import MANIFEST, Manifest
from lvae.manifests.parts.plan import (
    AutoencoderRecord,
    Encoding,
    ImageSettings,
    Plan,
    Precision,
    Store,
    read_plan,
    refuse_change,
    write_plan,
)
from lvae.manifests.parts.receipts import RAW
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.planning.existing import Existing
from lvae.pipeline.planning.rescan import append, inherited_limit, recognize
from lvae.pipeline.planning.scan import DEFAULT_PART_SIZE, ScanOptions, scan

THREADS = 1  # inside a part: N one-thread workers beat one N-thread worker, and bytes do not depend on N


@dataclass(frozen=True)
class EncodeOptions:
    """What decides the raw parts, as given on the command line; None where not given.

    device: the first of those that encode. preset: whose settings these are, for what is said of the classes.
    """

    autoencoder: str | None = None
    weights: str | None = None
    size: int | None = None
    min_size: int | None = None
    crop: str | None = None
    mirror: bool | None = None
    store: Store | None = None
    seed: int | None = None
    batch: int | None = None
    precision: Precision | None = None
    device: str = "cpu"
    preset: str | None = None
    scan: ScanOptions = field(default_factory=ScanOptions)


def new_encoding(options: EncodeOptions, network: Autoencoder, fingerprint: str | None) -> Encoding:
    """The settings of a dataset that does not exist yet."""
    size = options.size if options.size is not None else 256
    crop = options.crop or "adm"
    store = options.store or "mode"
    factor = network.downsampling_factor
    if crop not in CROPS:
        raise LvaeError(f"--crop {crop}", "there is no such crop", f"Choose one of {', '.join(CROPS)}.")
    if size < 1 or size % factor:
        raise LvaeError(f"--size {size}", f"{network.name} needs a multiple of its downsampling factor, {factor}")
    if store != "mode" and network.architecture["kind"] != "kl":
        raise LvaeError(
            f"--store {store}", f"{network.name} has no posterior", "Only kl autoencoders do; leave --store out."
        )
    if options.batch is not None and options.batch < 1:
        raise LvaeError(f"--batch {options.batch}", "must be at least 1")
    cost = 0 if fingerprint is None else multiply_adds(network, size)
    return Encoding(
        image=ImageSettings(size, crop, CROPS[crop], bool(options.mirror), (-1.0, 1.0), options.min_size or 0),
        autoencoder=AutoencoderRecord(
            network.name, network.architecture, fingerprint, factor, network.latent_channels, store
        ),
        seed=options.seed or 0,
        batch=options.batch or choose_batch(cost, options.device),
        precision=choose_precision(options.precision, options.device),
        threads=THREADS,
    )


def _named_after_weights(encoding: Encoding, options: EncodeOptions) -> Encoding:
    """Weights of one's own are not `default` because they have its shape: they are called by their folder and hash."""
    record, weights = encoding.autoencoder, options.weights
    if record.name != DEFAULT or options.autoencoder is not None or weights is None or weights.startswith(RANDOM):
        return encoding
    shipped = find_weights(DEFAULT)
    if shipped is None or load(DEFAULT, shipped).fingerprint == record.weights_sha256:
        return encoding
    path = Path(weights).absolute()
    place = path.parent if path.stem in ("autoencoder", "diffusion_pytorch_model") else path.with_suffix("")
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', place.name) or 'own'}-{str(record.weights_sha256)[:8]}"
    return replace(encoding, autoencoder=replace(record, name=name))


def apply_to_encoding(options: EncodeOptions, old: Encoding) -> Encoding:
    """The old settings with everything that was given put in its place: equal to them where nothing changes."""
    autoencoder, image = old.autoencoder, old.image
    if options.autoencoder is not None:
        network = build_without_weights(options.autoencoder)
        autoencoder = replace(
            autoencoder,
            name=network.name,
            architecture=network.architecture,
            downsampling_factor=network.downsampling_factor,
            latent_channels=network.latent_channels,
        )
    if options.store is not None:
        autoencoder = replace(autoencoder, store=options.store)
    if options.crop is not None:
        image = replace(image, crop=options.crop, resample=CROPS.get(options.crop, options.crop))
    if options.size is not None:
        image = replace(image, size=options.size)
    if options.min_size is not None:
        image = replace(image, min_size=options.min_size)
    if options.mirror is not None:
        image = replace(image, mirrored=options.mirror)
    given: dict[str, Any] = {
        name: value for name in ("seed", "batch", "precision") if (value := getattr(options, name)) is not None
    }
    return replace(old, autoencoder=autoencoder, image=image, **given)


def build_without_weights(description: str) -> Autoencoder:
    """The architecture alone: on torch's meta device, which takes no memory."""
    import torch

    with torch.device("meta"):
        return build(description)


def load_network(options: EncodeOptions) -> Autoencoder:
    """The autoencoder asked for: the shipped one where nothing is, that of a file where only the file is named."""
    if options.autoencoder is None:
        random = options.weights is not None and options.weights.startswith(RANDOM)
        return load(DEFAULT, options.weights) if options.weights is None or random else load_file(options.weights)
    return load(options.autoencoder, options.weights)


def store_weights(folder: Folder, encoding: Encoding, network: Autoencoder) -> None:
    """Put the weights where workers and decoders find them."""
    name = encoding.autoencoder.weights_file
    if name is not None and not folder.exists(name):
        folder.write(name, save_safetensors(network))


def part_size_for(encoding: Encoding, multiply_adds: int, device: str) -> int:
    channels, height, width = encoding.raw_shape
    raw_bytes = channels * height * width * (1 if encoding.autoencoder.pixels else 4)
    device = "cpu" if encoding.autoencoder.pixels else device
    return choose_part_size(multiply_adds, raw_bytes, encoding.image.orientations, device)


def prepare(
    folder: Folder, existing: Existing, source: str, options: EncodeOptions, say: Callable[[str], None]
) -> Plan:
    """The plan of a dataset, new or continued, written down; its weights in place. Refuses every change, naming it."""
    if existing.plan is None:
        plan = _first_plan(folder, existing.manifest, source, options, say)
    else:
        plan = _continued_plan(folder, existing.plan, source, options, say)
    tell_of_classes(options.preset, plan.listing.classes, say)
    return plan


def tell_of_classes(preset: str | None, classes: tuple[str, ...] | None, say: Callable[[str], None]) -> None:
    """A warning where a preset's data has others."""
    remark = about_classes(preset, len(classes or ())) if preset is not None else None
    if remark is not None:
        say(f"warning: {remark}")


def _continued_plan(folder: Folder, old: Plan, source: str, options: EncodeOptions, say: Callable[[str], None]) -> Plan:
    if old.encoding is None:
        network = load_network(options)
        encoding = _named_after_weights(new_encoding(options, network, _fingerprint(network)), options)
        plan = replace(_look_again(folder, old, source, options.scan, say), encoding=encoding)
        store_weights(folder, encoding, network)
    else:
        encoding = old.encoding
        if options.batch is not None and not any(name.endswith(".json") for name in folder.names(RAW)):
            encoding = replace(encoding, batch=options.batch)  # a batch that was too large binds nobody
        changed = apply_to_encoding(options, encoding)
        refuse_change(folder, {"--autoencoder": encoding.autoencoder.name}, {"--autoencoder": changed.autoencoder.name})
        refuse_change(folder, encoding, changed)
        plan = _look_again(folder, replace(old, encoding=encoding), source, options.scan, say)
        _check_weights(folder, encoding, options)
    if plan != old:
        write_plan(folder, plan)
    return plan


def _look_again(folder: Folder, old: Plan, source: str, options: ScanOptions, say: Callable[[str], None]) -> Plan:
    """The images of a dataset found again, and with --append those that are new."""
    if old.is_imported:
        raise LvaeError(folder, "was imported as latents", "Go on with 'lvae latents import', or name another folder.")
    part_size = old.listing.segments[-1].part_size
    if options.append:
        return append(folder, old, source, options, options.part_size or part_size, say)
    if options.part_size is not None:
        refuse_change(folder, {"part_size": part_size}, {"part_size": options.part_size})
    if options.limit is not None:
        limit = inherited_limit(old, source, replace(options, limit=None))
        refuse_change(folder, {"limit": limit}, {"limit": options.limit})
    return recognize(folder, old, source, options, say)


def _first_plan(
    folder: Folder, made: Manifest | None, source: str, options: EncodeOptions, say: Callable[[str], None]
) -> Plan:
    """made: the manifest of a dataset that has lost its plan, and of which nothing may be written that does not fit."""
    network = load_network(options)
    fingerprint = _fingerprint(network)
    encoding = _named_after_weights(new_encoding(options, network, fingerprint), options)
    if made is not None:
        before = {"image": made.image, "autoencoder": made.autoencoder}
        refuse_change(folder, before, {"image": encoding.image, "autoencoder": encoding.autoencoder})
    cost = 0 if fingerprint is None else multiply_adds(network, encoding.image.size)
    part_size = options.scan.part_size or part_size_for(encoding, cost, options.device)
    plan = replace(scan(folder, source, options.scan, part_size, say), encoding=encoding)
    store_weights(folder, encoding, network)
    write_plan(folder, plan)
    return plan


def _fingerprint(network: Autoencoder) -> str | None:
    return None if network.architecture["kind"] == "pixels" else network.fingerprint


def _check_weights(folder: Folder, encoding: Encoding, options: EncodeOptions) -> None:
    """The weights given now, if any, must be the dataset's; lost or damaged ones are put back from them."""
    name = encoding.autoencoder.weights_file
    if name is None:
        if options.weights is not None:
            raise LvaeError("--weights", f"{folder} holds pixels, which need none", "Leave it out.")
        return
    network = None
    weights = options.weights or find_weights(options.autoencoder or "")
    if weights is not None:
        network = load(encoding.autoencoder.architecture, weights)
        found = network.fingerprint
        if found != encoding.autoencoder.weights_sha256:
            refuse_change(folder, {"weights": encoding.autoencoder.weights_sha256}, {"weights": found})
    if not _whole_weights(folder, encoding):
        if network is None:
            raise LvaeError(f"{folder}/{name}", "is missing or damaged", "Run the same command with --weights FILE.")
        folder.remove(name)
        store_weights(folder, encoding, network)


def _whole_weights(folder: Folder, encoding: Encoding) -> bool:
    path = weights_in(folder, encoding)
    if path is None or not folder.exists(str(encoding.autoencoder.weights_file)):
        return False
    try:
        return load(encoding.autoencoder.architecture, path).fingerprint == encoding.autoencoder.weights_sha256
    except LvaeError:
        return False


def scan_only(folder: Folder, source: str, options: ScanOptions, say: Callable[[str], None]) -> Plan:
    """`lvae scan`: rows/ and a plan that knows no encoding yet. Again, it says whether the images are the same."""
    old = read_plan(folder)
    if old is not None:
        plan = _look_again(folder, old, source, options, say)
        if plan != old:
            write_plan(folder, plan)
        return plan
    if folder.exists(MANIFEST):
        raise LvaeError(folder, "is a finished dataset without its plan.json", "Run its first 'lvae encode' again.")
    plan = scan(folder, source, options, options.part_size or DEFAULT_PART_SIZE, say)
    write_plan(folder, plan)
    return plan
