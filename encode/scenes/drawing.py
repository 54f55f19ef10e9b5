"""The eight motifs of the small world, drawn with a seeded hand."""

import colorsys
from collections.abc import Callable, Iterable
from math import cos, pi, sin
from random import Random

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Brush:
    """Draws in units of the picture's side: (0, 0) is the top left corner, (1, 1) the bottom right one."""

    def __init__(self, side: int, random: Random):
        self.side, self.random = side, random
        self.image = Image.new("RGB", (side, side))
        self._draw = ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random()

    def colour(self, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
        """A colour from ranges in 0..1; a hue may leave it, being an angle."""
        return hsv(self.between(*hue), self.between(*saturation), self.between(*value))

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        self._draw.polygon([(x * self.side, y * self.side) for x, y in points], colour)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Iterable[Point], width: float, colour: Colour) -> None:
        pixels = [(x * self.side, y * self.side) for x, y in points]
        self._draw.line(pixels, colour, max(1, round(width * self.side)), joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        self.oval(x, y, radius, radius, 0, colour)

    def oval(self, x: float, y: float, a: float, b: float, turn: float, colour: Colour) -> None:
        """An ellipse with half axes a and b, the first one turned by an angle."""
        circle = [(a * cos(2 * pi * t / 40), b * sin(2 * pi * t / 40)) for t in range(40)]
        self.polygon(
            [(x + u * cos(turn) - v * sin(turn), y + u * sin(turn) + v * cos(turn)) for u, v in circle], colour
        )

    def gradient(self, top: float, bottom: float, above: Colour, below: Colour) -> None:
        """Fill the full width between two heights."""
        first, last = round(top * self.side), round(bottom * self.side)
        steps = np.linspace(above, below, max(2, last - first)).round().astype(np.uint8)[:, None]
        band = Image.fromarray(steps).resize((self.side, max(1, last - first)), Image.Resampling.NEAREST)
        self.image.paste(band, (0, first))

    def ridge(self, height: float, roughness: float, colour: Colour) -> None:
        """Ground with a soft upper edge around a height, down to the bottom."""
        waves = [(self.between(0.5, 1.5), self.between(0, 2 * pi)), (self.between(2, 3), self.between(0, 2 * pi))]
        edge = [
            (x / 24, height + roughness * sum(sin(2 * pi * often * x / 24 + shift) for often, shift in waves))
            for x in range(25)
        ]
        self.polygon([*edge, (1, 1), (0, 1)], colour)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(part * factor)) for part in colour)
    return red, green, blue


def _day_sky(brush: Brush, horizon: float, clouds: int = 2) -> None:
    hue = brush.between(0.53, 0.62)
    bright = brush.between(0.8, 1)
    brush.gradient(
        0, horizon, hsv(hue, brush.between(0.35, 0.75), bright), hsv(hue - 0.03, 0.12, min(1, bright + 0.08))
    )
    for _ in range(brush.random.randint(0, clouds)):
        x, y, width = brush.between(0.05, 0.95), brush.between(0.05, horizon * 0.55), brush.between(0.05, 0.1)
        for shift in (-1, 0, 1.1):
            brush.oval(
                x + shift * width, y - 0.02 * (shift == 0), width, width * 0.45, 0, shade((250, 250, 252), bright)
            )


def _balloon(brush: Brush) -> None:
    _day_sky(brush, 1, clouds=3)
    brush.ridge(brush.between(0.86, 0.93), 0.015, brush.colour((0.2, 0.4), (0.3, 0.6), (0.35, 0.6)))
    x, y, radius = brush.between(0.34, 0.66), brush.between(0.3, 0.42), brush.between(0.19, 0.26)
    hue = brush.between(-0.05, 0.15) if brush.random.random() < 0.7 else brush.between(0.75, 0.95)
    first = hsv(hue, 0.85, 0.92)
    second = brush.random.choice([(250, 246, 232), hsv(hue + 0.5, 0.6, 0.75), hsv(0.14, 0.8, 1)])
    basket = y + radius * 1.75
    for side in (-1, 1):
        brush.line(
            [(x + side * radius * 0.5, y + radius * 0.8), (x + side * radius * 0.16, basket)], 0.009, (70, 55, 45)
        )
    brush.polygon(
        [
            (x - radius * 0.8, y + radius * 0.6),
            (x + radius * 0.8, y + radius * 0.6),
            (x + radius * 0.24, y + radius * 1.3),
            (x - radius * 0.24, y + radius * 1.3),
        ],
        shade(first, 0.8),
    )
    for stripe, width in enumerate((1, 0.72, 0.4, 0.13)):
        brush.oval(x, y, radius * width, radius, 0, second if stripe % 2 else first)
    brush.rectangle(x - radius * 0.22, basket, x + radius * 0.22, basket + radius * 0.36, (124, 82, 44))
    brush.rectangle(x - radius * 0.25, basket, x + radius * 0.25, basket + radius * 0.09, (86, 54, 28))


def _boat(brush: Brush) -> None:
    horizon = brush.between(0.5, 0.66)
    _day_sky(brush, horizon)
    sea = brush.between(0.5, 0.62)
    brush.gradient(horizon, 1, hsv(sea, 0.5, 0.75), hsv(sea + 0.02, 0.8, brush.between(0.4, 0.55)))
    for _ in range(9):
        x, y = brush.between(0, 1), brush.between(horizon + 0.04, 0.98)
        brush.line([(x, y), (x + brush.between(0.05, 0.14), y)], 0.01, hsv(sea, 0.25, 0.9))
    x, y, width = brush.between(0.38, 0.62), brush.between(horizon + 0.06, horizon + 0.14), brush.between(0.2, 0.27)
    ahead = brush.random.choice((-1, 1))
    hull = brush.colour((-0.04, 0.1), (0.5, 0.9), (0.35, 0.75))
    top = y - brush.between(0.42, 0.5)
    brush.line([(x, y), (x, top - 0.03)], 0.018, (96, 64, 40))
    sail = brush.random.choice([(252, 250, 242), brush.colour((-0.05, 0.15), (0.6, 0.85), (0.85, 1))])
    brush.polygon([(x + ahead * 0.02, top), (x + ahead * width * 0.95, y - 0.05), (x + ahead * 0.02, y - 0.05)], sail)
    brush.polygon(
        [(x - ahead * 0.02, top + 0.05), (x - ahead * width * 0.6, y - 0.06), (x - ahead * 0.02, y - 0.06)],
        shade(sail, 0.84),
    )
    brush.polygon(
        [(x - width, y - 0.02), (x + width, y - 0.02), (x + width * 0.7, y + 0.1), (x - width * 0.7, y + 0.1)], hull
    )
    brush.rectangle(x - width, y - 0.02, x + width, y + 0.008, shade(hull, 1.45))


def _fish(brush: Brush) -> None:
    hue = brush.between(0.47, 0.6)
    brush.gradient(0, 1, hsv(hue, 0.5, brush.between(0.7, 0.9)), hsv(hue + 0.05, 0.85, brush.between(0.25, 0.4)))
    brush.ridge(brush.between(0.86, 0.93), 0.015, brush.colour((0.09, 0.13), (0.3, 0.5), (0.6, 0.85)))
    for _ in range(brush.random.randint(1, 3)):
        x, weed = brush.between(0.05, 0.95), brush.colour((0.28, 0.42), (0.5, 0.8), (0.3, 0.55))
        brush.line([(x + 0.02 * sin(t), 0.95 - 0.05 * t) for t in range(brush.random.randint(4, 7))], 0.022, weed)
    x, y, length = brush.between(0.4, 0.6), brush.between(0.34, 0.6), brush.between(0.21, 0.28)
    height, ahead = length * brush.between(0.48, 0.68), brush.random.choice((-1, 1))
    body = brush.colour((-0.03, 0.16), (0.75, 0.95), (0.9, 1))
    fin = shade(body, 0.75)
    tail = x - ahead * length * 0.85
    brush.polygon(
        [
            (tail, y),
            (tail - ahead * length * 0.6, y - height * 0.85),
            (tail - ahead * length * 0.38, y),
            (tail - ahead * length * 0.6, y + height * 0.85),
        ],
        fin,
    )
    brush.polygon(
        [
            (x - length * 0.45, y - height * 0.7),
            (x - ahead * length * 0.3, y - height * 1.45),
            (x + length * 0.45, y - height * 0.7),
        ],
        fin,
    )
    brush.oval(x, y, length, height, 0, body)
    brush.oval(x, y + height * 0.42, length * 0.72, height * 0.5, 0, shade(body, 1.25))
    if brush.random.random() < 0.6:
        for at in (-0.35, 0.1):
            brush.oval(x + ahead * length * at, y, length * 0.09, height * (0.93 - abs(at) * 0.2), 0, (250, 248, 240))
    brush.polygon([(x, y + height * 0.1), (x - ahead * length * 0.34, y + height * 0.5), (x, y + height * 0.45)], fin)
    brush.disc(x + ahead * length * 0.62, y - height * 0.2, 0.036, (255, 255, 255))
    brush.disc(x + ahead * length * 0.65, y - height * 0.2, 0.018, (20, 20, 30))
    for bubble in range(brush.random.randint(2, 4)):
        brush.disc(
            x + ahead * (length + 0.05) + brush.between(-0.02, 0.03),
            y - 0.06 - 0.09 * bubble,
            brush.between(0.012, 0.024),
            (214, 240, 246),
        )


def _flower(brush: Brush) -> None:
    meadow = brush.between(0.22, 0.36)
    brush.gradient(0, 1, hsv(meadow, brush.between(0.2, 0.4), brush.between(0.7, 0.92)), hsv(meadow + 0.04, 0.6, 0.4))
    x, y, reach = brush.between(0.4, 0.6), brush.between(0.34, 0.46), brush.between(0.2, 0.26)
    foot = x + brush.between(-0.12, 0.12)
    green = brush.colour((0.27, 0.36), (0.6, 0.85), (0.35, 0.55))
    brush.line([(x + (foot - x) * t * t, y + (1.02 - y) * t) for t in (0, 0.25, 0.5, 0.75, 1)], 0.03, green)
    for side in (-1, 1):
        brush.oval(
            foot + side * 0.12, brush.between(0.8, 0.9), 0.13, 0.045, -side * brush.between(0.3, 0.7), shade(green, 1.2)
        )
    hue = brush.random.choice([0.13, 0.95, 0.86, 0.78, 0.02]) + brush.between(-0.03, 0.03)
    petal = (
        (250, 248, 250) if brush.random.random() < 0.2 else hsv(hue, brush.between(0.55, 0.9), brush.between(0.88, 1))
    )
    petals, turn = brush.random.choice([5, 6, 8, 12]), brush.between(0, 2 * pi)
    for number in range(petals):
        angle = turn + 2 * pi * number / petals
        leaf = shade(petal, 0.86 + 0.14 * (number % 2))
        brush.oval(
            x + reach * 0.58 * cos(angle),
            y + reach * 0.58 * sin(angle),
            reach * 0.55,
            reach * min(0.4, 2.1 / petals),
            angle,
            leaf,
        )
    brush.disc(x, y, reach * 0.33, brush.random.choice([(92, 54, 24), (246, 196, 44), (226, 140, 30)]))
    brush.disc(x - 0.015, y - 0.015, reach * 0.16, (255, 226, 120))


def _house(brush: Brush) -> None:
    ground = brush.between(0.74, 0.82)
    _day_sky(brush, 1)
    brush.ridge(ground - 0.1, 0.02, brush.colour((0.22, 0.4), (0.25, 0.45), (0.5, 0.7)))
    brush.gradient(ground, 1, brush.colour((0.22, 0.32), (0.5, 0.75), (0.5, 0.7)), (52, 92, 40))
    x, half, height = brush.between(0.4, 0.6), brush.between(0.2, 0.27), brush.between(0.26, 0.34)
    foot = ground + 0.06
    eaves, ridge = foot - height, foot - height - brush.between(0.17, 0.25)
    wall = brush.colour((0, 0.17), (0.08, 0.5), (0.78, 0.98))
    roof = brush.colour((-0.04, 0.08), (0.55, 0.85), (0.45, 0.75))
    chimney = x + brush.random.choice((-1, 1)) * half * 0.55
    brush.rectangle(chimney - 0.03, ridge - 0.01, chimney + 0.03, eaves, shade(roof, 0.65))
    brush.rectangle(x - half, eaves, x + half, foot, wall)
    brush.rectangle(x + half * 0.62, eaves, x + half, foot, shade(wall, 0.85))
    brush.polygon([(x - half - 0.05, eaves + 0.01), (x + half + 0.05, eaves + 0.01), (x, ridge)], roof)
    door = brush.colour((0, 1), (0.4, 0.8), (0.3, 0.6))
    brush.rectangle(x - 0.045, foot - height * 0.6, x + 0.045, foot, door)
    pane = brush.random.choice([(255, 224, 120), (120, 170, 205), (70, 90, 120)])
    for side in (-1, 1):
        at, sill = x + side * half * 0.6, foot - height * 0.36
        brush.rectangle(at - 0.05, sill - 0.1, at + 0.05, sill + 0.01, (250, 250, 246))
        brush.rectangle(at - 0.038, sill - 0.088, at + 0.038, sill - 0.002, pane)
        brush.line([(at, sill - 0.09), (at, sill)], 0.012, (250, 250, 246))


def _mountain(brush: Brush) -> None:
    _day_sky(brush, 1, clouds=2)
    rock = brush.between(0.55, 0.75)
    foot = brush.between(0.8, 0.88)
    for depth in range(3):
        x = (brush.between(0.1, 0.3), brush.between(0.7, 0.9), brush.between(0.38, 0.62))[depth]
        peak = brush.between(0.3, 0.42) - 0.13 * (depth == 2)
        colour = hsv(rock, 0.16 + 0.09 * depth, 0.72 - 0.13 * depth)
        left, right = x - brush.between(0.34, 0.48), x + brush.between(0.34, 0.48)
        brush.polygon([(x, peak), (right, foot + 0.1), (left, foot + 0.1)], colour)
        brush.polygon([(x, peak), (right, foot + 0.1), (x + 0.05, foot + 0.1)], shade(colour, 0.74))
        snow = brush.between(0.28, 0.4)
        down = peak + snow * (foot - peak)
        left, right = x - snow * (x - left) * 0.9, x + snow * (right - x) * 0.9
        zigzag = [
            (right, down),
            (x + (right - x) * 0.45, down - 0.035),
            (x + 0.01, down + 0.035),
            (x - (x - left) * 0.5, down - 0.03),
            (left, down),
        ]
        brush.polygon([(x, peak), *zigzag], (246, 249, 253))
        brush.polygon([(x, peak), *zigzag[:3]], (204, 216, 234))
    brush.ridge(foot, 0.018, brush.colour((0.24, 0.42), (0.4, 0.6), (0.28, 0.45)))


def _sunset(brush: Brush) -> None:
    horizon, hue = brush.between(0.56, 0.7), brush.between(0.0, 0.09)
    brush.gradient(
        0, horizon, hsv(hue - brush.between(0.08, 0.3), 0.6, brush.between(0.35, 0.7)), hsv(hue + 0.06, 0.75, 1)
    )
    x, radius = brush.between(0.25, 0.75), brush.between(0.13, 0.2)
    y = horizon - radius * brush.between(-0.1, 0.7)
    sun = hsv(hue + 0.09, brush.between(0.3, 0.6), 1)
    brush.disc(x, y, radius * 1.25, hsv(hue + 0.06, 0.62, 1))
    brush.disc(x, y, radius, sun)
    for _ in range(brush.random.randint(0, 3)):
        cloud = brush.between(0.08, horizon - 0.1)
        brush.oval(brush.between(0, 1), cloud, brush.between(0.12, 0.26), 0.018, 0, hsv(hue - 0.08, 0.5, 0.72))
    brush.gradient(horizon, 1, hsv(hue - 0.02, 0.6, 0.62), hsv(hue - 0.3, 0.6, brush.between(0.15, 0.3)))
    for ripple in range(7):
        at, half = horizon + 0.025 + 0.055 * ripple * (1 - horizon) / 0.38, radius * brush.between(0.35, 0.95)
        shift = brush.between(-0.03, 0.03)
        brush.line([(x - half + shift, at), (x + half + shift, at)], 0.016, hsv(hue + 0.07, 0.55, 1 - 0.06 * ripple))


def _tree(brush: Brush) -> None:
    _day_sky(brush, 1)
    ground = brush.between(0.78, 0.86)
    brush.ridge(ground, 0.02, brush.colour((0.18, 0.32), (0.4, 0.65), (0.5, 0.75)))
    x, foot = brush.between(0.36, 0.64), ground + 0.06
    autumn = brush.random.random() < 0.35
    leaves = brush.colour((0.0, 0.12) if autumn else (0.25, 0.37), (0.6, 0.85), (0.4, 0.75))
    trunk = brush.colour((0.05, 0.09), (0.4, 0.6), (0.25, 0.4))
    if not autumn and brush.random.random() < 0.4:  # a fir
        brush.rectangle(x - 0.03, foot - 0.16, x + 0.03, foot, trunk)
        top, half = foot - brush.between(0.6, 0.7), brush.between(0.17, 0.24)
        for storey in range(3):
            upper, reach = top + 0.15 * storey, half * (0.6 + 0.2 * storey)
            brush.polygon([(x, upper), (x + reach, upper + 0.24), (x - reach, upper + 0.24)], shade(leaves, 0.7))
            brush.polygon([(x, upper), (x + reach * 0.1, upper + 0.24), (x - reach, upper + 0.24)], shade(leaves, 0.85))
        return
    brush.polygon([(x - 0.055, foot), (x - 0.03, foot - 0.4), (x + 0.03, foot - 0.4), (x + 0.055, foot)], trunk)
    middle, reach = foot - brush.between(0.44, 0.5), brush.between(0.15, 0.19)
    for number in range(7):
        angle = 2 * pi * number / 7 + brush.between(-0.2, 0.2)
        dx, dy = cos(angle) * reach * 0.75, sin(angle) * reach * 0.6
        brush.disc(x + dx, middle + dy, reach * brush.between(0.6, 0.75), shade(leaves, 0.85 - 0.2 * sin(angle)))
    brush.disc(x, middle, reach * 0.8, leaves)
    for _ in range(12 if autumn else 8):
        angle, far = brush.between(0, 2 * pi), brush.between(0.2, 1.1)
        spot = shade(leaves, brush.between(0.75, 1.35))
        brush.disc(x + cos(angle) * far * reach, middle + sin(angle) * far * reach * 0.85, 0.022, spot)


MOTIFS: dict[str, Callable[[Brush], None]] = {
    "balloon": _balloon,
    "boat": _boat,
    "fish": _fish,
    "flower": _flower,
    "house": _house,
    "mountain": _mountain,
    "sunset": _sunset,
    "tree": _tree,
}
CLASSES = tuple(MOTIFS)  # sorted, so that a scan of the folder numbers them alike
