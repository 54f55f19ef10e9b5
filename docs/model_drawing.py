"""Draws the Church model, five resolutions of 8 groups: python docs/model_drawing.py docs/model.png."""

import math
import sys
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

from lvae.evaluate.figures.drawing import COLOURS, FAINT, INK, PAPER, RULE, font, measure_text

SCALE = 2  # drawn large, then reduced: smooth arrows
WIDTH, HEIGHT = 1180, 760
BLUE, ORANGE, GREEN, VIOLET = COLOURS[:4]
Point = tuple[float, float]


class Drawing:
    """Boxes, circles, arrows and text in points of the finished picture."""

    def __init__(self) -> None:
        self._canvas = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._canvas)

    def text(
        self, at: Point, text: str, size: int = 14, colour: tuple[int, int, int] = INK, centred: bool = True
    ) -> None:
        lines = text.split("\n")
        for number, line in enumerate(lines):
            x = at[0] * SCALE - (measure_text(line, size * SCALE)[0] / 2 if centred else 0)
            y = (at[1] + (number - (len(lines) / 2 if centred else 0)) * (size + 4)) * SCALE
            self._draw.text((x, y), line, colour, font(size * SCALE))

    def box(self, centre: Point, size: Point, text: str, colour: tuple[int, int, int], text_points: int = 13) -> None:
        (x, y), (width, height) = centre, size
        light = tuple(255 - (255 - channel) // 6 for channel in colour)
        corners = [side * SCALE for side in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
        self._draw.rounded_rectangle(corners, 7 * SCALE, fill=light, outline=colour, width=2 * SCALE)  # type: ignore[arg-type]
        self.text((x, y), text, text_points)

    def circle(self, centre: Point, radius: float, text: str, colour: tuple[int, int, int]) -> None:
        corners = [
            side * SCALE for side in (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
        ]
        self._draw.ellipse(corners, fill=PAPER, outline=colour, width=2 * SCALE)
        self.text((centre[0], centre[1] - 1), text, 14)

    def arrow(self, points: list[Point], colour: tuple[int, int, int] = INK, dashed: bool = False) -> None:
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0)
            pieces = max(1, int(length // 6)) if dashed else 1
            for piece in range(0, pieces, 2 if dashed else 1):
                start, end = piece / pieces, min(1, (piece + 1) / pieces)
                ends = [x0 + (x1 - x0) * start, y0 + (y1 - y0) * start, x0 + (x1 - x0) * end, y0 + (y1 - y0) * end]
                self._draw.line([side * SCALE for side in ends], colour, 2 * SCALE)
        (x0, y0), (x1, y1) = points[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        wings = [(x1 - 9 * math.cos(angle + turn), y1 - 9 * math.sin(angle + turn)) for turn in (0.45, -0.45)]
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in [(x1, y1), *wings]], colour)

    def frame(self, corners: tuple[float, float, float, float]) -> None:
        self._draw.rounded_rectangle([side * SCALE for side in corners], 10 * SCALE, outline=RULE, width=2 * SCALE)

    def finished(self) -> Image.Image:
        return self._canvas.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def whole_model(drawing: Drawing) -> None:
    """Encoder and generator, joined at every resolution."""
    resolutions = (1, 4, 8, 16, 32)
    tops = [120 + 112 * number for number in range(5)]
    encoder, posterior, state = 105, 270, 460
    drawing.text((encoder, 26), "encoder", 16, BLUE)
    drawing.text((posterior, 26), "z of 8 groups each", 16, VIOLET)
    drawing.text((state, 26), "generator", 16, GREEN)
    drawing.text((state, 62), "learned start", 13, FAINT)
    drawing.arrow([(state, 74), (state, tops[0] - 26)], GREEN)
    for number, (resolution, y) in enumerate(zip(resolutions, tops, strict=True)):
        drawing.box((encoder, y), (130, 52), f"{resolution} x {resolution}\n4 blocks", BLUE)
        drawing.box((state, y), (150, 52), f"{resolution} x {resolution}\n8 groups", GREEN)
        drawing.circle((posterior, y), 24, f"z{resolution}" if resolution > 1 else "z1", VIOLET)
        drawing.arrow([(encoder + 65, y - 8), (posterior - 24, y - 8)], BLUE)
        drawing.arrow([(posterior + 24, y - 8), (state - 75, y - 8)], VIOLET)
        drawing.arrow([(state - 75, y + 14), (posterior + 22, y + 14)], FAINT, dashed=True)
        if number + 1 < len(tops):
            drawing.arrow([(encoder, tops[number + 1] - 26), (encoder, y + 26)], BLUE)
            drawing.arrow([(state, y + 26), (state, tops[number + 1] - 26)], GREEN)
            drawing.text((encoder + 10, y + 49), "pool", 11, FAINT, centred=False)
            drawing.text((state + 10, y + 49), "enlarge", 11, FAINT, centred=False)
    last = tops[-1]
    drawing.arrow([(encoder, last + 78), (encoder, last + 26)], BLUE)
    drawing.text((encoder, last + 96), "latents x\n4 x 32 x 32", 14)
    drawing.arrow([(state, last + 26), (state, last + 74)], GREEN)
    drawing.text((state, last + 96), "p(x | z): mean and\nlog-variance, 4 x 32 x 32", 14)
    drawing.text((posterior, last + 58), "solid: q(z | x) in training\nand inference", 11, FAINT)
    drawing.text((posterior, last + 98), "dashed: p(z) in sampling,\nand what the rate compares", 11, FAINT)


def one_group(drawing: Drawing) -> None:
    """What happens inside of one group."""
    left, right = 600, 1150
    drawing.frame((left, 50, right, 730))
    drawing.text(((left + right) / 2, 34), "one group", 16)
    state, prior, posterior = 710, 820, 1055
    drawing.text((state, 82), "state x", 14, GREEN)
    drawing.text((posterior, 82), "encoder's activation a", 14, BLUE)
    drawing.arrow([(posterior, 94), (posterior, 166)], BLUE)
    drawing.arrow([(state, 94), (state, 484)], GREEN)
    drawing.arrow([(state, 190), (posterior - 75, 190)], GREEN)
    drawing.box((posterior, 190), (150, 46), "join: [x, a]\n1 x 1 convolution", BLUE)
    drawing.arrow([(posterior, 213), (posterior, 247)], BLUE)
    drawing.box((posterior, 270), (150, 44), "posterior block", BLUE)
    drawing.arrow([(state, 270), (prior - 62, 270)], GREEN)
    drawing.box((prior, 270), (124, 44), "prior block", GREEN)
    drawing.arrow([(posterior, 292), (posterior, 338)], BLUE)
    drawing.arrow([(prior + 45, 292), (prior + 45, 338)], GREEN)
    drawing.box((posterior, 360), (150, 42), "q: mean, variance", BLUE)
    drawing.box((prior + 60, 360), (150, 42), "p: mean, variance", GREEN)
    drawing.text(((prior + posterior) / 2 + 32, 316), "rate = KL(q || p)", 13, ORANGE)
    drawing.circle((948, 450), 24, "z", VIOLET)
    drawing.arrow([(posterior, 381), (posterior, 450), (972, 450)], BLUE)
    drawing.arrow([(prior + 85, 381), (prior + 85, 450), (924, 450)], FAINT, dashed=True)
    drawing.arrow([(948, 474), (948, 510), (state + 14, 510)], VIOLET)
    drawing.text((860, 498), "1 x 1 convolution", 11, VIOLET)
    drawing.arrow([(prior - 36, 292), (prior - 36, 490), (state + 12, 490)], GREEN)
    drawing.text((prior - 28, 408), "h", 13, GREEN, centred=False)
    drawing.circle((state, 500), 15, "+", GREEN)
    drawing.arrow([(state, 515), (state, 568)], GREEN)
    drawing.box((state, 590), (150, 44), "shared block", GREEN)
    drawing.arrow([(state, 612), (state, 660)], GREEN)
    drawing.text((state, 676), "next state", 14, GREEN)
    drawing.text(
        (830, 562),
        "\n".join(
            (
                "Blocks: two 3 x 3 convolutions, then two",
                "1 x 1 through four times the width, SiLU",
                "before each, no normalization. Labels are",
                "added at the start of every block. Without",
                "a hierarchical prior p is N(0, I), and the",
                "prior block gives h alone.",
            )
        ),
        13,
        FAINT,
        centred=False,
    )


def main(out: Path) -> None:
    drawing = Drawing()
    whole_model(drawing)
    one_group(drawing)
    drawing.finished().save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
