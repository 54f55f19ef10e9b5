"""Section 5 of the paper as functions: what of an image is kept, moved or drawn anew, and what comes of it.

One image at a time, so that a picture's last bits depend on nobody else's: the ends of an interpolation, an
outpainting by nothing and a traversal at the drawn value are bit for bit what they should be. Latents are normalized.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.network.choices import UNGUIDED, Guidance, Weights

Space = Literal["z", "noise"]
Route = Literal["linear", "spherical"]
PARALLEL = 1e-4  # radians: closer directions have no arc between them worth the name


@dataclass(frozen=True)
class EncodedImage:
    """One image in the model's own variables, a tuple over groups each, lowest resolution first.

    z: (1, z, r, r). noise: the same as standardized noise under the priors. label: (1,), or None where there is none.
    low_resolution: (1, d, r, r), what an upsampler was given beside.
    """

    z: tuple[Tensor, ...]
    noise: tuple[Tensor, ...]
    label: Tensor | None
    low_resolution: Tensor | None


@dataclass(frozen=True)
class Conditions:
    """What a sample depends on beside its noise. label: (1,). low_resolution: (1, d, r, r), for an upsampler."""

    label: Tensor | None = None
    low_resolution: Tensor | None = None
    guidance: Guidance = UNGUIDED
    temperature: Weights = 1.0


UNCONDITIONED = Conditions()


@dataclass(frozen=True)
class Margins:
    """Columns and rows of latents to generate on each side."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __bool__(self) -> bool:
        return any((self.left, self.right, self.top, self.bottom))


@dataclass(frozen=True)
class ChannelSweep:
    """A channel of a group (0: the first one drawn) whose noise takes these values, at every position alike."""

    group: int
    channel: int
    values: tuple[float, ...]


@torch.no_grad()
def encode(model: HierarchicalVAE, x: Tensor, label: Tensor | None, noise: Sequence[Tensor]) -> EncodedImage:
    """Latents (1, d, R, R) to the z drawn from their posteriors with this noise; noise of zeros gives the means."""
    found = model.infer(x, label, noise)
    return EncodedImage(tuple(found.z), tuple(found.noise), label, model.reduce(x))


@torch.no_grad()
def reconstruct(model: HierarchicalVAE, encoded: EncodedImage) -> Tensor:
    """(1, d, R, R): what the model makes of its own variables, all given."""
    return model.decode(encoded.z, encoded.label, low_resolution=encoded.low_resolution).mean


@torch.no_grad()
def interpolate(
    model: HierarchicalVAE,
    first: EncodedImage,
    second: EncodedImage,
    shares: Sequence[float],
    space: Space = "noise",
    route: Route = "linear",
) -> Iterator[Tensor]:
    """Latents (1, d, R, R) on the way from one image (share 0) to another (share 1), which are their reconstructions.

    space: "z" mixes the variables themselves, as the paper does under N(0, I). "noise" mixes their standardized noise,
    which every prior turns into z of its own: under a hierarchical prior no mixture falls out of what was learned.
    Under N(0, I) both are the same. A label is that of the nearer image.
    """
    for share in shares:
        if share in (0, 1):
            yield reconstruct(model, second if share else first)
            continue
        nearer = first if share < 0.5 else second
        low = None
        if first.low_resolution is not None and second.low_resolution is not None:
            low = mix(first.low_resolution, second.low_resolution, share, "linear")
        pairs = zip(*((encoded.z if space == "z" else encoded.noise) for encoded in (first, second)), strict=True)
        between = [mix(one, other, share, route) for one, other in pairs]
        if space == "z":
            yield model.decode(between, nearer.label, low_resolution=low).mean
        else:
            nothing = [None] * len(between)
            yield model.decode(nothing, nearer.label, between, low_resolution=low).mean


def mix(first: Tensor, second: Tensor, share: float, route: Route) -> Tensor:
    """Between two tensors of one shape: along the line, or along the arc that keeps to their norms."""
    if share == 0:
        return first
    if share == 1:
        return second
    if route == "linear":
        return (1 - share) * first + share * second
    one, other = (values.double().flatten() for values in (first, second))
    cosine = (one @ other) / (one.norm() * other.norm()).clamp(min=1e-300)
    angle = float(torch.arccos(cosine.clamp(-1, 1)))
    if angle < PARALLEL or torch.pi - angle < PARALLEL:
        return (1 - share) * first + share * second
    weights = torch.sin(torch.tensor([(1 - share) * angle, share * angle], dtype=torch.float64)) / torch.sin(
        torch.tensor(angle, dtype=torch.float64)
    )
    return (weights[0] * one + weights[1] * other).reshape(first.shape).to(first.dtype)


@torch.no_grad()
def sample(model: HierarchicalVAE, noise: Sequence[Tensor], conditions: Conditions = UNCONDITIONED) -> Tensor:
    """(1, d, R, R) from noise alone."""
    guidance = conditions.guidance
    return model.sample(
        1,
        conditions.label,
        noise,
        conditions.temperature,
        guidance.mean,
        guidance.variance,
        conditions.low_resolution,
    )


def set_channel(noise: Sequence[Tensor], group: int, channel: int, value: float | Tensor) -> list[Tensor]:
    """The same noise but for one channel of one group, which holds `value` everywhere (or these (r, r) values)."""
    changed = noise[group].clone()
    changed[:, channel] = value
    return [changed if number == group else each for number, each in enumerate(noise)]


def traverse(
    model: HierarchicalVAE,
    noise: Sequence[Tensor],
    down: ChannelSweep,
    across: ChannelSweep,
    conditions: Conditions = UNCONDITIONED,
) -> Iterator[Tensor]:
    """A grid of samples (1, d, R, R), row by row: all noise is fixed but for two channels (figure 4)."""
    check_sweeps(model.config, (down, across))
    for vertical in down.values:
        row = set_channel(noise, down.group, down.channel, vertical)
        for horizontal in across.values:
            both = set_channel(row, across.group, across.channel, horizontal)
            yield sample(model, both, conditions)


def check_sweeps(config: ModelConfig, sweeps: Sequence[ChannelSweep]) -> None:
    """LvaeError where there is no such channel, or one is swept twice."""
    groups = sum(config.groups)
    for sweep in sweeps:
        if not (0 <= sweep.group < groups and 0 <= sweep.channel < config.z_channels):
            raise LvaeError(
                f"group {sweep.group}, channel {sweep.channel}",
                f"this model has groups 0 to {groups - 1} of channels 0 to {config.z_channels - 1}",
            )
    if len({(sweep.group, sweep.channel) for sweep in sweeps}) != len(sweeps):
        raise LvaeError("", "a traversal needs two different channels")


@torch.no_grad()
def outpaint(
    model: HierarchicalVAE,
    encoded: EncodedImage,
    margins: Margins,
    noise: Sequence[Tensor],
    guidance: Guidance = UNGUIDED,
) -> Tensor:
    """(1, d, R + top + bottom, R + left + right): the image goes on beyond its frame, in one pass (figure 6).

    Groups of 1x1 are kept: what the whole image is like goes for the new parts, too. Every other group is the image's
    inside the frame, and drawn outside of it. noise: as `draw_noise` gives it for the size of `canvas`.
    """
    if not margins:
        return reconstruct(model, encoded)
    grid, shown = plan_canvas(model.config, margins)
    extents = dict(zip(model.config.resolutions, model.config.sizes(grid.size), strict=True))
    z: list[Tensor | None] = []
    keep: list[Tensor | None] = []
    for given, resolution in zip(encoded.z, model.config.group_resolutions, strict=True):
        if resolution == 1:
            z.append(given)
            keep.append(None)
            continue
        top, left = (side * resolution // model.config.resolution for side in (grid.top, grid.left))
        placed = given.new_zeros(*given.shape[:2], *extents[resolution])
        inside = torch.zeros(1, 1, *extents[resolution], dtype=torch.bool, device=given.device)
        placed[..., top : top + resolution, left : left + resolution] = given
        inside[..., top : top + resolution, left : left + resolution] = True
        z.append(placed)
        keep.append(inside)
    wide = model.decode(z, encoded.label, noise, keep, guidance, size=grid.size).mean
    return wide[..., shown[0], shown[1]]


@dataclass(frozen=True)
class Canvas:
    """What is generated: (height, width) of the latents, and where the given ones begin in it."""

    size: tuple[int, int]
    top: int
    left: int


def plan_canvas(config: ModelConfig, margins: Margins) -> tuple[Canvas, tuple[slice, slice]]:
    """The smallest one that holds the margins on the grid of the lowest square resolution, and what is shown of it.

    A position of the 4x4 groups stands for R/4 rows and columns: the canvas is made of whole ones, and what was not
    asked for is cut off.
    """
    if min(margins.left, margins.right, margins.top, margins.bottom) < 0:
        raise LvaeError("an image is outpainted by columns and rows outside of it", "give numbers of 0 or more")
    step = max(1, config.resolution // 4)
    left, right, top, bottom = (
        -(-side // step) * step for side in (margins.left, margins.right, margins.top, margins.bottom)
    )
    size = config.resolution + top + bottom, config.resolution + left + right
    rows = slice(top - margins.top, top + config.resolution + margins.bottom)
    columns = slice(left - margins.left, left + config.resolution + margins.right)
    return Canvas(size, top, left), (rows, columns)


def reconstruct_depths(
    model: HierarchicalVAE,
    encoded: EncodedImage,
    counts: Sequence[int],
    noise: Sequence[Tensor],
    guidance: Guidance = UNGUIDED,
) -> Iterator[Tensor]:
    """Latents (1, d, R, R) with the first k groups of the image and the rest drawn with this noise, for every k.

    All groups given: the reconstruction; none: a sample.
    """
    for count in counts:
        yield _with_first(model, encoded, count, noise, guidance)


@torch.no_grad()
def _with_first(
    model: HierarchicalVAE, encoded: EncodedImage, count: int, noise: Sequence[Tensor], guidance: Guidance
) -> Tensor:
    if count >= len(encoded.z):
        return reconstruct(model, encoded)
    given = [z if number < count else None for number, z in enumerate(encoded.z)]
    return model.decode(
        given,
        encoded.label,
        noise,
        guidance=guidance,
        low_resolution=encoded.low_resolution,
    ).mean


def count_groups_through(config: ModelConfig) -> list[tuple[int, int]]:
    """How many groups reach through each resolution, lowest first: (resolution, groups up to and with it)."""
    total, result = 0, []
    for resolution, groups in zip(reversed(config.resolutions), reversed(config.groups), strict=True):
        total += groups
        result.append((resolution, total))
    return result
