"""What the arms of every table train, as words of our own commands."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lvae.encode.catalogue.architectures import find_spec
from lvae.evaluate.studies.paper import AUTOENCODER_STACK, LATENT, PIXEL, STACK

HELD_OUT = "10%"
SMALL = {
    "preset": "tiny",
    "batch": "16",
    "ema": "0.998",
    "ema_warm_up": "true",
    "warm_up_updates": "20",
    "rate_lower": "150",  # what a nat costs in a model of some minutes: tests/benchmarks/recipe_search.md
}
PIXELS = {
    "sigma_q": "0.05",
    "spectral_weight": "0.25",
    "skip_threshold": "10000",
    "rate_schedule": "constant_per",
    "learning_rate": "2e-3",
}
CONDITIONAL = {"classes": "all", "hierarchical_prior": "true"}


@dataclass(frozen=True)
class Data:
    """A dataset of the study. encode: words behind 'lvae encode IMAGES OUT'. fitted: the autoencoder that it needs."""

    encode: tuple[str, ...]
    fitted: str | None = None


@dataclass(frozen=True)
class Model:
    """One model. data: the name of its dataset. settings: of 'lvae train', as --set takes them; "preset" among them."""

    data: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Arm:
    """models: what is trained; of a stack the second one enlarges what the first one draws.

    first_stage: share of the arm's time for the autoencoder of its data, which is fitted once for all seeds.
    """

    name: str
    models: tuple[Model, ...]
    first_stage: float = 0.0


@dataclass(frozen=True)
class Design:
    """What a table needs. autoencoders: by name, as JSON."""

    data: Mapping[str, Data]
    arms: tuple[Arm, ...]
    autoencoders: Mapping[str, str] = field(default_factory=dict)


UPSAMPLED = "upsampled"  # small pictures, which the autoencoder of this name enlarges by 8
UPSAMPLER = {"kind": "upsampler", "width": 32, "blocks": 2, "multipliers": [1, 2, 2], "patch": 2}
REFERENCE = "pixels"  # the dataset whose held-out pictures are the reference of every table


def design(table: str, size: int, autoencoder: str = "default", weights: str | None = None) -> Design:
    """What a table trains at this size of pictures. autoencoder, weights: of the latents; table 2 fits its own."""
    view = ("--size", str(size), "--mirror", "--split", f"val={HELD_OUT}", "--workers", "1")
    raw = (*view, "--normalization", "none", "--autoencoder")
    data = {REFERENCE: Data((*raw, "pixels"))}
    given = () if weights is None else ("--weights", weights)
    latents = {"latents": Data((*view, "--autoencoder", autoencoder, *given))}
    if table == "table1":
        data |= latents | {"reduced": Data((*raw, "pixels-f8")), UPSAMPLED: Data(raw[:-1], UPSAMPLED)}
        return Design(data, _table1(size), {UPSAMPLED: json.dumps(UPSAMPLER)})
    if table == "table2":
        stages = _autoencoders(size)
        data |= {name: Data(view, name) for name in stages}
        arms = tuple(Arm(f"f = {name[1:]}", (Model(name, SMALL),), first_stage=0.25) for name in stages)
        return Design(data, arms, stages)
    whole = SMALL | CONDITIONAL
    if table == "ablations":
        side = size // find_spec(autoencoder).downsampling_factor
        return Design(
            data | latents, tuple(Arm(name, (Model("latents", one),)) for name, one in _variants(side, whole))
        )
    return Design(data | latents, (Arm("unguided", (Model("latents", whole),)),))


def _table1(size: int) -> tuple[Arm, ...]:
    levels = _levels(size)
    lowest_first = [4 ** (levels - 1 - level) for level in range(levels)]
    pixels = SMALL | PIXELS | {"rate_per_resolution": _list(lowest_first)}
    reduced = SMALL | {"sigma_q": "0.035"}
    small = 4  # resolutions from size down to size / 8
    upsampler = pixels | {
        "low_resolution_factor": "8",
        "multipliers": _list([1] * small),
        "ffn_ratios": _list([2] * small),
        "groups": _list([1, 2, 2, 2]),
        "encoder_blocks": _list([1] * small),
        "attentions": _list([0] * (small - 1) + [1]),
        "heads": _list([0] * (small - 1) + [4]),
        "rate_per_resolution": "8,4,2,1",
    }
    stack = (Model("reduced", reduced), Model("pixels", upsampler))
    return (
        Arm(LATENT, (Model("latents", SMALL),)),
        Arm(STACK, stack),
        Arm(AUTOENCODER_STACK, (Model(UPSAMPLED, reduced),), first_stage=0.5),
        Arm(PIXEL, (Model("pixels", pixels),)),
    )


def _autoencoders(size: int) -> dict[str, str]:
    """By name, for f = 2, 4, 8 and, where the pictures allow it, 16: as many channels as in the paper."""
    found = {}
    for name, patch, multipliers, channels in (
        ("f2", 1, (1, 1), 3),
        ("f4", 2, (1, 2), 3),
        ("f8", 2, (1, 2, 2), 4),
        ("f16", 2, (1, 2, 2, 2), 16),
    ):
        if size // int(name[1:]) >= 4:
            spec = {"kind": "tiny", "latent_channels": channels, "width": 32, "blocks": 2}
            found[name] = json.dumps({**spec, "multipliers": multipliers, "patch": patch})
    return found


def _variants(side: int, whole: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    levels = _levels(side)
    return [
        ("all of it", whole),
        ("published attention", {**whole, "attention": "published"}),
        ("normalized attention", {**whole, "attention": "normalized"}),
        ("standard prior", {**whole, "hierarchical_prior": "false"}),
        ("rates by resolution", {**whole, "rate_schedule": "constant_per", "rate_per_resolution": _list([4] * levels)}),
        ("redrawn singular vectors", {**whole, "singular_vectors": "redrawn"}),
        ("no spectral penalty", {**whole, "spectral_weight": "0"}),
    ]


def _levels(resolution: int) -> int:
    """Resolutions of a model, down to 4 and 1."""
    levels = 1
    while resolution >= 8:
        resolution //= 2
        levels += 1
    return levels + 1


def _list(values: list[int]) -> str:
    return ",".join(map(str, values))
