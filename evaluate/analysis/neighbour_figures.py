"""Nearest training images seen and judged: a picture, a sentence, and everything as JSON."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.analysis.neighbours import Neighbour, Neighbours, Queries
from lvae.evaluate.figures.drawing import Captioned
from lvae.evaluate.figures.grids import LARGE, Block, Row, draw_grid, name_class
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.pictures.originals import Originals
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

NAMED = 6  # samples named in a sentence
CLEARLY = 0.8  # of the least distance between real images; a smooth picture is somewhat nearer to everything
logger = logging.getLogger(__name__)


def load_pictures(
    dataset: Dataset, network: Autoencoder, found: Neighbours
) -> tuple[list[list[NDArray[np.uint8]]], bool]:
    """Pictures of the neighbours, from their source where it is there; whether they are.

    Otherwise all of them are decoded from their latents, and the log says why.
    """
    try:
        return _open_originals(dataset, found), True
    except LvaeError as error:
        logger.warning("%s The neighbours are shown as reconstructions.", error)
    shown = []
    for nearest in found.found:
        stored, _ = dataset.read(np.array([one.position for one in nearest]))
        shown.append(list(decode(network, dataset.denormalize(stored))))
    return shown, False


def _open_originals(dataset: Dataset, found: Neighbours) -> list[list[NDArray[np.uint8]]]:
    with Originals(dataset) as originals:
        return [[originals.open(one.row, one.mirrored) for one in nearest] for nearest in found.found]


def draw_neighbours(
    dataset: Dataset, network: Autoencoder, queries: Queries, found: Neighbours
) -> tuple[Image.Image, bool]:
    """A row a sample: itself, then its neighbours with their distances; whether these are from their source."""
    shown, from_source = load_pictures(dataset, network, found)
    own = decode(network, queries.raw)
    rows = []
    for number, pixels, label, pictures, nearest in zip(
        queries.numbers, own, queries.labels, shown, found.found, strict=True
    ):
        cells = [Captioned(pixels, f"sample {number}")]
        name = queries.name_class(int(label), dataset)
        cells += [
            Captioned(picture, write_caption(one, name, dataset.classes))
            for picture, one in zip(pictures, nearest, strict=True)
        ]
        rows.append(Row(name or "", tuple(cells)))
    k = len(found.found[0])
    where = "latent space" if found.space == "latent" else "feature space"
    kind = "originals" if from_source else "reconstructions: their originals are not here"
    blocks = [Block("sample", 1), Block(f"nearest of {counted(found.searched, 'training latent')} ({kind})", k)]
    note = f"{judge(queries.numbers, found)}\nSamples: {queries.what}.\n{explain(found)}"
    return draw_grid(f"Nearest training images in {where}", blocks, rows, note, LARGE), from_source


def write_caption(one: Neighbour, wanted: str | None, names: tuple[str, ...] | None) -> str:
    """The distance, the class where it is another than the sample's (`wanted`), and the last part of the key."""
    name = name_class(one.label, names)
    other = f"\n{name}" if one.label >= 0 and name != wanted else ""
    key = "" if one.key is None else "\n" + one.key.rsplit("/", 1)[-1]
    return f"{one.distance:.3g} away{other}{key}"


def find_suspects(numbers: Sequence[int], found: Neighbours) -> list[int]:
    """The samples that may be copies: clearly nearer to a training image than training images are to one another."""
    return [number for number, length in zip(numbers, found.nearest, strict=True) if length < CLEARLY * found.real[0]]


def judge(numbers: Sequence[int], found: Neighbours) -> str:
    """Whether there are copies among samples, in a sentence: by the rank of distances among those of real ones."""
    pairs = list(zip(found.nearest, numbers, strict=True))
    distance, number = min(pairs)
    others = counted(len(found.real), "training image")
    copies = [f"#{which}" for which in find_suspects(numbers, found)]
    if not copies:
        nearer = found.count_nearer(distance)
        return (
            f"No copies among {counted(len(pairs), 'sample')}: the nearest to a training image, #{number}, is "
            f"{distance:.3g} from it, and of {others} {nearer} are nearer than that to another one."
        )
    shown = ", ".join(copies[:NAMED]) + (", ..." if len(copies) > NAMED else "")
    return (
        f"{len(copies)} of {counted(len(pairs), 'sample')} may be copies ({shown}): clearly nearer to a training image "
        f"(#{number}: {distance:.3g}) than any of {others} is to another one ({found.real[0]:.3g} at least). Look at "
        "them."
    )


def explain(found: Neighbours) -> str:
    what = "normalized latents" if found.space == "latent" else "features of decoded pictures"
    return (
        f"Below a training image stands how far it is from the sample (Euclidean, between {what}). Training images are "
        f"{found.typical:.3g} from the nearest other one (median of {len(found.real)}). A copy would be far nearer; a "
        "smooth picture is somewhat nearer to everything."
    )


def to_dict(queries: Queries, dataset: Dataset, found: Neighbours) -> dict[str, Any]:
    return {
        "space": found.space,
        "samples_are": queries.what,
        "dataset_id": dataset.manifest.id,
        "split": dataset.name,
        "searched": found.searched,
        "typical_distance": found.typical,
        "verdict": judge(queries.numbers, found),
        "samples": [
            {
                "number": number,
                "label": int(label),
                "class": queries.name_class(int(label), dataset),
                "real_images_nearer": found.count_nearer(nearest[0].distance),
                "neighbours": records.plain(nearest),
            }
            for number, label, nearest in zip(queries.numbers, queries.labels, found.found, strict=True)
        ],
    }
