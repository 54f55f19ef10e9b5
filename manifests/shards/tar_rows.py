"""The latents of a tar shard as rows: one strided array, or found member by member."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvae.manifests.shards.layout import SplitLayout
from lvae.manifests.shards.mapped_array import Rows
from lvae.manifests.shards.tar_headers import BoundedHeader
from lvae.manifests.shards.tar_template import frame_of, json_text, label_text


@dataclass(frozen=True)
class TarRows:
    """The rows of one tar."""

    latents: Rows
    log_variances: Rows | None
    labels: Rows | None  # the text of .cls: (label_width,) uint8
    facts: Rows  # the text of .json: (json_width,) uint8


def _strided(layout: SplitLayout, shard: memoryview, count: int) -> TarRows:
    frame = frame_of(layout)

    def rows(suffix: str, shape: tuple[int, ...], dtype: str) -> Rows | None:
        member = frame.member(suffix)
        if member is None:
            return None
        return Rows(shard, range(member.start, member.start + count * frame.stride, frame.stride), shape, dtype)

    latents, facts = rows(".latent.npy", layout.shape, layout.dtype), rows(".json", (layout.json_width,), "uint8")
    assert latents is not None and facts is not None
    return TarRows(
        latents,
        rows(".logvar.npy", layout.shape, layout.dtype),
        rows(".cls", (layout.label_width,), "uint8"),
        facts,
    )


def _loose(layout: SplitLayout, path: Path, shard: memoryview, count: int) -> TarRows:
    """The rows of a tar whose members have any order and size; latents are left where they lie."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}  # key -> suffix -> offset and size
    with tarfile.open(path, mode="r:", tarinfo=BoundedHeader) as tar:
        for member in tar:
            if member.isreg() and not member.issparse():
                key, _, suffix = member.name.rpartition("/")[2].partition(".")
                samples.setdefault(key, {})["." + suffix] = (member.offset_data, member.size)
    if len(samples) != count:
        raise ValueError(f"there are {len(samples)}")

    def data(place: tuple[int, int]) -> bytes:
        offset, size = place
        if offset + size > len(shard):
            raise ValueError("the last one is cut short")
        return bytes(shard[offset : offset + size])

    def arrays(suffix: str) -> Rows:
        places = [sample[suffix] for sample in samples.values()]
        offsets = [place[0] + _npy_lead(layout, data(place)) for place in places]
        return Rows(shard, offsets, layout.shape, layout.dtype)

    def texts(pieces: list[bytes], width: int) -> Rows:
        if any(len(piece) != width for piece in pieces):
            raise ValueError(f"a label or row number does not fit into {width} bytes")
        return Rows(b"".join(pieces), range(0, width * len(pieces), width), (width,), "uint8")

    facts, labels = [], []
    for sample in samples.values():
        fact = json.loads(data(sample[".json"]))
        facts.append(json_text(int(fact["row"]), "", bool(fact["mirrored"])).ljust(layout.json_width))
        if layout.labelled:
            labels.append(label_text(int(data(sample[".cls"])), layout.label_width))
    return TarRows(
        arrays(".latent.npy"),
        arrays(".logvar.npy") if layout.log_variances else None,
        texts(labels, layout.label_width) if layout.labelled else None,
        texts(facts, layout.json_width),
    )


def _npy_lead(layout: SplitLayout, data: bytes) -> int:
    """The length of the header of an .npy file, whose array must be one of the layout's latents."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if shape != layout.shape or dtype != np.dtype(layout.dtype) or fortran:
        raise ValueError(f"there is {dtype}{list(shape)} where {layout.dtype}{list(layout.shape)} belongs")
    if len(data) != file.tell() + layout.latent_bytes:
        raise ValueError("an array is cut short")
    return file.tell()
