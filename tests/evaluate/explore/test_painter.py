"""A picture is a function of its view alone, whatever a tab showed before; what begins with an image is that image."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lvae.evaluate.explore.painter import Painter, Tab
from lvae.evaluate.explore.view import PLAIN, Move, Subject, View, command_of, parse_view
from lvae.evaluate.manipulation.loaded_run import LoadedRun, open_dataset, read_latents
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.train.network.groups import StochasticGroup
from tests.conftest import make_once
from tests.evaluate import run_examples as examples

INDEX, OTHER = Subject("index", 3), Subject("index", 5)


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Painter:
    def make(root: Path) -> None:
        examples.run(root / "run", examples.dataset(root / "data"))

    root = make_once(tmp_path_factory, "explored", make)
    loaded = LoadedRun.open(root / "run")
    return Painter(loaded, open_dataset(loaded, str(root / "data")))


VIEWS = [
    PLAIN,
    replace(PLAIN, subject=INDEX),
    replace(PLAIN, subject=INDEX, moves=(Move(2, 1, 2.0),)),
    replace(PLAIN, subject=INDEX, moves=(Move(2, 1, -1.5),)),
    replace(PLAIN, subject=INDEX, moves=(Move(1, 0, 1.0), Move(2, 1, -1.5))),
    replace(PLAIN, subject=INDEX, redraw=(1,), seed=4),
    replace(PLAIN, subject=INDEX, redraw=(4,), seed=4, label=1),
    replace(PLAIN, subject=INDEX, redraw=(4,), seed=4, label=1, guidance_mean=2.0, guidance_variance=1.0),
    replace(PLAIN, subject=INDEX, other=OTHER, share=0.5),
    replace(PLAIN, subject=INDEX, other=OTHER, share=1.0),
    replace(PLAIN, subject=OTHER),
    replace(PLAIN, subject=Subject("sample", 7), left=1, right=2),
]


def test_a_picture_does_not_depend_on_what_was_shown_before(painter: Painter) -> None:
    tab, alone = Tab(), [painter.paint(view, Tab()) for view in VIEWS]
    order = [*range(len(VIEWS)), *reversed(range(len(VIEWS)))]
    for number in order:
        np.testing.assert_array_equal(painter.paint(VIEWS[number], tab), alone[number])
    assert len({picture.tobytes() for picture in alone}) == len(VIEWS) - 1  # the whole way to another is that one
    np.testing.assert_array_equal(alone[9], alone[10])
    assert alone[-1].shape == (4, 7, 3)


def test_an_image_untouched_is_its_reconstruction(painter: Painter) -> None:
    loaded, data = painter.loaded, painter.dataset
    assert data is not None
    x = torch.from_numpy(read_latents(loaded, data, np.array([3]))[0])
    zeros = [torch.zeros(1, 2, side, side) for side in loaded.model.config.group_resolutions]
    inferred = loaded.model.infer(x, torch.tensor([-1]), zeros)
    mean = loaded.model.decode(inferred.z, torch.tensor([-1])).mean
    np.testing.assert_array_equal(painter.paint(VIEWS[1], Tab()), loaded.decode_one(mean))


def test_only_what_a_slider_changes_is_computed(painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    generate = StochasticGroup.generate

    def counted(self: StochasticGroup, *arguments: object, **named: object) -> object:
        ran.append(self.resolution)
        return generate(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(StochasticGroup, "generate", counted)
    tab = Tab()
    painter.paint(replace(PLAIN, subject=INDEX), tab)
    ran.clear()
    painter.paint(replace(PLAIN, subject=INDEX, moves=(Move(2, 0, 1.0),)), tab)
    assert ran == [4]
    ran.clear()
    painter.paint(replace(PLAIN, subject=INDEX, moves=(Move(1, 0, 1.0), Move(2, 0, 1.0))), tab)
    assert ran == [4, 4]
    ran.clear()
    painter.paint(replace(PLAIN, subject=INDEX, redraw=(1,)), tab)
    assert ran == [1, 4, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"share": float("nan")},
        {"share": 2.0},
        {"seed": -1},
        {"label": 3},
        {"redraw": [3]},
        {"left": 5},
        {"moves": [{"group": 9, "channel": 0, "value": 1.0}]},
        {"moves": [{"group": 0, "channel": 0, "value": 99.0}]},
        {"moves": [{"group": 0, "channel": 0, "value": 1.0}] * 2},
        {"guidance_mean": 1e9},
        {"subject": {"kind": "file", "number": 0, "image": "/etc/passwd"}},
        {"strange": 1},
    ],
)
def test_what_is_no_view_is_refused(painter: Painter, change: dict[str, object]) -> None:
    content = records.plain(PLAIN) | change
    with pytest.raises(LvaeError):
        parse_view(json.dumps(content).encode(), painter.loaded.model.config)


def test_the_command_says_every_control() -> None:
    view = View(
        Subject("image", 0, "ab"), Subject("sample", 2), 0.25, (4, 8), 5, (Move(3, 1, -0.5),), 2, 1.5, 3.0, 1, 0
    )
    assert command_of(view, "my run", "data", {"ab": "a b.jpg"}) == (
        "lvae explore 'my run' --picture picture.png --dataset data --from 'a b.jpg' --to sample:2 --share 0.25 "
        "--redraw 4,8 --move 3:1=-0.5 --seed 5 --label 2 --guidance-mean 1.5 --guidance-variance 3 --left 1"
    )
