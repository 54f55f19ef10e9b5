"""The log of a run as charts, and previews as pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lvae.evaluate.figures.curves import chart_log, write_curves
from lvae.evaluate.figures.render import render_png
from lvae.evaluate.pictures.inspect import draw_pictures, false_colours
from lvae.manifests.errors import LvaeError

KEYS = (
    "loss_nats",
    "reconstruction_nats",
    "rate_nats",
    "spectral",
    "gradient_norm",
    "learning_rate",
    "images_per_second",
    "data_wait_share",
)


def line(step: int, **changes: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(KEYS, 1.0 / step)
    return {"step": step, **numbers, "skipped_updates": 0, "rate_per_group_nats": [0.5, step / 10], **changes}


@pytest.mark.parametrize(
    "lines",
    [
        [line(1)],
        [line(1), line(2, loss_nats=None)],
        [line(n) for n in range(1, 3000)],
        [line(n, gradient_norm=0.0) for n in (1, 2)],
        [line(n, gradient_norm=float("inf") if n == 2 else 1.0) for n in (1, 2, 3)],
        [{"step": 1, "loss_nats": None}],
        [line(n, rate_per_group_nats=[None, None], validation_loss_nats=3.0) for n in (1, 2)],
    ],
)
def test_any_log_can_be_drawn(lines: list[dict[str, Any]]) -> None:
    with Image.open(io.BytesIO(render_png(chart_log(lines), 2))) as picture:
        assert picture.width > 500


def test_every_quantity_of_a_log_has_its_chart_and_what_is_not_there_has_none() -> None:
    found = [chart.title for chart in chart_log([line(n) for n in (1, 2, 3)])]
    assert len(found) == 10 and found[3].startswith("rate of every group")
    assert chart_log([line(1, validation_loss_nats=2.0)])[0].summary.startswith(
        "training: 1 at first, 1 at last; valid"
    )
    few = {"step": 1, "loss_nats": 2.0, "spectral": None, "rate_per_group_nats": [None]}
    assert [chart.title for chart in chart_log([few])] == ["loss, nats an image"]


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
    found = np.asarray(draw_pictures(np.stack([np.full((8, 8, 3), 10 * n, np.uint8) for n in range(11)])))
    for n in range(11):
        assert (found == 10 * n).all(axis=2).sum() == 96 * 96
