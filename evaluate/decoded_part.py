"""One decoded part: pictures or features of a range of a dataset; and what all parts together become."""

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.features import efficientnet
from lvae.evaluate.features.compute import require_finite_features
from lvae.evaluate.features.feature_files import ARRAYS, FeaturesRecord, write_features
from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures, open_network
from lvae.evaluate.features.reference_files import write_reference_of_features
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.pictures.decode import (
    Decoded,
    DecodeSettings,
    decode_positions,
    load_decoder,
    write_npz,
    write_whole,
)
from lvae.evaluate.pictures.labels import labels_if_any
from lvae.evaluate.pictures.originals import Originals
from lvae.evaluate.pictures.picture_folder import PictureFolder, begin_pictures, picture_name
from lvae.evaluate.pictures.streams import BATCH
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.decoded_parts import (
    DecodePlan,
    DecodeReceipt,
    finished_decode,
    read_decoded_parts,
    write_decoded_part,
)
from lvae.manifests.parts.phases import Progress as PartProgress
from lvae.manifests.storage.folder import Folder

Progress = Callable[[int], None]


@dataclass(frozen=True)
class PartDecoder:
    """What a process needs to make any part: the dataset and the networks, loaded once."""

    folder: Folder
    plan: DecodePlan
    dataset: Dataset
    decoder: Autoencoder | None
    network: FeatureNetwork | None
    device: str

    def make(self, part: int, progress: PartProgress) -> DecodeReceipt:
        """Write a part and its receipt. progress: how many of its pictures are made, and what is waited for."""
        progress.enter("reading" if self.decoder is None else "computing")
        positions = _positions(self.plan, part)
        labels = self.dataset.labels[positions]
        if self.plan.kind == "features":
            files = self._features(positions, progress)
        else:
            pixels = np.concatenate(list(self._batches(positions, progress)))
            files = _pixels(pixels) if self.plan.kind == "npz" else _tar(positions, pixels)
        progress.enter("writing")
        return write_decoded_part(self.folder, self.plan, part, files | {"labels": _npy(labels)})

    def _features(self, positions: NDArray[np.int64], progress: PartProgress) -> dict[str, bytes]:
        assert self.network is not None
        found, done = list[PictureFeatures](), 0
        for images in self._batches(positions, progress):
            found.append(self.network(images))
            keys = [f"position {position}" for position in positions[done : done + len(images)]]
            require_finite_features(found[-1], self.plan.dataset, keys)
            done += len(images)
        return {name: _npy(np.concatenate([getattr(one, name) for one in found])) for name in found[0].arrays}

    def _batches(self, positions: NDArray[np.int64], progress: PartProgress) -> Iterator[NDArray[np.uint8]]:
        done = 0
        if self.decoder is None:
            with Originals(self.dataset) as originals:
                for start in range(0, len(positions), BATCH):
                    progress.enter("reading")
                    chosen = positions[start : start + BATCH]
                    opened = zip(self.dataset.rows[chosen], self.dataset.mirrored[chosen], strict=True)
                    images = np.stack([originals.open(int(row), bool(flip)) for row, flip in opened])
                    progress.enter("computing")
                    yield images
                    done += len(chosen)
                    progress.working(done)
            return
        settings = DecodeSettings(self.device, self.plan.precision, self.plan.round)
        for some in decode_positions(self.dataset, self.decoder, positions, BATCH, settings):
            yield some.pixels
            done += len(some.positions)
            progress.working(done)


def open_part_decoder(folder: Folder, plan: DecodePlan, device: str) -> PartDecoder:
    """LvaeError where the dataset is another one than the plan's, or a network is not there."""
    dataset = Dataset.open(plan.dataset, plan.split)
    if dataset.manifest.id != plan.dataset_id:
        raise LvaeError(plan.dataset, "has changed since this was begun", f"Remove {folder}, and begin anew.")
    weights = None if plan.weights is None else str(folder.local(plan.weights.path))
    network = None
    if plan.network is not None:
        mode = "adm" if plan.mode is None or plan.mode == efficientnet.MODE else plan.mode
        network = open_network(folder.local(plan.network.path), mode, device)
        if network.sha256 != plan.network.sha256:
            raise LvaeError(f"{folder}/{plan.network.path}", "has been changed or damaged", f"Remove {folder}.")
    decoder = load_decoder(dataset, weights) if plan.of == "latents" else None
    return PartDecoder(folder, plan, dataset, decoder, network, device)


def _positions(plan: DecodePlan, part: int) -> NDArray[np.int64]:
    here = plan.range_of(part)
    return np.array(here if plan.positions is None else plan.positions[here.start : here.stop], np.int64)


def _pixels(pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    return {"pixels": _npy(pixels)}


def _tar(positions: NDArray[np.int64], pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for position, picture in zip(positions, pixels, strict=True):
            data = png(Image.fromarray(picture))
            member = tarfile.TarInfo(f"{position:06d}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return {"pictures": buffer.getvalue()}


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> NDArray[Any]:
    found: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return found


# --- all parts together ----------------------------------------------------------------------------------------------


def assemble(
    folder: Folder, plan: DecodePlan, out: Path, dataset: Dataset, statistics: bool, progress: Progress
) -> None:
    """OUT of finished parts, of which one is in memory at a time. Nothing is there under the name until it is whole.

    statistics: of features, where the features themselves would be written otherwise.
    """
    size = dataset.manifest.image.size
    if plan.kind == "npz":
        write_npz(_read_decoded(folder, plan), out, plan.count, size, dataset.classes is not None, progress)
    elif plan.kind == "png":
        positions = range(plan.count) if plan.positions is None else plan.positions
        begin_pictures(out, PictureFolder.of(dataset), positions)
        _unpack(folder, plan, out, progress)
    else:
        _join_features(folder, plan, out, dataset, statistics)
        progress(plan.count)


def _record(plan: DecodePlan, dataset: Dataset) -> FeaturesRecord:
    assert plan.network is not None
    decoded = "samples" if dataset.manifest.origin == "samples" else "reconstructions"
    what = "images" if plan.of == "originals" else decoded
    size = dataset.manifest.image.size
    return FeaturesRecord(what, (size, size), plan.mode or "own", plan.network.sha256)


def _read_decoded(folder: Folder, plan: DecodePlan) -> Iterator[Decoded]:
    pixels, labels = read_decoded_parts(folder, plan, "pixels"), read_decoded_parts(folder, plan, "labels")
    for part, (some, its) in enumerate(zip(pixels, labels, strict=True)):
        yield Decoded(_positions(plan, part), _array(some), _array(its))


def _unpack(folder: Folder, plan: DecodePlan, out: Path, progress: Progress) -> None:
    for part, data in enumerate(read_decoded_parts(folder, plan, "pictures")):
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for position, member in zip(_positions(plan, part), tar, strict=True):
                file = tar.extractfile(member)
                assert file is not None
                write_whole(out / picture_name(position), file.read())
        progress(len(plan.range_of(part)))


def _join_features(folder: Folder, plan: DecodePlan, out: Path, dataset: Dataset, statistics: bool) -> None:
    record, receipt = _record(plan, dataset), finished_decode(folder, plan, 0)
    names = [name for name in ARRAYS if receipt is not None and name in receipt.files]

    def pieces(name: str) -> Iterator[NDArray[np.float32]]:
        return map(_array, read_decoded_parts(folder, plan, name))

    if not statistics:
        positions = slice(plan.count) if plan.positions is None else list(plan.positions)
        labels = labels_if_any(dataset.labels[positions], dataset.classes)
        write_features(out, {name: partial(pieces, name) for name in names}, plan.count, record, labels)
        return
    absent = [None] * plan.parts
    columns = [pieces(name) if name in names else absent for name in ARRAYS]
    write_reference_of_features(out, (PictureFeatures(*some) for some in zip(*columns, strict=True)), record)
