"""WebDatasets of latents: in tars, KEY.npy (or KEY.NAME.npy) with KEY.cls or KEY.json beside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.left_out import LeftOut
from lvae.encode.files.locations import Seen
from lvae.encode.sources.label_values import ClassNumbers, Label, label_at, text_label
from lvae.encode.sources.labels import parse_json
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.reading.tar_members import Member, open_tar, read_members
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from lvae.pipeline.exchange.caches.cache import Moments, Shape, refuse_empty
from lvae.pipeline.exchange.caches.files import MAX_BYTES, refuse_leading_out
from lvae.pipeline.exchange.caches.npy_bytes import NpyEntries

MAX_LABEL_BYTES = 1 << 20


@dataclass
class Sample:
    """What one key has in a tar, as it is read forwards."""

    key: str
    arrays: dict[str, Member] = field(default_factory=dict)
    label: Label = None


class TarCache:
    """See Cache. Tars are read forwards once to list them, then in place."""

    layout = "webdataset"
    moments: Moments | None = None

    def __init__(self, location: str, tars: Sequence[Path], array: str | None):
        self.location, self._tars, self._array = location, tars, array
        self._containers = Containers(str(tars[0].parent))
        self.classes: tuple[str, ...] | None = None
        self.notes: list[str] = []
        self.seen = Seen()
        first = next(self._samples(), None)
        if first is None:
            refuse_empty(0, location)
            raise AssertionError
        tar, sample = first
        chosen = self._chosen(sample)
        self.orientations = len(chosen)
        where = f"{tar}: {chosen[0].name}"
        self._entries = NpyEntries(self._containers.read_at(tar.name, chosen[0].offset, _bounded(chosen[0])), where)
        self.shape: Shape = self._entries.shape

    def _samples(self) -> Iterator[tuple[Path, Sample]]:
        self.seen = Seen()
        for tar in self._tars:
            with open_tar(str(tar), tar.name, self.seen) as file, open(tar, "rb") as content:
                sample = Sample("")
                for member in read_members(str(tar), file, LeftOut({})):
                    refuse_leading_out(member.name, str(tar))
                    folder, slash, name = member.key.rpartition("/")
                    stem, _, kind = name.partition(".")
                    key = folder + slash + stem
                    if key != sample.key:
                        if sample.arrays:
                            yield tar, sample
                        sample = Sample(key)
                    if kind == "npy" or kind.endswith(".npy"):
                        sample.arrays[kind.removesuffix("npy").removesuffix(".")] = member
                    elif kind in ("cls", "json") and member.length <= MAX_LABEL_BYTES:
                        sample.label = _label(content, member, kind, f"{tar}: {member.name}", sample.label)
                if sample.arrays:
                    yield tar, sample

    def _chosen(self, sample: Sample) -> list[Member]:
        """The members that hold the latent and that of the mirror."""
        plain = [name for name in sample.arrays if not name.endswith("flip")]
        wanted = self._array
        if wanted is None:
            if len(plain) != 1:
                shown = ", ".join(f"{name}.npy" if name else "npy" for name in sample.arrays)
                raise LvaeError(self.location, f"a sample has {shown:.200}: which is the latent?", "Say --array NAME.")
            wanted = plain[0]
        if wanted not in sample.arrays:
            raise LvaeError(self.location, f"{sample.key} has no {wanted}.npy", "See --array.")
        flip = sample.arrays.get(f"{wanted}_flip" if wanted else "flip")
        return [sample.arrays[wanted], *([flip] if flip is not None else [])]

    def rows(self) -> Iterator[ImageRow]:
        """Twice over the tars: class names are numbered before rows are."""
        numbers = ClassNumbers()
        for tar, sample in self._samples():
            numbers.add(sample.label, f"{tar}: {sample.key}")
        self.classes = numbers.settle()
        for tar, sample in self._samples():
            members = self._chosen(sample)
            if len(members) != self.orientations:
                raise LvaeError(f"{tar}: {sample.key}", "has a mirror's latent, or none, unlike the first sample")
            places = " ".join(f"{member.offset}+{_bounded(member)}" for member in members[1:])
            first = members[0]
            key = f"{tar.name}:{sample.key}"
            yield ImageRow(key, tar.name, first.offset, _bounded(first), places, numbers.number(sample.label))

    def read(self, rows: Sequence[ImageRow], out: NDArray[np.float32]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for position, row in enumerate(rows):
            places = [(row.offset, row.length), *(_place(text) for text in row.member.split())]
            for orientation, (offset, length) in enumerate(places):
                data = self._containers.read_at(row.container, offset, length)
                if (reason := self._entries.fill(data, out[position, orientation])) is not None:
                    reasons[position] = reason
        return reasons


def _place(text: str) -> tuple[int, int]:
    offset, _, length = text.partition("+")
    return int(offset), int(length)


def _bounded(member: Member) -> int:
    if member.length > MAX_BYTES:
        raise LvaeError(member.name, f"of more than {MAX_BYTES >> 20} MiB")
    return member.length


def _label(file: IO[bytes], member: Member, kind: str, where: str, before: Label) -> Label:
    file.seek(member.offset)
    data = file.read(member.length)
    if kind == "cls":
        try:
            return text_label(data.decode())
        except UnicodeDecodeError:
            raise LvaeError(where, "is not UTF-8 text") from None
    found = parse_json(data, where, nan=True)
    value = found.get("label") if isinstance(found, dict) else None
    return before if value is None else label_at(value, where)
