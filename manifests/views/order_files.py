"""The files of an order: what a fold leaves group by group, and where."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lvae.manifests import records
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import PARTS_PER_FOLDER
from lvae.manifests.parts.rows import UNLABELLED
from lvae.manifests.storage.folder import TEMPORARY, FileRecord, Folder
from lvae.manifests.storage.names import FileName, Sha256, SplitName
from lvae.manifests.views.selection import TRAIN, Selection

ORDER = f"{TEMPORARY}/order"
FOLD = f"{ORDER}/fold.json"
THRESHOLDS = f"{ORDER}/thresholds.json"
GROUPS_PER_FOLDER = 1024

# One selected latent: its index among the raw latents of its group in part order (of all groups, once `Order` has read
# it), its image's row, its label and orientation.
ENTRY = np.dtype([("raw", "<i8"), ("row", "<i8"), ("label", "<i4"), ("mirrored", "?")])


@dataclass(frozen=True)
class Fold:
    """What is to be folded. statistics: of the raw latents too, whose files have to be there."""

    plan_sha256: Sha256
    selection: Selection
    statistics: bool

    @property
    def splits(self) -> tuple[str, ...]:
        """In the order in which an image is offered to them; training takes the rest."""
        return (*sorted(self.selection.split or {}), TRAIN)

    @property
    def sha256(self) -> str:
        return records.sha256_of(self)


@dataclass(frozen=True)
class GroupReceipt:
    """What is in a group, beside its files.

    unfinished: parts without a receipt that fits; where there are some, all else is left out. counts: latents by split.
    met: of the keys to leave out. largest_label: -1 where nothing is labelled. longest_key: the one that takes most
    bytes as JSON. rows: the Parquet files whose first part is in this group. orphans: files that no receipt names.
    """

    format: Literal["latent-vae-group"]
    version: Literal[1]
    fold_sha256: Sha256
    group: int
    unfinished: tuple[int, ...]
    latents: int = 0
    rejected: int = 0
    counts: dict[SplitName, int] | None = None
    met: tuple[str, ...] = ()
    largest_label: int = UNLABELLED
    longest_key: str = ""
    rows: tuple[FileRecord, ...] = ()
    orphans: tuple[FileName, ...] = ()


def part_facts(plan: Plan, splits: int) -> np.dtype[Any]:
    """What is kept of a part. moments: mean, m2, minimum and maximum of every channel. selected: latents by split."""
    channels = plan.encoded().autoencoder.latent_channels
    return np.dtype(
        [
            ("latents", "<i8"),
            ("raw", "S8"),
            ("receipt_bytes", "<i8"),
            ("receipt", "S64"),
            ("values", "<i8"),
            ("moments", "<f8", (4, channels)),
            ("selected", "<i8", (splits,)),
        ]
    )


def groups_of(plan: Plan) -> int:
    return -(-plan.listing.parts // PARTS_PER_FOLDER)


def _group_file(group: int, name: str) -> str:
    return f"{ORDER}/{group // GROUPS_PER_FOLDER:06d}/{group:06d}/{name}"


def group_receipt_name(group: int) -> str:
    return _group_file(group, "group.json")


def parts_file(group: int) -> str:
    """`part_facts` of the group's parts."""
    return _group_file(group, "parts")


def rejected_file(group: int) -> str:
    """The group's piece of rejected.jsonl."""
    return _group_file(group, "rejected.jsonl")


def ranks_file(group: int) -> str:
    """uint64 (2, images): hashes of the keys that pass the selection's filters, for its limit and for its splits."""
    return _group_file(group, "ranks")


def entries_file(group: int, split: str) -> str:
    """ENTRY records of one split, in source order."""
    return _group_file(group, f"{split}.entries")


def keys_file(group: int, split: str) -> str:
    """The keys of a split's images in source order, UTF-8 one behind the other."""
    return _group_file(group, f"{split}.keys")


def key_ends_file(group: int, split: str) -> str:
    """int64: where each key ends in the file of keys."""
    return _group_file(group, f"{split}.key-ends")


def parts_of_group(plan: Plan, group: int) -> range:
    return range(group * PARTS_PER_FOLDER, min((group + 1) * PARTS_PER_FOLDER, plan.listing.parts))


def read_group(order: Folder, fold: Fold, group: int) -> GroupReceipt | None:
    """The receipt of a group of this very fold."""
    name = group_receipt_name(group)
    data = order.read_if_there(name)
    if data is None:
        return None
    receipt = records.parse(GroupReceipt, data, name)
    return receipt if (receipt.group, receipt.fold_sha256) == (group, fold.sha256) else None


def read_fold(order: Folder) -> Fold:
    return records.parse(Fold, order.read(FOLD), order.place(FOLD))
