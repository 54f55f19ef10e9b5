"""The pictures of section 5, and the arrays behind them: from a run and images to what a person looks at."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.figures.grids import LARGE, Block, Row, draw_grid
from lvae.evaluate.manipulation.loaded_run import InputImage, LoadedRun
from lvae.evaluate.manipulation.operations import (
    ChannelSweep,
    Conditions,
    EncodedImage,
    Margins,
    check_sweeps,
    count_groups_through,
    interpolate,
    outpaint,
    plan_canvas,
    reconstruct,
    reconstruct_depths,
    sample,
    traverse,
)
from lvae.evaluate.manipulation.rates import Rates
from lvae.evaluate.manipulation.requests import Draws, Interpolation, Traversal

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int], None]
FRAMED = "Framed: the images. "


@dataclass(frozen=True)
class Figure:
    """A picture for people, and the arrays behind it (latents are normalized)."""

    picture: Image.Image
    arrays: Arrays


def _be_silent(_: int) -> None:
    pass


# --- figure 4 --------------------------------------------------------------------------------------------------------


def show_traversal(
    loaded: LoadedRun, asked: Traversal, draws: Draws, rates: Rates | None = None, progress: Progress = _be_silent
) -> Figure:
    """A grid of samples of one noise but for two channels."""
    model, across, down = loaded.model, asked.across, asked.down
    check_sweeps(model.config, (across, down))
    noise = loaded.draw_noise(draws.seed, "traverse", asked.index)
    low = None if asked.image is None else model.reduce(torch.from_numpy(asked.image.latents[None]).to(loaded.device))
    conditions = Conditions(loaded.label(asked.label), low, draws.guidance, asked.temperature)
    own = sample(model, noise, conditions)
    latents = _collect(traverse(model, noise, down, across, conditions), progress)
    pixels = loaded.decode(latents)
    columns = len(across.values)
    rows = []
    for number, value in enumerate(down.values):
        cells = [Captioned(one) for one in pixels[number * columns : (number + 1) * columns]]
        rows.append(Row(f"{value:+.2f}", tuple(cells)))
    beside = Captioned(loaded.decode_one(own), original=True)
    rows[0] = Row(rows[0].name, (*rows[0].cells, beside))
    blocks = [Block("", columns, tuple(f"{value:+.2f}" for value in across.values)), Block("", 1, ("the sample",))]
    values = [float(noise[sweep.group][:, sweep.channel].mean()) for sweep in (across, down)]
    on_average = " on average" if max(noise[sweep.group].shape[-1] for sweep in (across, down)) > 1 else ""
    note = f"The sample itself is framed; it has {values[0]:.2f} and {values[1]:.2f} there{on_average}. "
    title = (
        f"Left to right: {_describe_channel(loaded, across, rates)}; top to bottom: "
        f"{_describe_channel(loaded, down, rates)}; all other noise fixed (seed {draws.seed})"
        f"{_describe_class(loaded, asked.label)}"
    )
    shape = len(down.values), columns
    arrays: Arrays = {
        "latents": latents.reshape(*shape, *latents.shape[1:]),
        "pixels": pixels.reshape(*shape, *pixels.shape[1:]),
        "across": np.array(across.values),
        "down": np.array(down.values),
        "group_and_channel_across": np.array([across.group, across.channel]),
        "group_and_channel_down": np.array([down.group, down.channel]),
        "drawn_across": _to_numpy(noise[across.group][0, across.channel]),
        "drawn_down": _to_numpy(noise[down.group][0, down.channel]),
        "sample_latents": _to_numpy(own)[0],
        **_name_groups("noise", noise),
    }
    return Figure(draw_grid(title, blocks, rows, f"{note}{_remark(loaded)}".strip(), LARGE), arrays)


# --- figure 5 --------------------------------------------------------------------------------------------------------


def show_interpolation(
    loaded: LoadedRun,
    images: Sequence[InputImage],
    asked: Interpolation,
    draws: Draws,
    progress: Progress = _be_silent,
) -> Figure:
    """A row a pair: an image, its reconstruction, `steps` pictures between, the other's reconstruction, the other."""
    hierarchical = loaded.model.config.hierarchical_prior
    space = asked.space or ("noise" if hierarchical else "z")
    shares = [float(share) for share in np.linspace(0, 1, asked.steps + 2)]
    captions = ["reconstruction", *(f"{share:.2f}" for share in shares[1:-1]), "reconstruction"]
    encoded = _encode(loaded, images, draws)
    rows, latents, pixels = [], [], []
    for first, second in asked.pairs:
        way = interpolate(loaded.model, encoded[first], encoded[second], shares, space, asked.route)
        latents.append(_collect(way, progress))
        pixels.append(loaded.decode(latents[-1]))
        between = [Captioned(one, caption) for one, caption in zip(pixels[-1], captions, strict=True)]
        rows.append([_frame(images[first]), *between, _frame(images[second])])
    what = "standardized noise" if space == "noise" else "z"
    route = "straight line" if asked.route == "linear" else "arc"
    ends = "means" if draws.mean else f"draws (seed {draws.seed})"
    note = FRAMED
    if hierarchical and space == "z":
        note += "Under this hierarchical prior, z between two posteriors may lie where the model never was. "
    picture = _draw(loaded, rows, f"Between real images: a {route} in {what} from posterior {ends}", note)
    more: Arrays = {"shares": np.array(shares), "pairs": np.array(asked.pairs)}
    arrays = _name_arrays(loaded, images, encoded, (latents, pixels), more)
    for name, variables in (("z", [one.z for one in encoded]), ("noise", [one.noise for one in encoded])):
        arrays |= _name_groups(name, [torch.cat(parts) for parts in zip(*variables, strict=True)])
    return Figure(picture, arrays)


# --- figure 6 --------------------------------------------------------------------------------------------------------


def show_outpainting(
    loaded: LoadedRun,
    images: Sequence[InputImage],
    margins: Margins,
    count: int,
    draws: Draws,
    progress: Progress = _be_silent,
) -> Figure:
    """A row an image: itself, and `count` ways in which it may go on."""
    config = loaded.model.config
    size = plan_canvas(config, margins)[0].size if margins else None
    encoded = _encode(loaded, images, draws)
    rows, latents, pixels = [], [], []
    for number, (image, one) in enumerate(zip(images, encoded, strict=True)):
        noises = (loaded.draw_noise(draws.seed, f"outpaint {draw}", number, size) for draw in range(count))
        wide = (outpaint(loaded.model, one, margins, noise, draws.guidance) for noise in noises)
        latents.append(_collect(wide, progress))
        pixels.append(loaded.decode(latents[-1]))
        times = pixels[-1].shape[1] // latents[-1].shape[2]
        side = times * config.resolution
        given = times * margins.top, times * margins.left, side, side
        names = [f"draw {draw}" if count > 1 else "" for draw in range(count)]
        cells = [Captioned(each, name, given=given) for each, name in zip(pixels[-1], names, strict=True)]
        rows.append([_frame(image), *cells])
    sides = [f"{value} {name}" for name, value in vars(margins).items() if value]
    title = f"Outpainted by latents: {', '.join(sides) or 'nothing'} (seed {draws.seed}){_describe_guidance(draws)}"
    note = f"{FRAMED}Lines beside the others: the part whose posterior was given; the rest is drawn. "
    picture = _draw(loaded, rows, title, note)
    around = np.array([margins.left, margins.right, margins.top, margins.bottom])
    more: Arrays = {"margins_left_right_top_bottom": around}
    return Figure(picture, _name_arrays(loaded, images, encoded, (latents, pixels), more))


# --- what each resolution decides ------------------------------------------------------------------------------------


def show_depths(
    loaded: LoadedRun,
    images: Sequence[InputImage],
    every_group: bool,
    draws: Draws,
    rates: Rates | None = None,
    progress: Progress = _be_silent,
) -> Figure:
    """A row an image: itself, then with its first k groups given and the rest drawn, for every k."""
    config = loaded.model.config
    reached = {total: f"{resolution}x{resolution}" for resolution, total in count_groups_through(config)}
    groups, resolutions = sum(config.groups), config.group_resolutions
    counts = list(range(groups + 1)) if every_group else [0, *reached]
    encoded = _encode(loaded, images, draws)
    rows, latents, pixels = [], [], []
    for number, (image, one) in enumerate(zip(images, encoded, strict=True)):
        noise = loaded.draw_noise(draws.seed, "depths", number)
        latents.append(_collect(reconstruct_depths(loaded.model, one, counts, noise, draws.guidance), progress))
        pixels.append(loaded.decode(latents[-1]))
        rows.append([_frame(image), *map(Captioned, pixels[-1])])
    headings = ["the image"]
    for count in counts:
        if count == 0:
            headings.append("nothing given: a sample")
        elif count == groups:
            headings.append(f"all {groups}: the reconstruction")
        elif count in reached:
            headings.append(f"first {count}: through {reached[count]}")
        else:
            headings.append(f"first {count}: in {resolutions[count - 1]}x{resolutions[count - 1]}")
    title = f"The first k groups of the image, the others drawn (seed {draws.seed}){_describe_guidance(draws)}"
    note = FRAMED
    if rates is not None:
        nats = ", ".join(f"{size}x{size} {nats:.0f}" for size, nats in rates.by_resolution.items())
        note += f"Rate by resolution over {rates.images} latents, nats: {nats}. "
    picture = _draw(loaded, rows, title, note, headings)
    more: Arrays = {"groups_given": np.array(counts)}
    return Figure(picture, _name_arrays(loaded, images, encoded, (latents, pixels), more))


# --- shared by them --------------------------------------------------------------------------------------------------


def _encode(loaded: LoadedRun, images: Sequence[InputImage], draws: Draws) -> list[EncodedImage]:
    return [loaded.encode(image, draws.seed, number, draws.mean) for number, image in enumerate(images)]


def _collect(latents: Iterable[Tensor], progress: Progress) -> NDArray[np.float32]:
    found = []
    for one in latents:
        found.append(_to_numpy(one))
        progress(1)
    return np.concatenate(found)


def _frame(image: InputImage) -> Captioned:
    return Captioned(image.pixels, image.name, original=True)


def _draw(
    loaded: LoadedRun, rows: Sequence[Sequence[Captioned]], title: str, note: str, headings: Sequence[str] = ()
) -> Image.Image:
    block = Block("", max(map(len, rows)), tuple(headings))
    return draw_grid(title, [block], [Row("", tuple(row)) for row in rows], f"{note}{_remark(loaded)}".strip(), LARGE)


def _to_numpy(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return found


def _name_groups(name: str, groups: Sequence[Tensor]) -> Arrays:
    return {f"{name}_{number:03d}": _to_numpy(values) for number, values in enumerate(groups)}


def _name_arrays(
    loaded: LoadedRun,
    images: Sequence[InputImage],
    encoded: Sequence[EncodedImage],
    made: tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.uint8]]],
    more: Arrays,
) -> Arrays:
    """What all figures of images write. made: latents and pixels of every row."""
    return {
        "latents": np.stack(made[0]),
        "pixels": np.stack(made[1]),
        **more,
        "originals": np.stack([image.latents for image in images]),
        "original_pixels": np.stack([image.pixels for image in images]),
        "labels": np.array([image.label for image in images]),
        "reconstructions": np.concatenate([_to_numpy(reconstruct(loaded.model, one)) for one in encoded]),
    }


def _describe_channel(loaded: LoadedRun, sweep: ChannelSweep, rates: Rates | None) -> str:
    resolution = loaded.model.config.group_resolutions[sweep.group]
    name = f"channel {sweep.channel} of group {sweep.group} ({resolution}x{resolution}"
    if rates is None:
        return f"{name})"
    group = rates.groups[sweep.group]
    return f"{name}, {group.channel_nats[sweep.channel]:.2f} of its {group.nats:.2f} nats)"


def _describe_class(loaded: LoadedRun, label: int) -> str:
    name = loaded.name_class(label)
    return f", class {name}" if name is not None and not name.startswith("class ") else f", {name}" if name else ""


def _describe_guidance(draws: Draws) -> str:
    weights = [
        tuple(one) if isinstance(one, Sequence) else (one,) for one in (draws.guidance.mean, draws.guidance.variance)
    ]
    if not any(map(any, weights)):
        return ""
    means, variances = (",".join(f"{weight:g}" for weight in one) for one in weights)
    return f", guidance of means {means}, of variances {variances}"


def _remark(loaded: LoadedRun) -> str:
    return "" if loaded.network is not None else "False colours: the autoencoder's weights are not there."
