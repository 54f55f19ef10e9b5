"""The latents of a dataset as an export takes them: raw, in the order of their rows, an image with its mirror."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.keys import Keys
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import read_raw, receipts
from lvae.manifests.views.selected_rows import selected_parts, sides_of
from lvae.manifests.views.selection import TRAIN

BLOCK = 256  # rows at a time


@dataclass(frozen=True)
class Block:
    """Some images: raw latents float32 (n, orientations, C', h, w), with `moments` means then log-variances; labels."""

    latents: NDArray[np.float32]
    labels: NDArray[np.int32]
    keys: Sequence[str]


class ExportRows:
    """One split of a dataset. exact: whether its raw parts are read, or float16 shards denormalized."""

    def __init__(self, dataset: Dataset):
        manifest = dataset.manifest
        if manifest.autoencoder.pixels:
            raise LvaeError(dataset.folder, "holds pixels, not latents", "Give their trainers the images.")
        self.dataset = dataset
        self.plan: Plan | None = read_plan(dataset.folder) if manifest.raw == "kept" else None
        if self.plan is not None and self.plan.sha256 != manifest.plan_sha256:
            raise LvaeError(dataset.folder, "images are being added", "Finish that first, by the same command.")
        self.exact = self.plan is not None
        self.orientations = manifest.image.orientations
        self.count = len(dataset) // self.orientations
        self.moments = manifest.autoencoder.store == "moments"

    def blocks(self) -> Iterator[Block]:
        if self.plan is not None:
            yield from self._from_raw(self.plan)
        else:
            yield from self._from_shards()

    def _from_raw(self, plan: Plan) -> Iterator[Block]:
        folder, manifest, encoding = self.dataset.folder, self.dataset.manifest, plan.encoded()
        selection = manifest.view.selection
        thresholds, parts = selected_parts(folder, plan, selection, lambda: receipts(folder, plan))
        names = [name for name, _ in thresholds.splits] + [TRAIN]
        side = names.index(self.dataset.name)
        for receipt, part in parts:
            here = np.flatnonzero(sides_of(part.keys, thresholds.splits) == side)
            if not len(here):
                continue
            raw = read_raw(folder, receipt, encoding).reshape(-1, self.orientations, *encoding.raw_shape)
            for start in range(0, len(here), BLOCK):
                some = here[start : start + BLOCK]
                keys = [part.keys[index] for index in some.tolist()]
                yield Block(np.asarray(raw[part.images[some]], np.float32), part.labels[some], keys)

    def _from_shards(self) -> Iterator[Block]:
        dataset = self.dataset
        order = np.lexsort((dataset.mirrored[:], dataset.rows[:]))
        scale = np.log(np.array(dataset.normalization.scale))[:, None, None] * 2
        rows = dataset.rows[order[:: self.orientations]]
        samples = dataset.manifest.origin == "samples"
        keys: Sequence[str] = [f"sample {row}" for row in rows] if samples else Keys(dataset.folder, rows)
        for start in range(0, len(order), BLOCK * self.orientations):
            some = order[start : start + BLOCK * self.orientations]
            stored, labels = dataset.read(some, np.float32)
            found = dataset.denormalize(stored)
            if self.moments and dataset.log_variances is not None:
                spreads = np.stack([dataset.log_variances[int(index)] for index in some]).astype(np.float64) + scale
                found = np.concatenate([found, spreads.astype(np.float32)], 1)
            whole = found.reshape(-1, self.orientations, *found.shape[1:])
            first = start // self.orientations
            yield Block(whole, labels[:: self.orientations], keys[first : first + BLOCK])
