"""Captions: short enough, on one line, cut between glyphs."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.evaluate.figures.drawing import measure_text, shorten


def test_a_caption_that_fits_is_left_alone() -> None:
    assert shorten("tench: 0001.png", 400, 13) == "tench: 0001.png"


def test_the_end_of_a_long_caption_becomes_an_ellipsis() -> None:
    short = shorten("a picture with a very long name, number 17.png", 120, 13)
    assert short.endswith("…") and "a picture with a very long name".startswith(short[:-1]) and len(short) > 8


@given(st.text(max_size=80), st.integers(20, 300))
def test_captions_are_one_line_no_wider_than_their_place(text: str, width: int) -> None:
    short = shorten(text, width, 13)
    assert len(short.splitlines()) <= 1
    assert measure_text(short, 13)[0] <= width


@pytest.mark.parametrize("glyph", ["e\u0301", "a\u0302\u0323", "\U0001f468\u200d\U0001f469", "\u2764\ufe0f"])
def test_no_glyph_is_cut_in_two(glyph: str) -> None:
    for width in range(20, 200, 3):
        short = shorten(glyph * 40, width, 13)
        whole = short.removesuffix("…")
        assert len(whole) % len(unicodedata.normalize("NFD", glyph)) == 0, (width, whole)


def test_line_breaks_in_a_name_are_spaces() -> None:
    assert shorten("two\nlines\t.png", 400, 13) == "two lines .png"
