"""What a cache does not say: asked for by name, never guessed."""

import json
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from lvae.encode.catalogue.architectures import describe, find_spec, name_of
from lvae.encode.catalogue.published import find_weights
from lvae.encode.crops import CROPS
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import IMPORTED, UNKNOWN, AutoencoderRecord, Encoding, ImageSettings, Store
from lvae.pipeline.exchange.caches.cache import Cache
from lvae.pipeline.exchange.caches.record import RECORD, ExportedCache, LatentsRecord

if TYPE_CHECKING:
    from lvae.encode.networks.base import Autoencoder

ANY = "unknown"
INPUT_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}


@dataclass(frozen=True)
class ImportOptions:
    """What a user says of a cache; None where nothing was said.

    scale, shift: the cache holds (latent - shift) * scale. factor: pixels a side of a place of an autoencoder that
    is not known here. array: of several in a file.
    """

    autoencoder: str | None = None
    weights: str | None = None
    factor: int | None = None
    input_range: str | None = None
    scale: float | None = None
    shift: float | None = None
    crop: str | None = None
    store: Store | None = None


@dataclass(frozen=True)
class Habit:
    """What the script that writes a layout does unless somebody changed it: an advice, not an answer."""

    script: str
    input_range: str
    scale: str
    crop: str
    store: Store | None = None


HABITS = {
    "edm2": Habit("edm2's dataset_tool.py", "0,1", "1", "what its 'convert' was given (adm: center-crop-dhariwal)"),
    "repa": Habit("REPA's dataset_tools.py", "-1,1", "1", "what its 'convert' was given (adm: center-crop-dhariwal)"),
    "lightningdit": Habit("LightningDiT's extract_features.py", "-1,1", "1", "adm", "sample"),
    "dit": Habit("fast-DiT's extract_features.py", "-1,1", "0.18215", "adm", "sample"),
    "mar": Habit("MAR's main_cache.py", "-1,1", "1", "adm"),
    "mds": Habit("mosaicml/diffusion's precompute_latents.py", "-1,1", "0.18215", "center", "sample"),
}


@dataclass(frozen=True)
class Conversion:
    """From what a cache holds to raw latents: stored / scale + shift."""

    scale: float = 1.0
    shift: float = 0.0

    def kind(self, layout: str) -> str:
        """How a segment's kind says it: what decides the latents stands in the listing."""
        scale = f" x {self.scale!r}" if self.scale != 1 else ""
        shift = f" shifted {self.shift!r}" if self.shift else ""
        return f"{IMPORTED} {layout}{scale}{shift}"

    @classmethod
    def of(cls, kind: str) -> "Conversion":
        found = re.fullmatch(rf"{IMPORTED} \w+(?: x (\S+))?(?: shifted (\S+))?", kind)
        if found is None:
            raise LvaeError("", f"{kind!r:.60} is no cache of latents")
        return cls(float(found[1] or 1), float(found[2] or 0))


def new_encoding(cache: Cache, options: ImportOptions) -> tuple[Encoding, Conversion, "Autoencoder | None"]:
    """The settings of a dataset of this cache, and its network where its weights were given.

    LvaeError that names every option which is missing, with what the layout's own script does.
    """
    store = _store(cache, options.store)
    _refuse_missing(cache, options, store)
    conversion = Conversion(options.scale or 0.0, options.shift or 0.0)
    if not (math.isfinite(conversion.scale) and conversion.scale > 0 and math.isfinite(conversion.shift)):
        raise LvaeError("--scale, --shift", "must be finite numbers, and the scale above 0")
    record, network = _autoencoder(options, store or "mode", cache)
    channels = cache.shape[0] // (2 if store == "moments" else 1)
    if record.latent_channels != channels or (store == "moments" and cache.shape[0] % 2):
        problem = f"its latents have {channels} channels, and those of {record.name} {record.latent_channels}"
        raise LvaeError(cache.location, problem, "Name the autoencoder that made them; see --store.")
    crop = str(options.crop)
    image = ImageSettings(
        size=cache.shape[1] * record.downsampling_factor,
        crop=crop,
        resample=CROPS.get(crop, ANY),
        mirrored=cache.orientations == 2,
        input_range=parse_range(str(options.input_range)),
    )
    return Encoding(image, record, seed=0, batch=1, precision="float32", threads=1), conversion, network


def with_record(options: ImportOptions, cache: Cache) -> ImportOptions:
    """The settings that export.json names, where it lies beside the latents and nothing else was said.

    LvaeError where something else was said.
    """
    if not isinstance(cache, ExportedCache):
        return options
    record = cache.record
    ranges = [text for text, found in INPUT_RANGES.items() if found == record.input_range]
    known = bool(record.architecture)
    if not ranges or record.crop not in (*CROPS, ANY):
        raise LvaeError(cache.location, f"{RECORD} names a crop or a range that is not known here")
    said = {
        "input-range": (options.input_range, ranges[0]),
        "scale": (options.scale, record.scale),
        "shift": (options.shift or 0.0, 0.0),
        "crop": (options.crop, record.crop),
        "store": (options.store, record.holds),
        "factor": (options.factor, record.downsampling_factor),
    }
    for name, (here, there) in said.items():
        if here is not None and here != there:
            raise LvaeError(f"--{name} {here}", f"{RECORD} of {cache.location} says {there}", "Leave it out.")
    autoencoder = options.autoencoder
    if known and autoencoder not in (None, ANY):
        if describe(find_spec(str(autoencoder))) != record.architecture:
            problem = f"is not {record.autoencoder:.60}, which {RECORD} names"
            raise LvaeError(f"--autoencoder {autoencoder:.60}", problem, "Leave it out.")
    elif autoencoder is None or known:
        autoencoder = json.dumps(record.architecture) if known else ANY
    return replace(
        options,
        autoencoder=autoencoder,
        weights=options.weights or _weights_here(record) or ANY,
        factor=record.downsampling_factor if autoencoder == ANY else None,
        input_range=ranges[0],
        scale=record.scale,
        crop=record.crop,
        store=record.holds,
    )


def _weights_here(record: LatentsRecord) -> str | None:
    """Those of the record, where this machine has them under the name of their autoencoder."""
    found = find_weights(record.autoencoder)
    if found is None:
        return None
    from lvae.encode.autoencoder import load

    return str(found) if load(record.autoencoder, found).fingerprint == record.weights_sha256 else None


def parse_range(text: str) -> tuple[float, float]:
    if text not in INPUT_RANGES:
        raise LvaeError(f"--input-range {text:.40}", f"is none of {' and '.join(INPUT_RANGES)}")
    return INPUT_RANGES[text]


def _store(cache: Cache, asked: Store | None) -> Store | None:
    """What the cache holds of a posterior, by its layout or as asked."""
    if cache.moments is not None:
        if asked not in (None, "moments"):
            raise LvaeError(f"--store {asked}", f"{cache.layout} holds moments", "Leave it out.")
        return "moments"
    habit = HABITS.get(cache.layout)
    return asked or (None if habit is None else habit.store)


def _refuse_missing(cache: Cache, options: ImportOptions, store: Store | None) -> None:
    habit = HABITS.get(cache.layout)
    missing = []
    if options.autoencoder is None and options.weights in (None, ANY):
        missing.append("--autoencoder NAME (of those that 'lvae autoencoder list' shows, or unknown with --factor)")
    if options.weights is None and options.autoencoder != ANY:
        missing.append("--weights FILE (or unknown: then it is asked for when pictures are decoded)")
    for name, value in (("input-range", options.input_range), ("scale", options.scale), ("crop", options.crop)):
        if value is None:
            said = "" if habit is None else f" ({habit.script}: {getattr(habit, name.replace('-', '_'))})"
            example = {"input-range": "-1,1|0,1", "scale": "NUMBER", "crop": "NAME|unknown"}[name]
            missing.append(f"--{name} {example}{said}")
    if store is None:
        missing.append(f"--store {'|'.join(get_args(Store))} (means, one draw, or means then log-variances)")
    if missing:
        raise LvaeError(cache.location, "a cache does not say how it was made", f"Say {'; '.join(missing)}.")


def _autoencoder(options: ImportOptions, store: Store, cache: Cache) -> tuple[AutoencoderRecord, "Autoencoder | None"]:
    if options.autoencoder == ANY:
        if options.factor is None or options.weights not in (None, ANY):
            raise LvaeError("--autoencoder unknown", "say --factor N, its downsampling, and no --weights")
        channels = cache.shape[0] // (2 if store == "moments" else 1)
        return AutoencoderRecord(ANY, {}, UNKNOWN, options.factor, channels, store), None
    if options.factor is not None:
        raise LvaeError("--factor", "is for --autoencoder unknown", "Leave it out.")
    network = None if options.weights == ANY else _load(options, cache)
    spec = find_spec(str(options.autoencoder) if network is None else network.architecture)
    if spec.kind == "pixels":
        raise LvaeError("--autoencoder", "pixels are no latents", "Encode the images with 'lvae encode'.")
    if store == "moments" and spec.kind != "kl":
        raise LvaeError("--store moments", f"{name_of(spec)} has no posterior", "Only kl autoencoders do.")
    fingerprint = UNKNOWN if network is None else network.fingerprint
    factor, channels = spec.downsampling_factor, spec.latent_channels
    return AutoencoderRecord(name_of(spec), describe(spec), fingerprint, factor, channels, store), network


def _load(options: ImportOptions, cache: Cache) -> "Autoencoder":
    """The network with the weights that were given. Only here does an import need torch."""
    from lvae.encode.autoencoder import load, load_file

    weights = str(options.weights)
    network = load_file(weights) if options.autoencoder is None else load(options.autoencoder, weights)
    if isinstance(cache, ExportedCache) and cache.record.weights_sha256 not in (ANY, network.fingerprint):
        raise LvaeError(f"--weights {weights}", f"are not those of the latents, by {RECORD}", "Name those.")
    return network
