"""Every autoencoder that is known here, in a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lvae.encode.catalogue.architectures import KNOWN, PixelsSpec
from lvae.encode.catalogue.published import (
    DEFAULT,
    PUBLISHED,
    Published,
    architecture_of,
    find_in_hub_cache,
    find_weights,
)


@dataclass(frozen=True)
class Entry:
    """One line. parameters: of encoder and decoder. here: "shipped", "fetched", "in the hub's cache" or "no"."""

    name: str
    kind: str
    factor: int
    channels: int
    parameters: int
    rfid: float | None
    psnr_db: float | None
    measured_on: str
    licence: str
    source: str
    here: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_autoencoders() -> list[Entry]:
    """The shipped one, the published ones, then pixels."""
    pixels = [name for name, spec in KNOWN.items() if isinstance(spec, PixelsSpec)]
    return [_make_entry(name) for name in (DEFAULT, *PUBLISHED, *pixels)]


def _make_entry(name: str) -> Entry:
    import torch

    from lvae.encode.autoencoder import build

    with torch.device("meta"):
        network = build(name)
    published = PUBLISHED.get(name)
    pixels = network.architecture["kind"] == "pixels"
    return Entry(
        name=name,
        kind=network.architecture["kind"],
        factor=network.downsampling_factor,
        channels=network.latent_channels,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        rfid=published.rfid if published else None,
        psnr_db=published.psnr_db if published else None,
        measured_on=published.measured_on if published else "",
        licence=published.licence if published else ("" if pixels else "Apache-2.0"),
        source=_describe_source(name, published, pixels),
        here=_describe_presence(name, published, pixels),
    )


def _describe_source(name: str, published: Published | None, pixels: bool) -> str:
    if published is not None:
        return published.urls[0]
    return "needs no weights" if pixels else "in this package"


def _describe_presence(name: str, published: Published | None, pixels: bool) -> str:
    if pixels:
        return "needs none"
    if find_weights(name) is not None:
        return "shipped" if name == DEFAULT else "fetched"
    return "no" if published is None or find_in_hub_cache(published) is None else "in the hub's cache"


def format_table(found: Sequence[Entry]) -> str:
    """Aligned columns, and below them what they mean and where the weights come from."""
    head = ("name", "kind", "f", "channels", "parameters", "rFID", "PSNR", "on", "here")
    lines = [head, *(_format_cells(entry) for entry in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    places = [
        f"{entry.name}: {entry.source} ({entry.licence or 'no licence needed'})"
        for entry in found
        if entry.kind != "pixels"
    ]
    note = "rFID and PSNR as their authors report, at 256 px; the shipped one's are in encode/pretrained/README.md."
    return "\n".join([*rows, "", note, *places])


def _format_cells(entry: Entry) -> tuple[str, ...]:
    architecture = architecture_of(entry.name)
    kind = entry.kind if architecture == entry.name else f"{entry.kind} ({architecture})"
    rfid = "" if entry.rfid is None else f"{entry.rfid:.2f}"
    psnr = "" if entry.psnr_db is None else f"{entry.psnr_db:.1f}"
    count = f"{entry.parameters / 1e6:.1f} M" if entry.parameters else "-"
    return (entry.name, kind, str(entry.factor), str(entry.channels), count, rfid, psnr, entry.measured_on, entry.here)
