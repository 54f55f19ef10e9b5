"""plan.json: the settings that decide a dataset's bytes, and where its images came from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import option_of, value_of
from lvae.manifests.parts.erased_rows import ErasedRows, read_erased_rows, write_erased_rows
from lvae.manifests.parts.rows import Listing
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.names import WeightsHash

PLAN = "plan.json"
Store = Literal["mode", "sample", "moments"]
EARLIER = "was written by an earlier version of this program, whose format is no longer read"
Precision = Literal["float32", "winograd", "bfloat16", "tf32"]


@dataclass(frozen=True)
class ImageSettings:
    """How a picture becomes the network's input. `resample` names the filters that the crop uses.

    min_size: of the shorter side, below which images are rejected.
    """

    size: int
    crop: str
    resample: str
    mirrored: bool
    input_range: tuple[float, float]
    min_size: int = records.later(0)

    @property
    def orientations(self) -> int:
        return 2 if self.mirrored else 1


UNKNOWN = "unknown"
IMPORTED = "latents"  # what the kind of a segment begins with whose latents another tool made


@dataclass(frozen=True)
class AutoencoderRecord:
    """Which network gave the latents. `architecture` is enough to build it; the weights' hash is its fingerprint.

    Of what was imported without its autoencoder the weights are "unknown", and perhaps the architecture, {}.
    """

    name: str
    architecture: dict[str, Any]
    weights_sha256: WeightsHash | None
    downsampling_factor: int
    latent_channels: int
    store: Store

    @property
    def pixels(self) -> bool:
        """Whether the latents are RGB itself, kept as bytes."""
        return self.weights_sha256 is None

    @property
    def weights_unknown(self) -> bool:
        return self.weights_sha256 == UNKNOWN

    @property
    def weights_file(self) -> str | None:
        """Where they lie; None for pixels, and where they are unknown."""
        return None if self.weights_sha256 in (None, UNKNOWN) else f"weights/{self.weights_sha256}.safetensors"


@dataclass(frozen=True)
class Encoding:
    """Everything beside the listing that decides the bytes of the raw parts."""

    image: ImageSettings
    autoencoder: AutoencoderRecord
    seed: int
    batch: int
    precision: Precision
    threads: int

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        side = self.image.size // self.autoencoder.downsampling_factor
        return self.autoencoder.latent_channels, side, side

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one entry of a raw part: with `moments`, mean then log-variance."""
        channels, height, width = self.latent_shape
        return channels * (2 if self.autoencoder.store == "moments" else 1), height, width

    @property
    def raw_dtype(self) -> str:
        return "uint8" if self.autoencoder.pixels else "float32"


@dataclass(frozen=True)
class Origin:
    """How to find the images of a segment again; it decides nothing beside the listing."""

    source: str
    limit: int | None
    labels_from: Literal["source", "file"]
    addresses: Literal["any", "public"] = "any"  # to which requests for images may go


@dataclass(frozen=True)
class Plan:
    """The settings of a dataset. `encoding` is None after `lvae scan`, until `lvae encode` fills it in.

    origins: one a segment of the listing. erased: an encoding of these rows stores nothing.
    """

    format: Literal["latent-vae-plan"]
    version: Literal[1]
    origins: tuple[Origin, ...]
    listing: Listing
    erased: ErasedRows
    encoding: Encoding | None

    @property
    def is_imported(self) -> bool:
        """Whether latents came from caches, and no image of those can be encoded here."""
        return any(segment.kind.startswith(f"{IMPORTED} ") for segment in self.listing.segments)

    @property
    def sha256(self) -> str:
        """Over the deciding settings, without the SOURCE: the same images elsewhere make the same dataset."""
        return self._hashes[-1]

    @property
    def whole_sha256(self) -> str:
        """Over all that it says: what workers compare with the plan that was submitted."""
        return records.sha256_of({"plan": self.sha256, "origins": self.origins, "erased": self.erased.sha256})

    @cached_property
    def _hashes(self) -> list[str]:
        """The plan's hash with its first segment alone, with two of them, and so on: each is hashed once."""
        digest, found = hashlib.sha256(records.dumps(self.encoding)), []
        for segment in self.listing.segments:
            digest.update(records.dumps(segment))
            found.append(digest.hexdigest())
        return found

    @cached_property
    def encoding_sha256(self) -> str:
        """What receipts repeat of it."""
        return records.sha256_of(self.encoding)

    def encoded(self) -> Encoding:
        """The encoding's settings, which are there as soon as a part is."""
        if self.encoding is None:
            raise LvaeError("", "this dataset has only been scanned", "Run 'lvae encode' on it.")
        return self.encoding

    def before_append(self, plan_sha256: str) -> "Plan | None":
        """The plan that has this hash: this one, or what it was before segments were appended. None where neither."""
        if plan_sha256 not in self._hashes:
            return None
        segments = self._hashes.index(plan_sha256) + 1
        listing = Listing(self.listing.segments[:segments])
        return replace(
            self, origins=self.origins[:segments], listing=listing, erased=self.erased.before(listing.images)
        )

    def erased_rows(self, part: int) -> dict[int, str]:
        """The rows of a part whose latents were removed for good, each with its reason."""
        place = self.listing.place(part)
        return self.erased.within(place.first_row, place.first_row + place.rows)


@dataclass(frozen=True)
class PlanFile:
    """A plan as it lies in its file, which names another one for the erased rows."""

    format: Literal["latent-vae-plan"]
    version: Literal[1]
    origins: tuple[Origin, ...]
    listing: Listing
    erased: FileRecord | None
    encoding: Encoding | None


def erasing(plan: Plan, rows: Iterable[int], reason: str) -> Plan:
    """The plan with more rows erased; those that are erased already keep their reason."""
    return replace(plan, erased=plan.erased.adding(rows, reason))


def read_plan(folder: Folder) -> Plan | None:
    """The plan of a folder, None where it has none; LvaeError where it is damaged."""
    found = read_plan_file(folder)
    if found is None:
        return None
    erased = read_erased_rows(folder, found.erased)
    return Plan(found.format, found.version, found.origins, found.listing, erased, found.encoding)


def read_plan_file(folder: Folder) -> PlanFile | None:
    data = folder.read_if_there(PLAN)
    if data is None:
        return None
    where = folder.place(PLAN)
    refuse_earlier_plan(records.loads(data, where), where)
    advice = "Remove it and run the first 'lvae encode' command again."
    return records.parse_signed(PlanFile, data, where, advice)


def refuse_earlier_plan(content: Any, where: str) -> None:
    """LvaeError where the content of a plan is of the format before the first release."""
    if isinstance(content, dict) and isinstance(content.get("erased"), list):
        raise LvaeError(where, EARLIER, "Make the dataset anew with 'lvae encode', in another folder.")


def read_plan_if_whole(folder: Folder) -> Plan | None:
    """The plan, None also where it is damaged: for advice that should not fail."""
    try:
        return read_plan(folder)
    except records.FormError:
        raise
    except LvaeError:
        return None


def write_plan(folder: Folder, plan: Plan) -> None:
    erased = write_erased_rows(folder, plan.erased)
    content = PlanFile(plan.format, plan.version, plan.origins, plan.listing, erased, plan.encoding)
    folder.write(PLAN, records.signed(content))


def first_difference(old: object, new: object, prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first setting in which two records differ, as (dotted name, old value, new value)."""
    a, b = records.plain(old), records.plain(new)
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            found = first_difference(a.get(name), b.get(name), f"{prefix}.{name}" if prefix else name)
            if found:
                return found
        return None
    return None if a == b else (prefix, a, b)


def refuse_change(folder: Folder, old: object, new: object) -> None:
    """LvaeError naming the first setting that differs from what the dataset was made with."""
    difference = first_difference(old, new)
    if difference:
        name, before, now = difference
        problem = f"was made with {option_of(name)} {value_of(before)}, but this command says {value_of(now)}"
        if isinstance(before, bool) and isinstance(now, bool):
            made, asked = ("with", "without") if before else ("without", "with")
            problem = f"was made {made} {option_of(name)}, and this command is {asked} it"
        raise LvaeError(
            folder,
            problem,
            "Give the same settings, or name another folder.",
        )
