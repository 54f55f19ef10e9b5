"""Pictures of a study's page: of every arm from equal seeds, below them what they are measured by."""

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvae.actions.study.arms import REFERENCE
from lvae.actions.study.chain import FIRST_SEED, TIME, Chain
from lvae.evaluate.pictures.decode import decode, load_decoder
from lvae.evaluate.pictures.streams import ImageStack
from lvae.evaluate.report.page import Thumbnail
from lvae.evaluate.scores.image_scores import rivals_of
from lvae.evaluate.studies import paper
from lvae.manifests.dataset import Dataset

SHOWN = 12  # pictures of an arm
SET_ASIDE = "pictures set aside"


def show_pictures(chain: Chain) -> dict[str, list[Thumbnail]]:
    """The first samples of every arm's first seed; of table 3 also class Gaussians and reconstructions.

    And pictures that were set aside, those of the reconstructions. Nothing where no arm drew any.
    """
    found = {}
    for path in sorted(chain.out.glob(f"arms/*/seed-0/samples-{TIME}")) + sorted(
        chain.out.glob("arms/*/seed-0/samples-guided")
    ):
        samples = Dataset.open(path)
        name = paper.GUIDED if path.name.endswith("guided") else _name_of(chain, path)
        found[name] = _show(f"sample {{}}, {name}", _decode(samples, np.arange(min(SHOWN, len(samples)))))
    if not found:
        return {}
    held_out = Dataset.open(chain.data(REFERENCE), "val")
    chosen = np.arange(min(SHOWN, len(held_out)))
    if paper.GUIDED in found:
        batches = stack_gaussians(chain, 0).batches()
        drawn = list(itertools.islice(itertools.chain.from_iterable(batches), SHOWN))
        found[paper.GAUSSIANS] = _show(f"draw {{}}, {paper.GAUSSIANS}", drawn)
        latents = Dataset.open(chain.data("latents"), "val")
        found[paper.RECONSTRUCTIONS] = _show("reconstruction {}", _decode(latents, _find(held_out, chosen, latents)))
    found[SET_ASIDE] = _show("picture {} of those set aside", _decode(held_out, chosen))
    return found


def stack_gaussians(chain: Chain, seed: int) -> ImageStack:
    """Decoded draws of a Gaussian a class, as many as are scored of every arm."""
    latents = Dataset.open(chain.data("latents"))
    around = rivals_of(latents, load_decoder(latents), chain.plan.count, FIRST_SEED + seed, "cpu")
    stack = next(rival for rival in around if rival.name == "linear").sets[0]
    assert isinstance(stack, ImageStack)
    return stack


def _decode(dataset: Dataset, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    return decode(load_decoder(dataset), dataset.denormalize(dataset.read(positions)[0]))


def _find(dataset: Dataset, positions: NDArray[np.int64], other: Dataset) -> NDArray[np.int64]:
    """Where the same images, mirrored or not, lie in another dataset of them."""
    places = {each: place for place, each in enumerate(zip(other.keys, other.mirrored.tolist(), strict=True))}
    keys, mirrored = dataset.keys, dataset.mirrored
    return np.array([places[keys[position], bool(mirrored[position])] for position in positions.tolist()])


def _show(words: str, pictures: NDArray[np.uint8] | list[NDArray[np.uint8]]) -> list[Thumbnail]:
    return [Thumbnail.of(one, words.format(number)) for number, one in enumerate(pictures)]


def _name_of(chain: Chain, samples: Path) -> str:
    return next(arm.name for arm in chain.design.arms if chain.place(arm.name, 0) == samples.parent)
