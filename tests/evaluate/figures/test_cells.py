"""Grids of captioned pictures: every pixel of every picture is there, and no text leaves the canvas."""

import numpy as np
from PIL import Image

from lvae.evaluate.figures.cells import ACCENT, FRAME, Cell, cell_grid
from lvae.evaluate.figures.charts import Shares, shares_chart
from lvae.evaluate.figures.drawing import PAPER


def picture(height: int, width: int, level: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((height, width, 3), level, np.uint8)


def edges_are_paper(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    sides = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return all((side == PAPER).all() for side in sides)


def test_pictures_are_enlarged_by_whole_numbers_and_complete() -> None:
    cells = [[Cell(picture(8, 8, 10 + 10 * n), "a caption that is longer than its picture") for n in range(3)]]
    grid = np.asarray(cell_grid(cells, "title", columns=["one", "two", "three"], names=["a row of some length"]))
    for number in range(3):
        assert (grid == 10 + 10 * number).all(-1).sum() == 96 * 96


def test_text_stays_inside_however_long() -> None:
    words = "incomprehensibilities " * 30
    cells = [[Cell(picture(96, 96, 99), words, original=True), None], [Cell(picture(96, 192, 99), words)]]
    assert edges_are_paper(cell_grid(cells, words, words, columns=[words, words], names=[words, words]))
    assert edges_are_paper(shares_chart([Shares(words, ["1x1", "32x32"], [0.0, 3.0])], words, words))
    assert edges_are_paper(shares_chart([Shares("nothing", ["1x1"], [0.0])], "title"))


def test_originals_are_framed_and_given_parts_marked() -> None:
    framed = np.asarray(cell_grid([[Cell(picture(96, 96, 7), original=True)]], "t"))
    accented = (framed == ACCENT).all(-1)
    assert accented.sum() == (96 + 2 * FRAME) ** 2 - 96**2
    marked = np.asarray(cell_grid([[Cell(picture(96, 192, 7), given=(0, 96, 96, 96))]], "t"))
    assert (marked == ACCENT).all(-1).sum() == 3 * (96 + 96)
    assert (marked == 7).all(-1).sum() == 96 * 192
