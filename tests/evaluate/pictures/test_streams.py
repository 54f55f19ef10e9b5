"""Pictures as they come."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lvae.encode.files.rejection import ImageRejected
from lvae.encode.images import open_image
from lvae.evaluate.pictures.streams import plain_pixels


@given(
    sides=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    head=st.sampled_from(
        [b"P6\n%d %d\n255\n", b"P6\n%d %d\n254\n", b"P6 %d %d 255\n", b"P6\n%d %d\n255\n#", b"P5\n%d %d\n255\n"]
    ),
    more=st.integers(-2, 2),
    seed=st.integers(0, 99),
)
def test_the_short_way_to_the_pixels_of_a_ppm_gives_what_opening_it_does(
    sides: tuple[int, int], head: bytes, more: int, seed: int
) -> None:
    length = max(0, 3 * sides[0] * sides[1] + more)
    data = head % sides + np.random.default_rng(seed).integers(0, 256, length, np.uint8).tobytes()
    short = plain_pixels(data)
    if short is not None:
        assert np.array_equal(short, np.asarray(open_image(data)))
    elif head == b"P6\n%d %d\n255\n" and more == 0:
        assert 0 in sides
    try:
        open_image(data)
    except ImageRejected:
        assert short is None
