"""The job that decodes a dataset, or computes features of it, in parts: plan, parts, then one file or folder."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from lvae.evaluate.decoded_part import assemble
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.decoded_parts import (
    PARTS,
    PLAN,
    DecodePlan,
    FeatureMode,
    Kind,
    begin,
    finished_decode,
    settle_decode,
)
from lvae.manifests.storage.folder import CHUNK_BYTES, FileRecord, Folder
from lvae.manifests.storage.locks import LOCK, writing
from lvae.manifests.storage.open import folder_at
from lvae.manifests.views.selection import TRAIN
from lvae.pipeline.beam.work import PartsToDecode, ranges_of
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.submit import run
from lvae.pipeline.engines.tasks import Pending, Tasks
from lvae.pipeline.progress import reports as progress
from lvae.pipeline.progress.console import Bar, say

PART_BYTES = 16 << 20  # of pixels, about: what a worker holds, and what its loss costs
LEAST, MOST = 32, 512  # pictures a part; a multiple of what a network takes at once, so that parts change no bit
GIVEN = "given"


@dataclass(frozen=True)
class DecodeRequest:
    """What to make of DATASET, see `DecodePlan`. weights, network: files of the user's. statistics: of features."""

    kind: Kind
    split: str = TRAIN
    of: Literal["latents", "originals"] = "latents"
    positions: tuple[int, ...] | None = None
    round: Literal["nearest", "truncate"] = "nearest"
    precision: Literal["float32", "bfloat16"] = "float32"
    weights: Path | None = None
    network: Path | None = None
    mode: FeatureMode | None = None
    statistics: bool = False
    part_size: int | None = None


def make(source: str, out: Path, parts: str, request: DecodeRequest, engine: Engine, devices: Sequence[str]) -> int:
    """OUT of parts that lie in the folder `parts` meanwhile; how many pictures. The same call again goes on."""
    dataset = Dataset.open(source, request.split)
    if request.of == "originals" and dataset.manifest.origin == "samples":
        raise LvaeError(source, "samples have no originals", "Leave --originals out.")
    _check(dataset, request)
    folder = folder_at(parts)
    with writing(folder):
        plan = _plan(folder, dataset, request)
        begin(folder, plan)
        folder.sweep()
        _make_parts(folder, plan, engine, tuple(devices))
        with Bar("joining", plan.count, "pictures") as bar:
            assemble(folder, plan, out, dataset, request.statistics, bar.advance)
        for name in (PARTS, GIVEN, PLAN):
            folder.remove(name)
        folder.sweep()
        folder.remove(LOCK)
    if not folder.remote:
        with suppress(OSError):  # it was there before, and holds something else
            folder.local("").rmdir()
    return plan.count


def _check(dataset: Dataset, request: DecodeRequest) -> None:
    """What is refused before anything is written."""
    if not _count(dataset, request):
        raise LvaeError(dataset.folder, "holds no latents, so there is nothing to make")
    if request.part_size is not None and request.part_size % LEAST:
        raise LvaeError(f"--part-size {request.part_size}", f"write a multiple of {LEAST}, what is computed at once")
    for file in (request.weights, request.network):
        if file is not None and file.is_dir():
            raise LvaeError(file, "a folder; workers take one file", "'lvae autoencoder convert' makes one of it.")
        if file is not None and not file.is_file():
            raise LvaeError(file, "there is no file of this name")


def _count(dataset: Dataset, request: DecodeRequest) -> int:
    return len(dataset) if request.positions is None else len(request.positions)


def _plan(folder: Folder, dataset: Dataset, request: DecodeRequest) -> DecodePlan:
    size = dataset.manifest.image.size
    fitting = min(max(PART_BYTES // (size * size * 3) // LEAST * LEAST, LEAST), MOST)
    return DecodePlan(
        format="latent-vae-pictures",
        version=1,
        dataset=dataset.folder.address,
        dataset_id=dataset.manifest.id,
        split=request.split,
        of=request.of,
        positions=request.positions,
        count=_count(dataset, request),
        part_size=request.part_size or fitting,
        kind=request.kind,
        round=request.round,
        precision=request.precision,
        weights=_given(folder, request.weights),
        network=_given(folder, request.network),
        mode=request.mode,
    )


def _given(folder: Folder, file: Path | None) -> FileRecord | None:
    """A file of the user's, copied to where workers find it, under the name of its content."""
    if file is None:
        return None
    with folder.writer() as unfinished, file.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            unfinished.file.write(chunk)
        return unfinished.commit(f"{GIVEN}/{unfinished.file.sha256[:12]}{file.suffix}")


def _make_parts(folder: Folder, plan: DecodePlan, engine: Engine, devices: tuple[str, ...]) -> None:
    tasks = Tasks(
        numbers=range(plan.parts),
        finished=lambda part: finished_decode(folder, plan, part) is not None,
        name=lambda part: f"part {part}",
        describe=lambda part: f"part {part} (pictures {plan.range_of(part).start} to {plan.range_of(part).stop - 1})",
        work=lambda parts: PartsToDecode(folder.address, ranges_of(parts, engine.tasks), devices),
    )
    sizes = [len(plan.range_of(part)) for part in range(plan.parts)]
    pending = Pending(folder, replace(tasks, finished=partial(settle_decode, folder, plan))).update()
    if not pending:
        return
    what, parts_done = "features" if plan.kind == "features" else "decoding", progress.PartsDone(sizes, pending)
    with Bar(what, plan.count, "pictures", parts_done.now([], pending)) as bar:
        run(folder, tasks, engine, lambda reports, waiting: bar.at(parts_done.now(reports, waiting)), say)
