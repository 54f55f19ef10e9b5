"""Pictures and features made of a dataset's latents part by part: what to make, and a receipt for every part made.

The rules are those of encoding (parts.py): files are named by their content, the receipt is written last and names
them, and whoever comes later believes the receipts alone. Parts hold positions of one split in their order.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import refuse_change
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.names import Sha256, SplitName

PLAN = "pictures.json"
PARTS = "parts"
Kind = Literal["npz", "png", "features"]
FeatureMode = Literal["adm", "clean", "pytorch-fid", "efficientnet-lite0-128"]  # how pictures are prepared


@dataclass(frozen=True)
class DecodePlan:
    """What decides every byte of every part.

    dataset: where workers find it; dataset_id: what they must find there. of: what its latents decode to, or the images
        that they were made of.
    positions: of the split, in this order; None for the first `count`.
    weights: of the decoder, where the user gave some; network: of the features: both files of the plan's folder.
    """

    format: Literal["latent-vae-pictures"]
    version: Literal[1]
    dataset: str
    dataset_id: Sha256
    split: SplitName
    of: Literal["latents", "originals"]
    positions: tuple[int, ...] | None
    count: int
    part_size: int
    kind: Kind
    round: Literal["nearest", "truncate"]
    precision: Literal["float32", "bfloat16"]
    weights: FileRecord | None
    network: FileRecord | None
    mode: FeatureMode | None

    @property
    def parts(self) -> int:
        return -(-self.count // self.part_size)

    def range_of(self, part: int) -> range:
        """Which of the `count` pictures a part holds."""
        return range(part * self.part_size, min(self.count, (part + 1) * self.part_size))

    @property
    def whole_sha256(self) -> str:
        return self.sha256

    @property
    def sha256(self) -> str:
        return records.sha256_of(self)


@dataclass(frozen=True)
class DecodeReceipt:
    """A part that is finished. files: by what they hold."""

    format: Literal["latent-vae-picture-receipt"]
    version: Literal[1]
    plan_sha256: str
    part: int
    count: int
    files: dict[str, FileRecord]


def read_decode_plan(folder: Folder) -> DecodePlan | None:
    data = folder.read_if_there(PLAN)
    return None if data is None else records.parse(DecodePlan, data, folder.place(PLAN))


def begin(folder: Folder, plan: DecodePlan) -> None:
    """Write the plan, or find it there already; LvaeError where parts of something else lie there."""
    old = read_decode_plan(folder)
    if old is None:
        folder.write(PLAN, records.dumps(plan))
    else:
        refuse_change(folder, old, plan)


def write_decoded_part(folder: Folder, plan: DecodePlan, part: int, files: dict[str, bytes]) -> DecodeReceipt:
    """Store what a part holds, by what it is ("pixels", "labels", ...), then the receipt, the first of which stays."""
    found = {}
    for what, data in sorted(files.items()):
        with folder.writer() as unfinished:
            unfinished.file.write(data)
            found[what] = unfinished.commit(_file_name(part, what, unfinished.file.sha256))
    receipt = DecodeReceipt("latent-vae-picture-receipt", 1, plan.sha256, part, len(plan.range_of(part)), files=found)
    if folder.create(_receipt_name(part), records.signed(receipt)):
        return receipt
    first = finished_decode(folder, plan, part)
    if first is None:
        raise LvaeError(folder.place(_receipt_name(part)), "is damaged", "Run the same command again to go on.")
    return first


def finished_decode(folder: Folder, plan: DecodePlan, part: int) -> DecodeReceipt | None:
    """The receipt of a part that need not be made again: of this plan, whole, its files of the right size."""
    data = folder.read_if_there(_receipt_name(part))
    if data is None:
        return None
    where = folder.place(_receipt_name(part))
    try:
        receipt = records.parse_signed(DecodeReceipt, data, where)
    except LvaeError:
        return None  # a damaged receipt is no receipt
    if (receipt.plan_sha256, receipt.part) != (plan.sha256, part):
        return None
    whole = all(
        record.path == _file_name(part, what, record.sha256) and folder.size(record.path) == record.bytes
        for what, record in receipt.files.items()
    )
    return receipt if whole else None


def settle_decode(folder: Folder, plan: DecodePlan, part: int) -> bool:
    """Whether a part is finished. A receipt that does not say so gives way. For the one command that writes here."""
    if finished_decode(folder, plan, part) is not None:
        return True
    if folder.size(_receipt_name(part)) is not None:
        folder.remove(_receipt_name(part))
    return False


def read_decoded_parts(folder: Folder, plan: DecodePlan, what: str) -> Iterator[bytes]:
    """The bytes of one kind of file of every part, in order.

    LvaeError where a part is not finished or its bytes are not those of the receipt, which is then taken back.
    """
    for part in range(plan.parts):
        receipt = finished_decode(folder, plan, part)
        data = None if receipt is None else folder.read_if_there(receipt.files[what].path)
        if receipt is None or data is None or hashlib.sha256(data).hexdigest() != receipt.files[what].sha256:
            folder.remove(_receipt_name(part))
            raise LvaeError(folder, f"part {part} is damaged", "Run the same command again, which makes it anew.")
        yield data


def _file_name(part: int, what: str, sha256: str) -> str:
    return f"{PARTS}/part-{part:06d}.{what}.{sha256[:8]}"


def _receipt_name(part: int) -> str:
    return f"{PARTS}/part-{part:06d}.json"
