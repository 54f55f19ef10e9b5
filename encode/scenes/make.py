"""The small world: labelled little pictures by seed, for demonstrations and tests that need no download.

Eight things that a person tells apart at once, each with its own colours, place, size, light and grain. Picture i is
a function of (seed, i), of the size and of whether it is night there; its class is i modulo 8. Drawn at four times the
size and reduced. By day no class is far from a Gaussian; a share of nights makes every class two things in one.
"""

import io
import os
import re
from bisect import bisect_left
from collections.abc import Callable
from math import cos, pi, sin
from operator import itemgetter
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from lvae.encode.scenes.drawing import CLASSES, MOTIFS, Brush
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.seeds import derive

OVERSAMPLING = 4
LARGEST_SIZE = 1024
LARGEST_COUNT = 10_000_000
UNFINISHED = ".unfinished"
NAME = re.compile(rf"({'|'.join(CLASSES)})/\d{{7}}\.png")
MOONLIGHT = np.array([0.75, 0.85, 1.15], np.float32)  # of red, green and blue
DARKNESS = (0.08, 0.2)  # how much of the light is left at night
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly however many there are


def write_scenes(
    folder: Path,
    count: int,
    size: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
    night: float = 0,
) -> None:
    """Write `count` PNGs of size x size into folders by class; `progress` is told of each one that is there.

    night: the share of pictures at night, 0 to 1. Pictures that are there already are left alone, so a run that was cut
    short goes on. Raises LvaeError where the folder holds anything else, or pictures of another size, seed or share.
    """
    if not 8 <= size <= LARGEST_SIZE or not 0 < count <= LARGEST_COUNT:
        raise LvaeError(
            "", (f"1 to {LARGEST_COUNT} pictures of 8 to {LARGEST_SIZE} pixels a side; asked for {count} of {size}")
        )
    width = len(str(LARGEST_COUNT - 1))
    wanted = {f"{CLASSES[i % len(CLASSES)]}/{i:0{width}}.png": i for i in range(count)}
    _check_folder(folder, wanted, size, seed, night)
    for name in CLASSES[:count]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in sorted(wanted, key=lambda name: wanted[name] != count - 1):  # the last says how many there are to be
        path, index = folder / name, wanted[name]
        if not path.exists():
            unfinished = path.with_suffix(UNFINISHED)
            unfinished.write_bytes(_png(scene(seed, index, size, night)))
            unfinished.replace(path)
        if progress is not None:
            progress(1)


def count_scenes(folder: Path) -> int:
    """How many pictures a world has, or is to have where its drawing was cut short; 0 where there is none."""
    return max(
        (int(path.stem) + 1 for path in folder.glob("*/*.png") if NAME.fullmatch(_name(folder, path))), default=0
    )


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def scene(seed: int, index: int, size: int, night: float = 0) -> Image.Image:
    """Picture `index`: RGB, size x size. With a larger share of nights, what was night before is so still."""
    random = Random(derive(seed, "scene", index))
    brush = Brush(size * OVERSAMPLING, random)
    MOTIFS[CLASSES[index % len(CLASSES)]](brush)
    by_day = _light(brush.image.reduce(OVERSAMPLING), random, derive(seed, "grain", index))
    hour, darkness = _hour(seed, index)
    return by_day if hour >= night else _dim(by_day, darkness)


def _hour(seed: int, index: int) -> tuple[float, float]:
    """(0..1, below the share of nights it is one; how dark it would be). Hours of a class are spread evenly."""
    number, of_class = divmod(index, len(CLASSES))
    hour = (Random(derive(seed, "first hour", of_class)).random() + number * GOLDEN) % 1
    least, most = DARKNESS
    return hour, least + (most - least) * Random(derive(seed, "darkness", index)).random()


def _dim(image: Image.Image, darkness: float) -> Image.Image:
    dim = np.asarray(image, np.float32) * (darkness * MOONLIGHT)
    return Image.fromarray(dim.round().clip(0, 255).astype(np.uint8))


def _light(image: Image.Image, random: Random, grain_seed: int) -> Image.Image:
    """Light from one side, a colour cast and grain."""
    side = image.width
    towards, strength = 2 * pi * random.random(), 0.04 + 0.14 * random.random()
    across = np.linspace(-1, 1, side, dtype=np.float32)
    light = 1 + strength * (cos(towards) * across[None, :] + sin(towards) * across[:, None])
    cast = np.array([1 + 0.08 * (random.random() - 0.5) for _ in range(3)], np.float32)
    draws = np.random.PCG64(grain_seed).random_raw((3 * side * side + 7) // 8).astype("<u8").view(np.uint8)
    grain = draws[: 3 * side * side].reshape(side, side, 3).astype(np.float32) / 127.5 - 1
    lit = np.asarray(image, np.float32) * light[..., None].astype(np.float32) * cast
    return Image.fromarray((lit + (2 + 5 * random.random()) * grain).round().clip(0, 255).astype(np.uint8))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _check_folder(folder: Path, wanted: dict[str, int], size: int, seed: int, night: float) -> None:
    """Nothing but our own pictures may be in the way. The first and the last of them tell whose they are, and those
    whose hours are next to the share of nights whether it is the same."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise LvaeError(folder, "is not a folder")
    there: list[str] = []
    for parent, _, files in os.walk(folder):
        there += [_name(folder, Path(parent, name)) for name in files]
    ours = sorted((wanted[name], name) for name in there if name in wanted)
    strange = [name for name in there if name not in wanted and not name.endswith(UNFINISHED)]
    if strange and all(map(NAME.fullmatch, strange)):
        here = counted(len(ours) + len(strange), "picture")
        raise LvaeError(folder, f"holds {here}, and {len(wanted)} are asked for", "Name a new or empty folder.")
    if strange:
        raise LvaeError(folder, f"holds {min(strange)}, which is not of this world", "Name a new or empty folder.")
    by_hour = sorted((_hour(seed, index)[0], index, name) for index, name in ours)
    dawn = bisect_left(by_hour, night, key=itemgetter(0))
    telling = {*ours[:1], *ours[-1:], *(picture[1:] for picture in by_hour[max(0, dawn - 1) : dawn + 1])}
    for index, name in telling:
        if (folder / name).read_bytes() != _png(scene(seed, index, size, night)):
            raise LvaeError(
                folder, "holds pictures of another size, seed or share of nights", "Name a new or empty folder."
            )
