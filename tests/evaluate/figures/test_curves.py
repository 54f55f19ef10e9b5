"""Curves and previews: pictures from a log and from latents."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lvae.evaluate.figures.curves import Curve, line_chart, run_curves, write_curves
from lvae.evaluate.figures.drawing import COLOURS
from lvae.evaluate.pictures.inspect import draw_pictures, false_colours
from lvae.manifests.errors import LvaeError


def line(step: int, **changes: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(
        (
            "loss_nats",
            "reconstruction_nats",
            "rate_nats",
            "spectral",
            "gradient_norm",
            "learning_rate",
            "images_per_second",
            "data_wait_share",
        ),
        1.0 / step,
    )
    return {"step": step, **numbers, "skipped_updates": 0, "rate_per_group_nats": [0.5, step / 10], **changes}


def heights(picture: Image.Image, colour: tuple[int, int, int]) -> list[int]:
    """From left to right, the topmost pixel of this colour in every column that has it."""
    here = (np.asarray(picture) == colour).all(axis=2)
    return [int(column.argmax()) for column in here.T if column.any()]


def test_a_falling_curve_falls() -> None:
    curve = Curve("", np.arange(50.0), np.linspace(9, 3, 50))
    found = heights(line_chart("loss", [curve], (400, 200)), COLOURS[0])
    assert len(found) > 250
    assert sorted(found) == found
    assert found[-1] - found[0] > 100


def test_a_logarithmic_axis_makes_a_line_of_an_exponential() -> None:
    curve = Curve("", np.arange(50.0), np.exp(-np.arange(50.0) / 5))
    found = heights(line_chart("norm", [curve], (400, 200), logarithmic=True), COLOURS[0])
    assert abs((found[0] + found[-1]) / 2 - found[len(found) // 2]) < 4


@pytest.mark.parametrize("lines", [[line(1)], [line(1), line(2, loss_nats=None)], [line(n) for n in range(1, 3000)]])
def test_any_log_can_be_drawn(lines: list[dict[str, Any]]) -> None:
    assert run_curves(lines).size[0] > 500
    run_curves([entry | {"validation_loss_nats": 3.0} for entry in lines])
    run_curves([entry | {"rate_per_group_nats": [None, None]} for entry in lines])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LvaeError, match="is not a run"):
        write_curves(tmp_path, tmp_path / "curves.png")


def test_latents_of_any_number_of_channels_become_colours() -> None:
    for channels in (1, 2, 3, 4, 16):
        latents = np.zeros((2, channels, 4, 4), np.float32)
        latents[1] = 99
        pictures = false_colours(latents)
        assert (pictures.shape, pictures.dtype) == ((2, 4, 4, 3), np.uint8)
        assert set(np.unique(pictures[0])) <= {127, 128}
        assert (pictures[1] == 255).all()


def test_a_grid_shows_every_picture_whole() -> None:
    pictures = np.stack([np.full((8, 8, 3), 10 * n, np.uint8) for n in range(11)])
    buffer = io.BytesIO()
    draw_pictures(pictures).save(buffer, "png")
    found = np.asarray(Image.open(buffer))
    for n in range(11):
        assert (found == 10 * n).all(axis=2).sum() == 96 * 96
