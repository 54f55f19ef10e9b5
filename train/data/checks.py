"""A dataset made ready for training: here, whole, and of the kind that the model wants."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import MANIFEST, every_file, read_manifest
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.verify.shards import file_faults
from lvae.train.config import ModelConfig

CHECKED_BYTES = 64 << 30  # of shards are read and checked at the start, about a minute; of larger ones only the sizes
UNLABELLED = -1

logger = logging.getLogger(__name__)
Progress = Callable[[str], None]


def local_copy(root: str, cache: Path | None, progress: Progress = lambda _: None) -> str | Path:
    """Where the dataset is read from: a path stays as it is, of a URL the shards are copied.

    Without `cache` the tar shards at a URL are read where they lie, as a stream.

    The copy goes to a folder of its own under `cache`. Every file is compared with its checksum before it is put under
    its name; what is there already is not fetched again, so an interrupted copy goes on.
    """
    if "://" not in root:
        return Path(root)
    remote = folder_at(root)
    manifest = read_manifest(remote)
    if manifest is None:
        raise LvaeError(root, "is not a finished dataset", "Run 'lvae encode' again to finish it.")
    if cache is None:
        if manifest.view.format == "webdataset" and manifest.autoencoder.store != "moments":
            return root
        problem = "training reads its latents over and over"
        raise LvaeError(root, problem, "Name a folder for a copy, --cache DIR, or make a view of tar shards.")
    local = Folder(cache / manifest.id[:16])
    for name, entry in manifest.files.items():
        record = FileRecord(name, entry.bytes, entry.sha256)
        listing = _is_needed(name, manifest.view.name) and name.endswith(".jsonl")
        if listing and not (local.exists(name) and local.record(name) == record):  # first: it names the others
            _fetch(remote, local, record)

    def missing() -> Iterator[FileRecord]:
        for record in every_file(local, manifest):
            if _is_needed(record.path, manifest.view.name) and local.size(record.path) != record.bytes:
                yield record

    files = size = 0
    for record in missing():
        files, size = files + 1, size + record.bytes
    free = local.free_bytes()
    if size > free:
        raise LvaeError(cache, f"{size} bytes are to be copied here and {free} are free", "Name another folder.")
    for number, record in enumerate(missing(), 1):
        progress(f"copying {root}: file {number} of {files}")
        _fetch(remote, local, record)
    local.write(MANIFEST, remote.read(MANIFEST))
    return local.root


def _is_needed(name: str, view: str) -> bool:
    return name.startswith((f"shards/{view}/", "weights/"))


def _fetch(remote: Folder, local: Folder, record: FileRecord) -> None:
    with local.writer() as unfinished:
        unfinished.file.write(remote.read(record.path))
        if (unfinished.file.bytes, unfinished.file.sha256) != (record.bytes, record.sha256):
            where = remote.place(record.path)
            raise LvaeError(where, "its bytes are not those that were written (checksum)", "Copy it anew.")
        unfinished.commit(record.path)


def check_shards(dataset: Dataset, progress: Progress = lambda _: None) -> None:
    """LvaeError where a file of the shards is not, byte for byte, what the manifest says."""
    prefix = f"shards/{dataset.manifest.view.name}/"
    files = size = 0
    for record in every_file(dataset.folder, dataset.manifest):
        if record.path.startswith(prefix):
            files, size = files + 1, size + record.bytes
    whole = size <= CHECKED_BYTES and not dataset.folder.remote
    if not whole:
        logger.warning("%s: too large to check every byte now; 'lvae verify --deep' does", dataset.folder)
    ours = (one for one in every_file(dataset.folder, dataset.manifest) if one.path.startswith(prefix))
    for number, record in enumerate(ours, 1):
        progress(f"checking shards: file {number} of {files}")
        for fault in file_faults(dataset.folder, record, whole):
            raise LvaeError(
                dataset.folder.place(record.path),
                fault.problem,
                "'lvae verify --deep' lists all damage and the command that mends it.",
            )


def check_fits(dataset: Dataset, config: ModelConfig) -> None:
    """LvaeError where the model wants other latents or labels; a warning where some latents have no label."""
    shape = dataset.manifest.view.shape
    wanted = (config.channels, config.resolution, config.resolution)
    if shape != wanted:
        raise LvaeError(
            dataset.folder,
            f"its latents are {_shown(shape)}, the model is for {_shown(wanted)}",
            "Choose another preset, or encode with another autoencoder or size.",
        )
    if len(dataset) == 0:
        raise LvaeError(dataset.folder, "holds no latents", "Encode some images.")
    if config.classes and not dataset.folder.remote:  # those of a stream are checked as they come
        _check_labels(dataset, config.classes)


def check_range(
    labels: NDArray[np.int32] | NDArray[np.int64], classes: int, where: str | Path | Folder = "the dataset"
) -> None:
    """LvaeError where a label is none of the model's."""
    wrong = labels[(labels >= classes) | (labels < UNLABELLED)] if classes else labels[:0]
    if len(wrong):
        problem = f"has label {wrong[0]}, and the model has classes 0 to {classes - 1}"
        raise LvaeError(
            where, problem, "Leave the others out: 'lvae shard DATASET --out OTHER --only-classes A,B,...'."
        )


def _check_labels(dataset: Dataset, classes: int) -> None:
    labels = dataset.labels
    if (labels == UNLABELLED).all():
        raise LvaeError(
            dataset.folder,
            f"its latents have no labels, and the model has {classes} classes",
            "Train without (--set classes=0), or encode with --labels FILE.",
        )
    if int(labels.max()) >= classes or int(labels.min()) < UNLABELLED:
        wrong = int(labels.max()) if int(labels.max()) >= classes else int(labels.min())
        raise LvaeError(
            dataset.folder,
            f"has label {wrong}, and the model has classes 0 to {classes - 1}",
            f"Give --set classes={int(labels.max()) + 1}, or make a view with --only-classes.",
        )
    if unlabelled := int(np.count_nonzero(labels == UNLABELLED)):
        logger.warning("%d of %d latents have no label; the model is told so", unlabelled, len(dataset))
    if dataset.classes is not None and len(dataset.classes) < classes:
        logger.warning("the model has %d classes, the dataset %d", classes, len(dataset.classes))


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
