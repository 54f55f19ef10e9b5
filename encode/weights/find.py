"""Where an autoencoder stands within a checkpoint, below whatever keys, prefixes and wrappers a trainer saved it.

A nested dictionary and a name with dots say the same: `model` with `encoder...` in it is `model.encoder...`. What
stands beside encoder, decoder and the quantization layers (losses, teachers, projections, optimizers) is left aside,
whatever it is called; what stands inside of them and does not fit is refused by `load_state`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lvae.encode.catalogue.architectures import MAX_PATCH
from lvae.encode.catalogue.recognize import Shaped
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted, printable

UPSAMPLER = "upsampler.layers.0.weight"  # of reduced images: first layer and decoder in one
FIRST_LAYERS = (
    "encoder.conv_in.weight",
    "encoder.layers.0.weight",
    "encoder.0.weight",
    "taesd_encoder.0.weight",
    UPSAMPLER,
)
DECODERS = (
    "decoder.conv_in.weight",
    "decoder.layers.0.weight",
    "decoder.1.weight",
    "taesd_decoder.1.weight",
    UPSAMPLER,
)
PARTS = (
    "encoder",
    "decoder",
    "quant_conv",
    "post_quant_conv",
    "quantize",
    "taesd_encoder",
    "taesd_decoder",
    "upsampler",
)
# Names that wrappers of torch put between others: DistributedDataParallel, compile, FSDP, checkpointing, DeepSpeed.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
COUNTERS = re.compile(r"quantize\..*(used|usage|cluster_size|embed_avg|ema_\w+|initted|counter)")
AVERAGED = re.compile(r"(?i)(^|_)(ema|swa|avg|average|averaged|shadow)(_|\d*$)")
FOREIGN = re.compile(
    r"(?i)optim|exp_avg|^opt$|teacher|discrim|^disc|loss|lpips|perceptual|foundation|gradient|^grads?$"
    r"|(^|_)(ref|reference|frozen|target|initial|pretrained|online)(_|$)"
)
# Of several autoencoders the one that stands below no name of these counts first, then LDM's and Stable Diffusion's,
# then that of the paper's pipelines, whose hierarchical VAE lies under `vae.`.
KNOWN_PREFIXES = ("first_stage_model", "dae", "vae")
MAX_DEPTH = 64
SHOWN = 4


@dataclass(frozen=True)
class Stage:
    """An autoencoder's tensors, prefix stripped. notes: which copy was taken, and what was left aside.

    scale_factor: the number that latent diffusion models keep beside it, where they do.
    """

    tensors: dict[str, Any]
    notes: tuple[str, ...]
    scale_factor: Any


def find_autoencoder(tree: Mapping[str, Any], source: str) -> Stage:
    """Of a checkpoint what belongs to its image autoencoder; tensors may be unread.

    Of averaged weights (EMA) and the last ones the averaged are taken.
    """
    flat: dict[str, Any] = {}
    twice: set[str] = set()
    for path, tensor in _walk_tensors(tree, ()):
        name = ".".join(part for part in ".".join(path).split(".") if part not in WRAPPERS)
        twice |= {name} if name in flat else set()
        flat[name] = tensor
    prefixes = sorted(_find_prefixes(flat), key=lambda prefix: _rank(prefix, flat))
    if not prefixes:
        problem = (
            f"holds no image autoencoder: {FIRST_LAYERS[0]} of shape (width, 3, 3, 3) is missing, below any prefix"
        )
        raise LvaeError(source, problem, "Give the weights of an autoencoder of RGB images.")
    prefix = prefixes[0]
    below = {name.removeprefix(prefix): tensor for name, tensor in flat.items() if name.startswith(prefix)}
    found = {name: t for name, t in below.items() if name.split(".")[0] in PARTS and not COUNTERS.fullmatch(name)}
    doubled = sorted(name for name in found if prefix + name in twice)
    if doubled:
        problem = f"{printable(doubled[0])} is there twice, under two names"
        raise LvaeError(source, problem, "Give a file with one set of weights.")
    notes = _write_notes(prefixes, flat, [name for name in flat if name.removeprefix(prefix) not in found])
    return Stage(found, notes, _find_scale_factor(prefix, flat))


def sees_rgb(tensor: Shaped | None) -> bool:
    """Whether this can be the first layer of an encoder of RGB images, or of patches of them."""
    if tensor is None or len(tensor.shape) != 4 or tuple(tensor.shape[2:]) != (3, 3):
        return False
    return tensor.shape[1] in [3 * patch**2 for patch in range(1, MAX_PATCH + 1)]


def _walk_tensors(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            if len(path) < MAX_DEPTH:
                yield from _walk_tensors(value, (*path, str(name)))
        elif hasattr(value, "shape"):
            yield (*path, str(name)), value


def _find_prefixes(flat: Mapping[str, Shaped]) -> set[str]:
    """Below which an encoder of RGB images stands."""
    return {
        name.removesuffix(first)
        for name, tensor in flat.items()
        for first in FIRST_LAYERS
        if (name == first or name.endswith(f".{first}")) and sees_rgb(tensor)
    }


def _rank(prefix: str, flat: Mapping[str, Any]) -> tuple[Any, ...]:
    """The smallest is taken: with a decoder, no network of the training, averaged, at a known place, less deep."""
    parts = prefix.split(".")[:-1]
    known = max((KNOWN_PREFIXES.index(part) + 1 for part in parts if part in KNOWN_PREFIXES), default=0)
    foreign = any(map(FOREIGN.search, parts))
    averages = sum(AVERAGED.search(part) is not None for part in parts)
    return not _is_whole(prefix, flat), foreign, -averages, known, len(parts), prefix


def _is_whole(prefix: str, flat: Mapping[str, Any]) -> bool:
    return any(prefix + name in flat for name in DECODERS)


def _write_notes(prefixes: list[str], flat: Mapping[str, Any], aside: list[str]) -> tuple[str, ...]:
    taken, *others = [prefix for prefix in prefixes if _is_whole(prefix, flat)] or prefixes
    notes = []
    if others:
        shown = ", ".join(map(_name_place, others[:SHOWN]))
        notes.append(f"of {counted(len(others) + 1, 'autoencoder')} the one {_name_place(taken)} is taken, not {shown}")
    aside = [name for name in aside if name.split(".")[-1] != "scale_factor"]
    names = sorted({_name_group(name, taken) for name in aside if not name.startswith(tuple(filter(None, others)))})
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        notes.append(f"left aside: {', '.join(map(printable, names[:SHOWN]))}{more}")
    return tuple(notes)


def _name_place(prefix: str) -> str:
    return f"below {printable(prefix[:-1])}" if prefix else "at the top"


def _name_group(name: str, prefix: str) -> str:
    """The part of a checkpoint that a tensor beside the autoencoder belongs to."""
    below = name.removeprefix(prefix)
    first = below.split(".")[0]
    return (prefix if below != name else "") + (below if first in PARTS else first)


def _find_scale_factor(prefix: str, flat: Mapping[str, Any]) -> Any:
    """A buffer that LDM writes, beside the autoencoder or above it."""
    parts = prefix.split(".")[:-1]
    for depth in range(len(parts), -1, -1):
        name = ".".join([*parts[:depth], "scale_factor"])
        if name in flat:
            return flat[name]
    return None
