"""SAMPLES: a dataset with origin "samples", written shard by shard and published when all are there.

samples.json holds the settings that decide its bytes. Position i of its only split is sample i; there are no raw parts.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import (
    MANIFEST,
    WRITTEN_BY,
    Counts,
    FileEntry,
    Manifest,
    Source,
    Split,
    Statistics,
    View,
    dump_manifest,
    read_manifest_if_whole,
)
from lvae.manifests.parts.plan import AutoencoderRecord, ImageSettings, first_difference
from lvae.manifests.publishing.publish import unused_views, write_large_fields
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.index import index_name, write_index
from lvae.manifests.shards.layout import ShardContent, SplitLayout
from lvae.manifests.statistics import ChannelMoments, Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.selection import TRAIN, Selection
from lvae.manifests.views.view import (
    ShardReceipt,
    ViewPlan,
    ViewSettings,
    create_shard_receipt,
    finished_shard,
    remove_unfinished_shards,
    shard_entry,
    view_file,
    write_view,
)

SAMPLES = "samples.json"
SHARD_ROWS = 1024  # what an interruption costs at most
READ_ROWS = 1024


@dataclass(frozen=True)
class SamplesPlan:
    """What samples are drawn from, and how. Batch, device and process count are not among it: they decide nothing.

    model_sha256: of the file of weights. guidance_mean, guidance_variance, temperature: one per resolution, lowest
    first, 0 being no guidance. low_resolution: the id of the samples that an upsampler began with. output_temperature:
    the share of the predicted deviation that is added to the mean, as noise. residuals_sha256: of the file of residuals
    that this noise hangs together like; None where its numbers are independent.
    """

    format: Literal["latent-vae-samples"]
    version: Literal[1]
    written_by: str
    dataset: str
    model_sha256: str
    step: int
    weights: Literal["ema", "raw"]
    count: int
    seed: int
    labels: str
    labels_sha256: str
    guidance_mean: tuple[float, ...]
    guidance_variance: tuple[float, ...]
    temperature: tuple[float, ...]
    low_resolution: str | None
    precision: str
    shape: tuple[int, int, int]
    image: ImageSettings
    autoencoder: AutoencoderRecord
    classes: tuple[str, ...] | None
    normalization: Normalization
    output_temperature: float = records.later(0.0)
    residuals_sha256: str | None = records.later(None)

    @property
    def view(self) -> ViewPlan:
        settings = ViewSettings(normalization=self.normalization.kind, dtype="float32", shard_size=SHARD_ROWS)
        if self.normalization.kind == "given":
            shift, scale = self.normalization.shift, self.normalization.scale
            settings = ViewSettings("given", shift, scale, dtype="float32", shard_size=SHARD_ROWS)
        layout = SplitLayout(
            split=TRAIN,
            count=self.count,
            shape=self.shape,
            dtype="float32",
            shard_size=SHARD_ROWS,
            log_variances=False,
            labelled=self.classes is not None,
            label_width=2,
            json_width=0,
        )
        digest = records.sha256_of(self)
        return ViewPlan(f"samples-zarr-float32-{digest[:8]}", settings, self.normalization, {TRAIN: layout}, digest)


def begin(folder: Folder, plan: SamplesPlan, labels: NDArray[np.int32]) -> bool:
    """Make a folder ready for these samples; False where they are all there.

    labels: (count,). LvaeError where it holds others, unless these begin with all of those: then they are more of them.
    """
    data = folder.read_if_there(SAMPLES)
    if data is None and folder.root.exists() and any(folder.root.iterdir()):
        raise LvaeError(folder, "holds something else than samples", "Name another folder.")
    if data is not None:
        before = records.parse(SamplesPlan, data, str(folder.local(SAMPLES)))
        difference = first_difference(before, plan)
        if difference and not _goes_on_with(before, plan, labels):
            name, old, new = difference
            raise LvaeError(
                folder,
                f"holds samples of other settings: {name} was {old!r:.80} and is {new!r:.80} now",
                "Name another folder, or give the old settings.",
            )
        if read_manifest_if_whole(folder) is not None and not pending(folder, plan):
            return False
    folder.write(SAMPLES, records.dumps(plan))
    write_view(folder, plan.view)
    remove_unfinished_shards(folder, plan.view)
    codec("zarr").prepare(folder, plan.view.name, plan.view.layouts[TRAIN])
    return True


def _goes_on_with(before: SamplesPlan, plan: SamplesPlan, labels: NDArray[np.int32]) -> bool:
    """Whether a plan is for more samples of the same kind, the first of them with the same labels."""
    first = replace(plan, count=before.count, labels_sha256=hash_labels(labels[: before.count]))
    return plan.count > before.count and first == before


def hash_labels(labels: NDArray[np.int32]) -> str:
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()


def open_earlier(folder: Folder, plan: SamplesPlan) -> Dataset | None:
    """The samples that a plan goes on with, where they are whole: its first ones, which need not be drawn again."""
    manifest = read_manifest_if_whole(folder)
    return None if manifest is None or manifest.view.name == plan.view.name else Dataset(folder, manifest)


def pending(folder: Folder, plan: SamplesPlan) -> list[int]:
    """Numbers of the shards that are still to be drawn."""
    view = plan.view
    return [n for n in range(view.layouts[TRAIN].shards) if finished_shard(folder, view, TRAIN, n) is None]


def write_shard(
    folder: Folder, plan: SamplesPlan, number: int, latents: NDArray[np.float32], labels: NDArray[np.int32]
) -> None:
    """The samples of one shard, (n, C, h, w), normalized."""
    view = plan.view
    first, count = view.layouts[TRAIN].rows_of(number)
    rows = np.arange(first, first + count)
    content = ShardContent(latents, None, labels, rows, np.zeros(count, bool), [])
    files = codec("zarr").write_shard(folder, view.name, view.layouts[TRAIN], number, content)
    receipt = ShardReceipt("latent-vae-shard", 1, view.sha256, TRAIN, number, count, tuple(files))
    create_shard_receipt(folder, view, receipt)


def publish(folder: Folder, plan: SamplesPlan, weights: Folder) -> Manifest:
    """Write the manifest, when every shard is there. weights: a folder that may have the autoencoder's weights/."""
    view = plan.view
    layout = view.layouts[TRAIN]
    name = plan.autoencoder.weights_file
    if name is not None and weights.exists(name) and not folder.exists(name):
        folder.copy(weights, name, name)
    metadata = [record.path for record in codec("zarr").prepare(folder, view.name, layout)]
    names = [SAMPLES, view_file(view.name), *metadata]
    names += [name] if name is not None and folder.exists(name) else []
    shards = (shard_entry(view.name, receipt) for receipt in _receipts(folder, plan))
    index = write_index(folder, index_name(view.name, TRAIN), shards)
    large = write_large_fields(folder, view.name, plan.classes, Selection())
    files = [*map(folder.record, names), *large, index]
    manifest = Manifest(
        format="latent-vae-dataset",
        version=1,
        written_by=WRITTEN_BY,
        origin="samples",
        source=Source("samples", plan.count, view.sha256),
        image=plan.image,
        autoencoder=plan.autoencoder,
        classes=plan.classes,
        id=view.sha256,
        counts=Counts(plan.count, 0, plan.count, plan.count),
        raw="dropped",
        view=View(view.name, 0, Selection(), "float32", "zarr", plan.shape, SHARD_ROWS),
        statistics=_statistics(folder, plan),
        normalization=plan.normalization,
        splits={TRAIN: Split(plan.count, layout.shards, index)},
        plan_sha256=view.sha256,
        files={record.path: FileEntry(record.bytes, record.sha256) for record in files},
    )
    folder.swap(MANIFEST, dump_manifest(manifest))
    for name in unused_views(folder, manifest):  # of fewer samples
        folder.remove(f"shards/{name}")
    return manifest


def _receipts(folder: Folder, plan: SamplesPlan) -> Iterator[ShardReceipt]:
    for number in range(plan.view.layouts[TRAIN].shards):
        receipt = finished_shard(folder, plan.view, TRAIN, number)
        if receipt is None:
            raise LvaeError(folder, f"shard {number} is not finished", "Run 'lvae sample' again to go on.")
        yield receipt


def _statistics(folder: Folder, plan: SamplesPlan) -> Statistics:
    view = plan.view
    reader = codec("zarr").open_split(folder, view.name, view.layouts[TRAIN])
    moments = ChannelMoments.empty(plan.shape[0])
    for start in range(0, plan.count, READ_ROWS):
        block: NDArray[Any] = np.asarray(reader.latents[start : start + READ_ROWS])
        moments = moments.merge(ChannelMoments.of(plan.normalization.denormalize(block)))
    reader.close()
    mean, std, low, high = (
        tuple(map(float, values)) for values in (moments.mean, moments.std, moments.minimum, moments.maximum)
    )
    return Statistics("selected rows, all splits", plan.count, mean, std, low, high, "shards")
