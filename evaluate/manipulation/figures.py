"""The pictures of section 5, and the arrays behind them: from a run and images to what a person looks at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lvae.evaluate.figures.charts import chart_shares
from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.figures.grids import LARGE, Block, Row, draw_grid
from lvae.evaluate.figures.render import render_png
from lvae.evaluate.manipulation.loaded_run import Studio, Subject
from lvae.evaluate.manipulation.operations import (
    UNGUIDED,
    Code,
    Guide,
    Margins,
    Path,
    Space,
    Sweep,
    canvas,
    check_sweeps,
    depths,
    interpolate,
    outpaint,
    reconstruct,
    sample,
    steps_of,
    traverse,
)
from lvae.evaluate.manipulation.rates import Rates
from lvae.manifests.errors import LvaeError

Arrays = dict[str, NDArray[Any]]
Progress = Callable[[int], None]
ARC = 2.25  # how far figure 4 goes, in standard deviations


@dataclass(frozen=True)
class Shown:
    """A picture for people, and the arrays behind it (latents are normalized)."""

    picture: Image.Image
    arrays: Arrays


def _silent(_: int) -> None:
    pass


# --- figure 4 --------------------------------------------------------------------------------------------------------


def sweep_values(steps: int, low: float = -ARC, high: float = ARC) -> tuple[float, ...]:
    """Linearly from low to high."""
    return tuple(float(value) for value in np.linspace(low, high, steps))


def most_informative(rates: Rates) -> tuple[tuple[int, int], tuple[int, int]]:
    """Group and channel with the largest rate, in each of the first two groups."""
    if len(rates.groups) < 2:
        raise LvaeError("this model has one group only", "name two of its channels, as in --channels 0:3,0:5")
    first, second = rates.groups[:2]
    return (0, first.most_informative), (1, second.most_informative)


def show_traversal(
    studio: Studio,
    across: Sweep,
    down: Sweep,
    seed: int,
    index: int = 0,
    label: int = -1,
    subject: Subject | None = None,
    guide: Guide = UNGUIDED,
    temperature: float = 1.0,
    rates: Rates | None = None,
    progress: Progress = _silent,
) -> Shown:
    """A grid of samples of one noise but for two channels. subject: whose low resolution an upsampler begins with."""
    model = studio.model
    check_sweeps(model.config, (across, down))
    noise, told = studio.noise(seed, "traverse", index), studio.label(label)
    low = None
    if subject is not None:
        low = model.reduce(torch.from_numpy(subject.latents[None]).to(studio.device))
    drawn = sample(model, noise, told, low, guide, temperature)
    grid = []
    for latents in traverse(model, noise, down, across, told, low, guide, temperature):
        grid.append(latents)
        progress(1)
    found = _stacked(grid)
    pixels = studio.pictures(found)
    columns = len(across.values)
    rows: list[list[Captioned]] = [
        [Captioned(one) for one in pixels[start : start + columns]] for start in range(0, len(pixels), columns)
    ]
    values = [float(noise[sweep.group][:, sweep.channel].mean()) for sweep in (across, down)]
    note = f"The sample itself is framed; it has {values[0]:.2f} and {values[1]:.2f} there" + (
        " on average." if max(noise[sweep.group].shape[-1] for sweep in (across, down)) > 1 else "."
    )
    rows[0].append(Captioned(studio.picture(drawn), "the sample", original=True))
    title = (
        f"Left to right: {_channel(studio, across, rates)}; top to bottom: {_channel(studio, down, rates)}; "
        f"all other noise fixed (seed {seed})" + _of_class(studio, label)
    )
    picture = _draw_rows(
        rows,
        title,
        f"{note} {_remark(studio)}".strip(),
        [f"{value:+.2f}" for value in across.values] + [""],
        [f"{value:+.2f}" for value in down.values],
    )
    shape = len(down.values), columns
    arrays: Arrays = {
        "latents": found.reshape(*shape, *found.shape[1:]),
        "pixels": pixels.reshape(*shape, *pixels.shape[1:]),
        "across": np.array(across.values),
        "down": np.array(down.values),
        "group_and_channel_across": np.array([across.group, across.channel]),
        "group_and_channel_down": np.array([down.group, down.channel]),
        "drawn_across": _numpy(noise[across.group][0, across.channel]),
        "drawn_down": _numpy(noise[down.group][0, down.channel]),
        "sample_latents": _numpy(drawn)[0],
        **_by_group("noise", noise),
    }
    return Shown(picture, arrays)


def _channel(studio: Studio, sweep: Sweep, rates: Rates | None) -> str:
    resolution = studio.model.config.group_resolutions[sweep.group]
    name = f"channel {sweep.channel} of group {sweep.group} ({resolution}x{resolution}"
    if rates is None:
        return f"{name})"
    group = rates.groups[sweep.group]
    return f"{name}, {group.channel_nats[sweep.channel]:.2f} of its {group.nats:.2f} nats)"


# --- figure 5 --------------------------------------------------------------------------------------------------------


def pairs_of(count: int, which: Literal["chain", "all"]) -> list[tuple[int, int]]:
    """Which images are joined: each with the next, or every two."""
    if count < 2:
        raise LvaeError("", "an interpolation needs two images or more", "Name more of them.")
    return list(pairwise(range(count))) if which == "chain" else list(combinations(range(count), 2))


def show_interpolation(
    studio: Studio,
    subjects: Sequence[Subject],
    pairs: Sequence[tuple[int, int]],
    steps: int,
    seed: int,
    space: Space | None = None,
    path: Path = "linear",
    mean: bool = False,
    progress: Progress = _silent,
) -> Shown:
    """A row a pair: an image, its reconstruction, `steps` pictures between, the other's reconstruction, the other."""
    hierarchical = studio.model.config.hierarchical_prior
    space = ("noise" if hierarchical else "z") if space is None else space
    shares = [float(share) for share in np.linspace(0, 1, steps + 2)]
    codes = _codes(studio, subjects, seed, mean)
    rows, everything = [], []
    for first, second in pairs:
        way = []
        for latents in interpolate(studio.model, codes[first], codes[second], shares, space, path):
            way.append(latents)
            progress(1)
        found = _stacked(way)
        everything.append(found)
        captions = ["reconstruction", *(f"{share:.2f}" for share in shares[1:-1]), "reconstruction"]
        cells = [Captioned(one, caption) for one, caption in zip(studio.pictures(found), captions, strict=True)]
        ends = [Captioned(subjects[end].pixels, subjects[end].name, original=True) for end in (first, second)]
        rows.append([ends[0], *cells, ends[1]])
    what = "standardized noise" if space == "noise" else "z"
    way_name = "straight line" if path == "linear" else "arc"
    title = f"Between real images: a {way_name} in {what} from posterior {'means' if mean else f'draws (seed {seed})'}"
    note = "Framed: the images. "
    if hierarchical and space == "z":
        note += "Under this hierarchical prior, z between two posteriors may lie where the model never was. "
    picture = _draw_rows(rows, title, f"{note}{_remark(studio)}".strip())
    arrays: Arrays = {
        "latents": np.stack(everything),
        "pixels": np.stack([studio.pictures(found) for found in everything]),
        "shares": np.array(shares),
        "pairs": np.array(pairs),
        **_originals(subjects),
        "reconstructions": _stacked([reconstruct(studio.model, code) for code in codes]),
        **_by_group("z", [torch.cat(parts) for parts in zip(*(code.z for code in codes), strict=True)]),
        **_by_group("noise", [torch.cat(parts) for parts in zip(*(code.noise for code in codes), strict=True)]),
    }
    return Shown(picture, arrays)


# --- figure 6 --------------------------------------------------------------------------------------------------------


def show_outpainting(
    studio: Studio,
    subjects: Sequence[Subject],
    margins: Margins,
    count: int,
    seed: int,
    guide: Guide = UNGUIDED,
    mean: bool = False,
    progress: Progress = _silent,
) -> Shown:
    """A row an image: itself, and `count` ways in which it may go on."""
    config = studio.model.config
    size = canvas(config, margins)[0].size
    codes = _codes(studio, subjects, seed, mean)
    rows, everything, pictures = [], [], []
    for number, (subject, code) in enumerate(zip(subjects, codes, strict=True)):
        wide = []
        for draw in range(count):
            noise = studio.noise(seed, f"outpaint {draw}", number, size if margins else None)
            wide.append(outpaint(studio.model, code, margins, noise, guide))
            progress(1)
        found = _stacked(wide)
        pixels = studio.pictures(found)
        times = pixels.shape[1] // found.shape[2]
        given = tuple(times * side for side in (margins.top, margins.left, config.resolution, config.resolution))
        everything.append(found)
        pictures.append(pixels)
        drawn = [Captioned(one, f"draw {draw}" if count > 1 else "", given=given) for draw, one in enumerate(pixels)]
        rows.append([Captioned(subject.pixels, subject.name, original=True), *drawn])
    sides = [f"{value} {name}" for name, value in vars(margins).items() if value]
    title = f"Outpainted by latents: {', '.join(sides) or 'nothing'} (seed {seed}){_guided(guide)}"
    note = "Framed: the images. Lines beside the others: the part whose posterior was given; the rest is drawn. "
    picture = _draw_rows(rows, title, f"{note}{_remark(studio)}".strip())
    arrays: Arrays = {
        "latents": np.stack(everything),
        "pixels": np.stack(pictures),
        "margins_left_right_top_bottom": np.array([margins.left, margins.right, margins.top, margins.bottom]),
        **_originals(subjects),
        "reconstructions": _stacked([reconstruct(studio.model, code) for code in codes]),
    }
    return Shown(picture, arrays)


# --- what each resolution decides ------------------------------------------------------------------------------------


def show_depths(
    studio: Studio,
    subjects: Sequence[Subject],
    every_group: bool,
    seed: int,
    guide: Guide = UNGUIDED,
    mean: bool = False,
    rates: Rates | None = None,
    progress: Progress = _silent,
) -> Shown:
    """A row an image: itself, then with its first k groups given and the rest drawn, for every k."""
    config = studio.model.config
    through = steps_of(config)
    groups = sum(config.groups)
    counts = list(range(groups + 1)) if every_group else [0, *(total for _, total in through)]
    codes = _codes(studio, subjects, seed, mean)
    rows, everything = [], []
    for number, (subject, code) in enumerate(zip(subjects, codes, strict=True)):
        pictures = []
        for latents in depths(studio.model, code, counts, studio.noise(seed, "depths", number), guide):
            pictures.append(latents)
            progress(1)
        found = _stacked(pictures)
        everything.append(found)
        cells = [Captioned(one) for one in studio.pictures(found)]
        rows.append([Captioned(subject.pixels, subject.name, original=True), *cells])
    reached = {total: f"{resolution}x{resolution}" for resolution, total in through}
    resolutions = config.group_resolutions
    columns = ["the image"]
    for count in counts:
        if count == 0:
            columns.append("nothing given: a sample")
        elif count == groups:
            columns.append(f"all {groups}: the reconstruction")
        elif count in reached:
            columns.append(f"first {count}: through {reached[count]}")
        else:
            columns.append(f"first {count}: in {resolutions[count - 1]}x{resolutions[count - 1]}")
    title = f"The first k groups of the image, the others drawn (seed {seed}){_guided(guide)}"
    note = "Framed: the images. "
    if rates is not None:
        shares = ", ".join(f"{size}x{size} {nats:.0f}" for size, nats in rates.by_resolution.items())
        note += f"Rate by resolution over {rates.images} images, nats: {shares}. "
    picture = _draw_rows(rows, title, f"{note}{_remark(studio)}".strip(), columns)
    arrays: Arrays = {
        "latents": np.stack(everything),
        "pixels": np.stack([studio.pictures(found) for found in everything]),
        "groups_given": np.array(counts),
        **_originals(subjects),
        "reconstructions": _stacked([reconstruct(studio.model, code) for code in codes]),
    }
    return Shown(picture, arrays)


def draw_rates(measured: Sequence[tuple[str, int, Rates]]) -> bytes:
    """Nats per resolution as a PNG, a panel a model: (its name, pixels of its pictures, its rates)."""
    charts = []
    for number, (name, size, rates) in enumerate(measured):
        title = f"{name}: {rates.nats:.0f} nats an image of {size} px, over {rates.images} images"
        shares = {side: nats / max(rates.nats, 1e-30) for side, nats in rates.by_resolution.items()}
        labels = [f"{nats:.1f} nats, {shares[side]:.1%}" for side, nats in rates.by_resolution.items()]
        charts.append(chart_shares(title, [f"{side}x{side}" for side in shares], list(shares.values()), labels, number))
    note = "Each bar is a share of its own model's rate, so models of different latents can stand beside one another."
    return render_png(charts, 1, "Where the nats go: rate by resolution of the groups", note)


# --- shared by them --------------------------------------------------------------------------------------------------


def _draw_rows(
    rows: Sequence[Sequence[Captioned]],
    title: str,
    note: str,
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Image.Image:
    block = Block("", max(map(len, rows)), tuple(columns))
    named = [Row(name, tuple(row)) for name, row in zip(names or [""] * len(rows), rows, strict=True)]
    return draw_grid(title, [block], named, note, LARGE)


def _codes(studio: Studio, subjects: Sequence[Subject], seed: int, mean: bool) -> list[Code]:
    return [studio.code(subject, seed, number, mean) for number, subject in enumerate(subjects)]


def _stacked(latents: Sequence[Tensor]) -> NDArray[np.float32]:
    return np.concatenate([_numpy(one) for one in latents])


def _numpy(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return found


def _by_group(name: str, groups: Sequence[Tensor]) -> Arrays:
    return {f"{name}_{number:03d}": _numpy(values) for number, values in enumerate(groups)}


def _originals(subjects: Sequence[Subject]) -> Arrays:
    return {
        "originals": np.stack([subject.latents for subject in subjects]),
        "original_pixels": np.stack([subject.pixels for subject in subjects]),
        "labels": np.array([subject.label for subject in subjects]),
    }


def _of_class(studio: Studio, label: int) -> str:
    name = studio.class_name(label)
    return f", class {name}" if name is not None and not name.startswith("class ") else f", {name}" if name else ""


def _guided(guide: Guide) -> str:
    def shown(weights: Any) -> str:
        return ",".join(f"{w:g}" for w in weights) if isinstance(weights, Sequence) else f"{weights:g}"

    def used(weights: Any) -> bool:
        return any(weights) if isinstance(weights, Sequence) else bool(weights)

    if not used(guide.mean) and not used(guide.variance):
        return ""
    return f", guidance of means {shown(guide.mean)}, of variances {shown(guide.variance)}"


def _remark(studio: Studio) -> str:
    return "" if studio.network is not None else "False colours: the first stage's weights are not there."
