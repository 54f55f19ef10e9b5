"""How a sample lies in a tar shard: which bytes are always the same, and where its contents go.

A sample is KEY.latent.npy, (KEY.logvar.npy,) (KEY.cls,) KEY.json, where KEY is its 12-digit position in the split. All
samples of a split have the same size, and differ only in their contents, the digits of their names and the checksums of
their headers (POSIX ustar: pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html).
"""

import io
import json
import tarfile
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.shards.layout import SplitLayout

KEY_DIGITS = 12
CHECKSUM = slice(148, 156)  # of a tar header: six octal digits, NUL, space


@dataclass(frozen=True)
class Member:
    """A file of every sample."""

    suffix: str  # with the dot
    header: int  # offset of its tar header in the sample
    start: int  # offset of the varying content, past an .npy header
    size: int  # bytes of the varying content


@dataclass(frozen=True)
class Frame:
    """What the samples of a split have in common."""

    members: tuple[Member, ...]
    template: NDArray[np.uint8]  # (stride,): sample 0, contents blank

    @property
    def stride(self) -> int:
        return len(self.template)

    def member(self, suffix: str) -> Member | None:
        return next((member for member in self.members if member.suffix == suffix), None)

    def fill(self, first: int, count: int) -> NDArray[np.uint8]:
        """Samples at these positions, contents blank: (count, stride)."""
        samples = np.tile(self.template, (count, 1))
        numbers = np.arange(first, first + count)[:, None]
        digits = numbers // 10 ** np.arange(KEY_DIGITS - 1, -1, -1) % 10
        for member in self.members:
            header = samples[:, member.header : member.header + tarfile.BLOCKSIZE]
            header[:, :KEY_DIGITS] += digits.astype(np.uint8)
            total = int(bytes(self.template[member.header :][CHECKSUM][:6]), 8) + digits.sum(axis=1, keepdims=True)
            header[:, CHECKSUM][:, :6] = ord("0") + (total >> np.arange(15, -1, -3)) % 8
        return samples

    def blank(self, samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy without its contents: what `fill` must give."""
        samples = samples.copy()
        for member in self.members:
            samples[:, member.start : member.start + member.size] = 0
        return samples


@lru_cache(maxsize=16)
def frame_of(layout: SplitLayout) -> Frame:
    npy = npy_header(layout)
    arrays = [".latent.npy", *([".logvar.npy"] if layout.log_variances else [])]
    contents = [(suffix, npy, layout.latent_bytes) for suffix in arrays]
    contents += [(".cls", b"", layout.label_width)] if layout.labelled else []
    contents += [(".json", b"", layout.json_width)]
    members, pieces, at = [], [], 0
    for suffix, lead, size in contents:
        info = tarfile.TarInfo("0" * KEY_DIGITS + suffix)  # owner 0, time 0, mode 0644
        info.size = len(lead) + size
        piece = info.tobuf(tarfile.USTAR_FORMAT) + lead + bytes(size)
        piece += bytes(-len(piece) % tarfile.BLOCKSIZE)
        members.append(Member(suffix, at, at + tarfile.BLOCKSIZE + len(lead), size))
        pieces.append(piece)
        at += len(piece)
    return Frame(tuple(members), np.frombuffer(b"".join(pieces), np.uint8))


def file_bytes(layout: SplitLayout, count: int) -> int:
    """The samples, two blocks of zeros, and zeros up to a whole tar record."""
    return -(-(count * frame_of(layout).stride + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def npy_header(layout: SplitLayout) -> bytes:
    file = io.BytesIO()
    description = {"descr": np.dtype(layout.dtype).str, "fortran_order": False, "shape": layout.shape}
    np.lib.format.write_array_header_1_0(file, description)
    return file.getvalue()


def label_text(label: int, width: int) -> bytes:
    return f"{label:0{width}d}".encode()


def json_text(row: int, key: str, mirrored: bool) -> bytes:
    return json.dumps({"row": row, "key": key, "mirrored": mirrored}).encode()


def parse_labels(texts: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Decimal numbers of one width, such as b"0012" or b"-001": (n, width) bytes -> (n,)."""
    negative = texts[:, 0] == ord("-")
    digits = texts.astype(np.int64) - ord("0")
    digits[negative, 0] = 0
    if ((digits < 0) | (digits > 9)).any():
        raise ValueError("not a number")
    values: NDArray[np.int64] = digits @ 10 ** np.arange(texts.shape[1] - 1, -1, -1)
    values[negative] *= -1
    return values.astype(np.int32)
