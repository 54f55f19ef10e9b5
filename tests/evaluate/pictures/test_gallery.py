"""`lvae decode` to a grid: a row a class, and pictures from elsewhere beside it."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lvae.cli import main
from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.figures.grids import Block, Row, draw_grid
from lvae.evaluate.pictures.beside import Beside, beside, choose_positions, numbering
from lvae.evaluate.pictures.decode import Decoded
from lvae.evaluate.pictures.gallery import layout
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import ImageSettings
from tests.evaluate import run_examples

NAMES = ("cat", "dog", "fish")
IMAGE = ImageSettings(8, "adm", "box+bicubic", False, (-1.0, 1.0))


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


def flat(colour: int, side: int = 8) -> np.ndarray:  # type: ignore[type-arg]
    return np.full((side, side, 3), colour, np.uint8)


def decoded(*labels: int) -> Decoded:
    """Picture i is of grey level i."""
    count = len(labels)
    return Decoded(np.arange(count), np.stack([flat(i) for i in range(count)]), np.array(labels, np.int32))


def levels(rows: list[Row]) -> list[list[int | None]]:
    return [[None if cell is None else int(cell.pixels[0, 0, 0]) for cell in row.cells] for row in rows]


def test_a_row_holds_one_class_and_bears_its_name() -> None:
    blocks, rows = layout(decoded(2, 0, 2, -1, 0, 2, 2), NAMES, [], 3)
    assert [(row.name, *cells) for row, cells in zip(rows, levels(rows), strict=True)] == [
        ("cat", 1, 4, None),
        ("fish", 0, 2, 5),
        ("", 6, None, None),
        ("no label", 3, None, None),
    ]
    assert blocks == [Block("", 3)]
    assert [cell.caption for cell in rows[1].cells if cell] == ["#0", "#2", "#5"]


def test_many_classes_of_one_picture_stay_in_order_with_their_names_below() -> None:
    _, rows = layout(decoded(2, 0, 1), NAMES, [], 8)
    assert levels(rows) == [[0, 1, 2]]
    assert [cell.caption for cell in rows[0].cells if cell] == ["#0 fish", "#1 cat", "#2 dog"]


def test_pictures_of_the_same_class_stand_side_by_side() -> None:
    other = Beside("adm", (Captioned(flat(90), ""), Captioned(flat(91), "")), np.array([1, 0], np.int32))
    blocks, rows = layout(decoded(0, 1, 1), NAMES, [other], 2)
    assert [row.name for row in rows] == ["cat", "dog"]
    assert levels(rows) == [[0, None, 91, None], [1, 2, 90, None]]
    assert [block.title for block in blocks] == ["", "adm"]


def test_pictures_without_labels_stand_beside_those_of_one_class_or_in_order() -> None:
    other = Beside("adm", (Captioned(flat(90), ""), Captioned(flat(91), "")), np.array([-1, -1], np.int32))
    _, rows = layout(decoded(1, 1), NAMES, [other], 2)
    assert ([row.name for row in rows], levels(rows)) == (["dog"], [[0, 1, 90, 91]])
    _, rows = layout(decoded(1, 0), NAMES, [other], 1)
    assert ([row.name for row in rows], levels(rows)) == (["", ""], [[0, 90], [1, 91]])


def test_classes_elsewhere_are_known_by_name_or_number() -> None:
    assert [numbering(("fish", "cow"), NAMES)(label) for label in (0, 1, -1)] == [2, -1, -1]
    assert [numbering(("0", "1", "2"), NAMES)(label) for label in (0, 2)] == [0, 2]
    assert numbering(None, NAMES)(1) == -1


def test_the_first_of_every_wanted_class_are_chosen() -> None:
    labels = np.array([1, 0, 0, 2, 1, 0], np.int32)
    assert choose_positions(labels, {0: 2, 1: 1}, 9, 0).tolist() == [1, 2, 0]
    assert choose_positions(np.full(5, -1, np.int32), {0: 2}, 3, 0).tolist() == [0, 1, 2]
    assert choose_positions(labels, {7: 2}, 3, 0).tolist() == []


def test_an_archive_and_a_folder_from_elsewhere_are_cropped_and_matched_by_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", arr_0=np.stack([flat(10, 16), flat(20, 16), flat(30, 16)]), arr_1=np.array([1, 0, 1]))
    found = beside(str(tmp_path / "x.npz"), IMAGE, NAMES, {1: 2}, 2)
    assert [int(one.pixels[0, 0, 0]) for one in found.pictures] == [10, 30]
    assert found.pictures[0].pixels.shape == (8, 8, 3)
    assert found.remark == "x.npz: 16x16 brought to 8x8"
    for name, colour in (("fish/a", 1), ("fish/b", 2), ("cat/c", 3), ("cow/d", 4)):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(flat(colour)).save(tmp_path / "folder" / f"{name}.png")
    found = beside(str(tmp_path / "folder"), IMAGE, NAMES, {0: 5, 2: 1}, 6)
    assert [(one.caption, int(one.pixels[0, 0, 0])) for one in found.pictures] == [("c", 3), ("a", 1)]
    assert (found.labels.tolist(), found.remark) == ([0, 2], "")
    with pytest.raises(LvaeError, match="no picture of the classes"):
        beside(str(tmp_path / "folder"), IMAGE, NAMES, {1: 2}, 2)


def test_a_broken_picture_elsewhere_is_replaced_by_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        Image.fromarray(flat(ord(name))).save(tmp_path / f"{name}.png")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    found = beside(str(tmp_path), IMAGE, None, {-1: 2}, 2)
    assert [one.caption for one in found.pictures] == ["b", "c"]
    assert "a.png: left out" in caplog.text


def test_a_dataset_stands_beside_its_samples(tmp_path: Path) -> None:
    data = run_examples.dataset(tmp_path / "dataset")
    run = run_examples.run(tmp_path / "run", data)
    lvae("sample", run, tmp_path / "samples", "-n", "12", "--device", "cpu")
    lvae("decode", tmp_path / "samples", tmp_path / "one.png", "--device", "cpu")
    lvae("decode", tmp_path / "samples", tmp_path / "two.png", "--beside", data.folder, "--device", "cpu")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width > one.width
    done = lvae("decode", tmp_path / "samples", tmp_path / "x.npz", "--beside", data.folder, check=1)
    assert "for a grid" in done.stderr
    assert Dataset.open(tmp_path / "samples").labels.tolist()[:4] == [0, 1, 2, 0]


@pytest.mark.parametrize("side", [1, 4, 32, 64, 100, 256, 300, 1024])
def test_pictures_are_drawn_whole_whatever_their_size(side: int) -> None:
    picture = draw_grid("A title", [Block("", 2)], [Row("a", (Captioned(flat(7, side), ""), None))])
    found = np.asarray(picture)
    inside = (found == 7).all(-1)
    height, width = inside.any(1).sum(), inside.any(0).sum()
    assert height == width == inside.sum() ** 0.5
    assert 64 <= height <= 256
    assert side % height == 0 or height % side == 0 or side == 300
