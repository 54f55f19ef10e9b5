"""plan.json: the settings that decide a dataset's bytes, and where its images came from."""

from dataclasses import dataclass
from typing import Any, Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.rows import Listing
from lvae.manifests.storage import Folder

PLAN = "plan.json"
Store = Literal["mode", "sample", "moments"]
Precision = Literal["float32", "winograd", "bfloat16", "tf32"]


@dataclass(frozen=True)
class ImageSettings:
    """How a picture becomes the network's input. `resample` names the filters that the crop uses."""

    size: int
    crop: str
    resample: str
    mirrored: bool
    input_range: tuple[float, float]

    @property
    def orientations(self) -> int:
        return 2 if self.mirrored else 1


@dataclass(frozen=True)
class AutoencoderRecord:
    """Which network gave the latents. `architecture` is enough to build it; the weights' hash is its fingerprint."""

    name: str
    architecture: dict[str, Any]
    weights_sha256: str | None
    downsampling_factor: int
    latent_channels: int
    store: Store

    @property
    def pixels(self) -> bool:
        """Whether the latents are RGB itself, kept as bytes."""
        return self.weights_sha256 is None

    @property
    def weights_file(self) -> str | None:
        return None if self.weights_sha256 is None else f"weights/{self.weights_sha256}.safetensors"


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
class Plan:
    """The settings of a dataset. `encoding` is None after `lvae scan`, until `lvae encode` fills it in.

    source, limit, labels_from: how to find the images again; they decide nothing beside the listing.
    """

    format: Literal["latent-vae-plan"]
    version: Literal[1]
    source: str
    limit: int | None
    labels_from: Literal["source", "file"]
    listing: Listing
    encoding: Encoding | None

    @property
    def sha256(self) -> str:
        """Over the deciding settings, without the SOURCE: the same images elsewhere make the same dataset."""
        return records.sha256_of({"listing": self.listing, "encoding": self.encoding})

    def encoded(self) -> Encoding:
        """The encoding's settings, which are there as soon as a part is."""
        if self.encoding is None:
            raise LvaeError("this dataset has only been scanned. Run 'lvae encode' on it.")
        return self.encoding


def read_plan(folder: Folder) -> Plan | None:
    """The plan of a folder, None where it has none; LvaeError where it is damaged."""
    data = folder.read_if_there(PLAN)
    if data is None:
        return None
    where = str(folder.local(PLAN))
    content = records.loads(data, where)
    if not isinstance(content, dict):
        raise LvaeError(f"{where}: is not a plan.")
    claimed = content.pop("self_sha256", None)
    plan = records.from_plain(Plan, content, where)
    if claimed != records.sha256_of(plan):
        raise LvaeError(
            f"{where}: has been changed or damaged. Remove it and run the first 'lvae encode' command again."
        )
    return plan


def read_plan_if_whole(folder: Folder) -> Plan | None:
    """The plan, None also where it is damaged: for advice that should not fail."""
    try:
        return read_plan(folder)
    except LvaeError:
        return None


def write_plan(folder: Folder, plan: Plan) -> None:
    folder.write(PLAN, records.dumps({**records.plain(plan), "self_sha256": records.sha256_of(plan)}))


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
        raise LvaeError(
            f"{folder}: was made with {name} {_short(before)}, but this command says {_short(now)}. "
            "Give the same settings, or name another folder."
        )


def _short(value: object) -> str:
    return str(value) if len(str(value)) <= 80 else f"{str(value)[:77]}..."
