"""Who looks at the parts and shards of a dataset: this process, or as many as there are (pipeline/jobs/check.py)."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.manifest import Manifest
from lvae.manifests.parts.plan import Plan
from lvae.manifests.seeds import derive
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.parts import check_parts
from lvae.manifests.verify.receipts import CheckedParts, CheckedShards, part_runs, shard_runs
from lvae.manifests.verify.selection import segment_sha256
from lvae.manifests.verify.shards import Gather, Sought, check_shards
from lvae.manifests.views.combine import Selected, select
from lvae.manifests.views.gather import shard_content
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewPlan

SAMPLED_ROWS = 64  # of a shard, compared with the raw parts where each is a request to a store
COMPARED_BYTES = 64 << 20  # of a view's latents on a store, up to which all are compared


@dataclass(frozen=True)
class Subject:
    """A dataset that is looked at. plan: that of its manifest."""

    folder: Folder
    manifest: Manifest
    plan: Plan

    @property
    def kept(self) -> bool:
        return self.manifest.raw == "kept"


class Checker(Protocol):
    """Looks at a dataset piece by piece; what is found comes in order."""

    def parts(self, subject: Subject) -> Iterable[CheckedParts]:
        """All parts, to the last byte."""

    def segments(self, subject: Subject) -> Iterable[str]:
        """The hashes of the segments of the listing, from rows/."""

    def select(self, subject: Subject, selection: Selection) -> Selected:
        """The order of the view made again, with its statistics where raw latents are kept."""

    def shards(self, folder: Folder, manifest: Manifest, view: ViewPlan, plan: Plan | None) -> Iterable[CheckedShards]:
        """All shards, to the last byte; with a plan, after `select`, compared with the raw parts."""


class Here:
    """In this process. The order lies in a folder of its own: the dataset may be read-only, or another command's."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._order = Folder(self._stack.enter_context(TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def parts(self, subject: Subject) -> Iterator[CheckedParts]:
        for run in range(part_runs(subject.plan)):
            yield check_parts(subject.folder, subject.plan, run, subject.kept, deep=True)

    def segments(self, subject: Subject) -> Iterator[str]:
        for number in range(len(subject.plan.listing.segments)):
            yield segment_sha256(subject.folder, subject.plan, number)

    def select(self, subject: Subject, selection: Selection) -> Selected:
        return select(subject.folder, subject.plan, selection, self._order, statistics=subject.kept)

    def shards(self, folder: Folder, manifest: Manifest, view: ViewPlan, plan: Plan | None) -> Iterator[CheckedShards]:
        gather = None if plan is None else gather_for(folder, plan, view, self._order)
        for run in range(shard_runs(view.layouts)):
            yield check_shards(folder, manifest, view, run, gather)


def gather_for(folder: Folder, plan: Plan, view: ViewPlan, order: Folder) -> Gather:
    """What shards have to hold, of an order that is there.

    Every latent, where that is a look at a map. Where each is a request to a store, and they are many, a seeded sample
    of each shard: its bytes are checked by their hash anyway, and a wrong order would be wrong everywhere.
    """
    stored = sum(layout.count * layout.latent_bytes for layout in view.layouts.values())
    sampled = folder.remote and stored > COMPARED_BYTES

    def gather(split: str, number: int) -> Sought:
        count = view.layouts[split].rows_of(number)[1]
        rows = sample_rows(count, f"{view.sha256}/{split}/{number}") if sampled else None
        return Sought(shard_content(folder, plan, view, split, number, order, rows), rows)

    return gather


def sample_rows(count: int, purpose: str) -> NDArray[np.int64]:
    """Some rows of a shard, ascending."""
    random = np.random.default_rng(derive(0, "checked rows", purpose))
    return np.sort(random.choice(count, min(count, SAMPLED_ROWS), replace=False))
