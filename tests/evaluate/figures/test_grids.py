"""Grids of captioned pictures: every pixel of every picture is there, and no text leaves the canvas."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lvae.evaluate.figures.drawing import PAPER, Captioned
from lvae.evaluate.figures.grids import ACCENT, CLOSE, FRAME, LARGE, Block, Cell, Row, draw_grid, draw_pairs


def picture(height: int, width: int, level: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((height, width, 3), level, np.uint8)


def grid(
    rows: Sequence[Sequence[Cell]], title: str, note: str = "", columns: Sequence[str] = (), name: str = ""
) -> Image.Image:
    block = Block("", max(map(len, rows)), tuple(columns))
    return draw_grid(title, [block], [Row(name, tuple(row)) for row in rows], note, LARGE)


def edges_are_paper(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    sides = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return all((side == PAPER).all() for side in sides)


def test_pictures_are_enlarged_by_whole_numbers_and_complete() -> None:
    cells = [[Captioned(picture(8, 8, 10 + 10 * n), "a caption that is longer than its picture") for n in range(3)]]
    found = np.asarray(grid(cells, "title", columns=["one", "two", "three"], name="a row of some length"))
    for number in range(3):
        assert (found == 10 + 10 * number).all(-1).sum() == 96 * 96


def test_text_stays_inside_however_long() -> None:
    words = "incomprehensibilities " * 30
    cells = [
        [Captioned(picture(96, 96, 99), words, original=True), None],
        [Captioned(picture(96, 96, 99)), Captioned(picture(96, 192, 99), words)],
    ]
    assert edges_are_paper(grid(cells, words, words, columns=[words, words], name=words))
    assert edges_are_paper(draw_grid("", [Block(words, 1), Block(words, 1)], [Row(words, tuple(cells[1]))]))


def test_originals_are_framed_and_given_parts_marked() -> None:
    framed = np.asarray(grid([[Captioned(picture(96, 96, 7), original=True)]], "t"))
    accented = (framed == ACCENT).all(-1)
    assert accented.sum() == (96 + 2 * FRAME) ** 2 - 96**2
    marked = np.asarray(grid([[Captioned(picture(96, 192, 7), given=(0, 96, 96, 96))]], "t"))
    assert (marked == ACCENT).all(-1).sum() == 3 * (96 + 96)
    assert (marked == 7).all(-1).sum() == 96 * 192


def test_pairs_stand_side_by_side_and_the_last_row_may_end_early() -> None:
    pairs = [(Captioned(picture(64, 64, 10 + n), f"{n}.png"), Captioned(picture(64, 64, 50 + n))) for n in range(5)]
    found = np.asarray(draw_pairs("title", pairs))
    for number in range(5):
        (top, left), (other_top, other_left) = (
            np.argwhere((found == level + number).all(-1)).min(0) for level in (10, 50)
        )
        assert top == other_top and other_left - left == 128 + CLOSE
