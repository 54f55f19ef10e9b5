"""Decoded pictures in one captioned grid, by class where they have classes; pictures from elsewhere beside them."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.figures.grids import Block, Row, draw_grid, fill_rows, fill_rows_by_class, name_class
from lvae.evaluate.pictures.beside import Beside, beside
from lvae.evaluate.pictures.decode import Decoded
from lvae.evaluate.samples import describe as settings_in_words
from lvae.manifests.dataset import Dataset
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED

COLUMNS, COLUMNS_BESIDE = 8, 4


def gallery(
    dataset: Dataset,
    pictures: Iterator[Decoded],
    places: Sequence[str] = (),
    columns: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Image.Image:
    """Everything that was decoded of a dataset or of samples, and as many pictures from every other place beside it.

    A row a class where there are few classes for so many pictures; otherwise in order, the class in the caption.
    """
    found = _collect(pictures, progress)
    counts = Counter(found.labels.tolist())
    others = [beside(place, dataset.manifest.image, dataset.classes, counts, len(found.labels)) for place in places]
    columns = columns or (COLUMNS_BESIDE if others else COLUMNS)
    blocks, rows = layout(found, dataset.classes, others, columns)
    if others:
        what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"
        blocks[0] = Block(f"{dataset.folder.root.name} ({what})", columns)
    title, note = _titles(dataset, len(found.labels))
    return draw_grid(title, blocks, rows, "; ".join([note, *(other.remark for other in others if other.remark)]))


def layout(
    found: Decoded, names: Sequence[str] | None, others: Sequence[Beside], columns: int
) -> tuple[list[Block], list[Row]]:
    """Where every picture stands. Beside samples of one class, pictures without labels are taken to be of it."""
    counts = Counter(found.labels.tolist())
    others = [_as_one_class(other, counts) for other in others]
    grouped = bool((found.labels != UNLABELLED).any()) and all(other.labelled for other in others)
    if grouped and (others or 2 * len(counts) <= len(found.labels) or len(counts) == 1):
        plain = [Captioned(pixels, f"#{at}") for at, pixels in zip(found.positions, found.pixels, strict=True)]
        own = Beside("", tuple(plain), found.labels)
        rows = _rows_by_class([own, *others], sorted(counts, key=lambda one: (one < 0, one)), names, columns)
    else:
        named = [
            Captioned(pixels, f"#{at}" + (f" {name_class(int(label), names)}" if label >= 0 else ""))
            for at, pixels, label in zip(found.positions, found.pixels, found.labels, strict=True)
        ]
        rows = _side_by_side([fill_rows(one, columns) for one in (named, *(one.pictures for one in others))], columns)
    if not others:
        columns = max(sum(cell is not None for cell in row.cells) for row in rows)
        rows = [Row(row.name, row.cells[:columns]) for row in rows]
    return [Block(name, columns) for name in ("", *(other.name for other in others))], rows


def _collect(pictures: Iterator[Decoded], progress: Callable[[int], None]) -> Decoded:
    found = []
    for some in pictures:
        found.append(some)
        progress(len(some.positions))
    return Decoded(
        np.concatenate([some.positions for some in found]),
        np.concatenate([some.pixels for some in found]),
        np.concatenate([some.labels for some in found]),
    )


def _as_one_class(other: Beside, counts: Counter[int]) -> Beside:
    """Pictures without labels beside samples of a single class are taken for pictures of that class."""
    if other.labelled or len(counts) != 1:
        return other
    labels: NDArray[np.int32] = np.full(len(other.labels), next(iter(counts)), np.int32)
    return Beside(other.name, other.pictures, labels, other.remark)


def _rows_by_class(
    blocks: Sequence[Beside], labels: Sequence[int], names: Sequence[str] | None, columns: int
) -> list[Row]:
    rows = []
    for label in labels:
        ones = []
        for block in blocks:
            own = [its == label for its in block.labels]
            pictures = [picture for picture, mine in zip(block.pictures, own, strict=True) if mine]
            ones.append(fill_rows_by_class(pictures, np.full(len(pictures), label, np.int32), names, columns))
        rows += _side_by_side(ones, columns)
    return rows


def _side_by_side(blocks: Sequence[Sequence[Row]], columns: int) -> list[Row]:
    free = Row("", (None,) * columns)
    lines = zip_longest(*blocks, fillvalue=free)
    return [
        Row(next((row.name for row in line if row.name), ""), tuple(cell for row in line for cell in row.cells))
        for line in lines
    ]


def _titles(dataset: Dataset, count: int) -> tuple[str, str]:
    plan = settings_in_words.plan_of(dataset.folder)
    if plan is not None:
        return f"{counted(count, 'sample')} of {len(dataset)}", settings_in_words.settings(plan)
    manifest = dataset.manifest
    shape = "x".join(map(str, manifest.view.shape))
    note = f"{manifest.autoencoder.name}, {manifest.image.size} px, latents of {shape}, split {dataset.name}"
    return f"{counted(count, 'reconstruction')} of {len(dataset)}", note
