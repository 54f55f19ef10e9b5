"""Pixels of a TIFF are right, or it is rejected by the name of what is not supported."""

import io
import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.images import ImageRejected, open_image
from tests.encode.files.tiff_files import RAMP, TRUTH, Tiff, write

DEPTHS = [(1, "u"), (2, "u"), (4, "u"), (8, "u"), (12, "u"), (16, "u"), (16, "f"), (32, "f"), (64, "f")]
PACKED = [(1, 1), (8, 1), (8, 2), (5, 1), (5, 2), (32773, 1)]


def pixels(data: bytes) -> NDArray[np.float64]:
    return np.asarray(open_image(data)).astype(np.float64)


def reason(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        open_image(data)
    return caught.value.reason


def assert_right(form: Tiff) -> None:
    found = pixels(write(form))
    expected = TRUTH if form.colours in (2, 5) else np.repeat(TRUTH[..., :1], 3, -1)
    steps = 255 / (2**form.bits - 1) / 2 if form.kind == "u" and form.bits < 9 else 0
    assert np.abs(found - expected).max() <= (steps + 1) * (3 if form.extra[:1] == (1,) else 1), form


@pytest.mark.parametrize(("bits", "kind"), DEPTHS)
@pytest.mark.parametrize("colours", [0, 1, 2, 5])
def test_every_layout_of_samples_comes_out_right(bits: int, kind: str, colours: int) -> None:
    for order, planes, tile in itertools.product("<>", (False, True), (None, (16, 16))):
        if not (order == ">" and bits == 12):
            for compression, predictor in PACKED:
                if predictor == 1 or bits in (8, 16, 32, 64):
                    assert_right(Tiff(bits, kind, colours, order, planes, tile, 8, compression, predictor))
            if bits > 4:
                assert_right(Tiff(bits, kind, colours, order, planes, tile, extra=(2,)))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planes", [False, True])
def test_alpha_that_multiplies_the_colours_is_divided_out(bits: int, planes: bool) -> None:
    for extra in ((1,), (1, 0), (2, 0), (0, 0, 0, 0)):
        assert_right(Tiff(bits, planes=planes, extra=extra))


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff_reversed_bits_and_floating_point_differences_come_out_right(order: str) -> None:
    for form in (
        Tiff(16, planes=True, order=order, big=True),
        Tiff(8, order=order, big=True),
        Tiff(1, colours=1, order=order, reversed_bits=True),
        Tiff(8, order=order, compression=5, reversed_bits=True),
        Tiff(32, "f", order=order, compression=8, predictor=3),
        Tiff(64, "f", colours=1, order=order, compression=8, predictor=3, tile=(32, 16)),
    ):
        assert_right(form)


def test_a_single_plane_is_one_picture() -> None:
    assert_right(Tiff(8, colours=1, planes=True))


def test_palettes_of_eight_and_sixteen_bits_come_out_right() -> None:
    grey = write(Tiff(8, colours=1))
    levels = np.arange(256)
    for table in (levels * 257, levels):  # old writers give 8 bits
        data = write(Tiff(8, colours=1), ((262, 3, (3,)), (320, 3, (*table, *table[::-1], *(table * 0)))))
        found, index = pixels(data), pixels(grey)[..., 0]
        np.testing.assert_array_equal(found, np.stack([index, 255 - index, index * 0], -1))


def test_ycbcr_without_compression_is_converted_and_subsampling_undone() -> None:
    size = 16, 16
    ycbcr = Image.new("RGB", size, (200, 30, 40)).convert("YCbCr").getpixel((0, 0))
    assert isinstance(ycbcr, tuple)
    for across, down in ((1, 1), (2, 1), (2, 2)):
        unit = bytes([int(ycbcr[0])] * (across * down) + [int(ycbcr[1]), int(ycbcr[2])])
        data = unit * (256 // (across * down))
        entries = ((256, 4, (16,)), (257, 4, (16,)), (262, 3, (6,)), (278, 4, (16,)), (530, 3, (across, down)))
        form = Tiff(8, rows_per_strip=37)
        whole = write(form, (*entries, (273, 4, (8,)), (279, 4, (len(data),))))
        whole = whole[:8] + data + whole[8 + len(data) :]
        np.testing.assert_allclose(pixels(whole).mean((0, 1)), (200, 30, 40), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_what_is_read_here(orientation: int) -> None:
    def turned(form: Tiff) -> NDArray[np.float64]:
        return pixels(write(form, ((274, 3, (orientation,)),)))

    np.testing.assert_array_equal(turned(Tiff(16, planes=True)), turned(Tiff(16, planes=False)))
    np.testing.assert_allclose(turned(Tiff(16, planes=True)), turned(Tiff(8)), atol=1)


@pytest.mark.parametrize(
    ("form", "tags", "said"),
    [
        (Tiff(), ((259, 3, (50002,)),), "JPEG XL"),
        (Tiff(), ((259, 3, (34712,)),), "JPEG 2000"),
        (Tiff(), ((259, 3, (50001,)),), "WebP"),
        (Tiff(), ((259, 3, (12345,)),), "compression 12345"),
        (Tiff(12, colours=1, order=">"), (), "big-endian"),
        (Tiff(), ((262, 3, (32803,)),), "mosaic"),
        (Tiff(), ((258, 3, (5, 6, 5)),), "different kinds"),
        (Tiff(16, planes=True), ((339, 3, (6, 6, 6)),), "complex"),
        (Tiff(8, colours=5), ((332, 3, (2,)),), "inks"),
        (Tiff(16, compression=8, predictor=2), ((317, 3, (7,)),), "predictor 7"),
        (Tiff(8, planes=True), ((259, 3, (7,)),), "planes of 8-bit"),
        (Tiff(8, colours=1, extra=(0, 0)), (), "3 samples"),
        (Tiff(8), ((254, 4, (1,)), (330, 4, (8,))), "camera"),
    ],
)
def test_what_is_not_read_is_rejected_by_its_name(
    form: Tiff, tags: tuple[tuple[int, int, tuple[int, ...]], ...], said: str
) -> None:
    found = reason(write(form, tags))
    assert said in found
    assert "not supported" in found
    assert "damaged" not in found
    assert "truncated" not in found


@pytest.mark.parametrize("form", [Tiff(16, "u", planes=True), Tiff(8, "i", colours=1), Tiff(32, "u", colours=2)])
def test_integers_without_a_white_are_rejected(form: Tiff) -> None:
    signed = ((339, 3, (2,) * 3),) if form.planes else ()
    assert "nothing says which of them is white" in reason(write(form, signed))


@pytest.mark.parametrize(
    "form", [Tiff(16, planes=True), Tiff(32, "f", tile=(16, 16)), Tiff(16, colours=1, compression=8)]
)
def test_a_truncated_file_says_so(form: Tiff) -> None:
    whole = write(form)
    lost = write(form, ((273, 4, (len(whole) - 9,)),)) if form.tile is None else write(form, ((324, 4, (8,)),))
    assert "truncated" in reason(lost)


def test_odd_tags_beside_the_pixels_cost_nothing() -> None:
    form = Tiff(8)
    plain = pixels(write(form))
    for odd in ((34675, 3, (1, 2, 3)), (700, 1, (60,) * 9), (34665, 4, (1,)), (282, 3, (0, 0, 0)), (296, 3, (77,))):
        np.testing.assert_array_equal(pixels(write(form, (odd,))), plain)


def test_pillow_and_our_arithmetic_agree_on_a_ramp() -> None:
    picture = Image.fromarray(np.rint(TRUTH).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(pixels(buffer.getvalue()), pixels(write(Tiff(8, planes=True))))
    assert RAMP.max() == 1
