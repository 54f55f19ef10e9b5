"""Shards as tars for WebDataset, whose latents can be mapped.

All samples of a split have the same size (tar_template.py), so the latents of a tar are one strided array in the file.
A tar laid out as `write_shard` does it is mapped. Any other tar of the same members (written by WebDataset's own
TarWriter, say) is looked through member by member first.
"""

import json
import logging
import tarfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.float16 import cast
from lvae.manifests.shards.layout import Facts, ShardContent, SplitLayout, finish_shard_file, shard_folder
from lvae.manifests.shards.mapped_array import Indices, ShardedArray, map_file, positions
from lvae.manifests.shards.missing import explain_missing
from lvae.manifests.shards.tar_rows import TarRows, _loose, _strided
from lvae.manifests.shards.tar_template import (
    KEY_DIGITS,
    Member,
    file_bytes,
    frame_of,
    json_text,
    label_text,
    parse_labels,
)
from lvae.manifests.storage.folder import FileRecord, Folder

logger = logging.getLogger(__name__)

BLOCK_ROWS = 256  # samples put together at a time
REPAIR = "Run 'lvae encode' again to rebuild it."
STRANGE_JSON = (ValueError, KeyError, TypeError, OverflowError, RecursionError)  # what reading hostile facts raises


class WebDatasetCodec:
    name = "webdataset"

    def json_width(self, rows: int, keys: Iterable[str]) -> int:
        longest_key = max((len(json.dumps(key)) for key in keys), default=len('""'))
        return len(json_text(max(0, rows - 1), "", False)) - len('""') + longest_key

    def prepare(self, folder: Folder, view: str, layout: SplitLayout) -> list[FileRecord]:
        return []

    def write_shard(
        self, folder: Folder, view: str, layout: SplitLayout, number: int, content: ShardContent
    ) -> list[FileRecord]:
        content.expect(layout, number)
        first, count = layout.rows_of(number)
        with folder.writer() as unfinished:
            for start in range(0, count, BLOCK_ROWS):
                unfinished.file.write(_samples(layout, first, content, start, min(start + BLOCK_ROWS, count)))
            unfinished.file.write(bytes(file_bytes(layout, count) - count * frame_of(layout).stride))
            return [finish_shard_file(folder, unfinished, file_name(view, layout, number))]

    def shard_files(self, view: str, layout: SplitLayout, number: int) -> list[str]:
        return [file_name(view, layout, number)]

    def open_split(self, folder: Folder, view: str, layout: SplitLayout) -> "TarReader":
        reader = TarReader(folder, view, layout)
        for fault in reader.faults(range(layout.shards)):
            raise LvaeError("", fault)
        return reader

    def reader(self, folder: Folder, view: str, layout: SplitLayout) -> "TarReader":
        return TarReader(folder, view, layout)

    def check(self, folder: Folder, view: str, layout: SplitLayout, shards: range | None = None) -> Iterator[str]:
        yield from TarReader(folder, view, layout).faults(shards or range(layout.shards), every_header=True)


def _samples(layout: SplitLayout, first: int, content: ShardContent, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows `start` to `stop` of a shard that begins at position `first`: (stop - start, stride) bytes of tar."""
    frame = frame_of(layout)
    samples = frame.fill(first + start, stop - start)
    labels = content.labels[start:stop].tolist()
    rows, mirrored = content.rows[start:stop].tolist(), content.mirrored[start:stop].tolist()
    facts = zip(rows, content.keys[start:stop], mirrored, strict=True)
    for member in frame.members:
        if member.suffix == ".cls":
            data = _texts((label_text(label, member.size) for label in labels), member)
        elif member.suffix == ".json":
            data = _texts((json_text(*fact).ljust(member.size) for fact in facts), member)
        else:
            array = content.latents if member.suffix == ".latent.npy" else content.log_variances
            assert array is not None
            data = np.ascontiguousarray(array[start:stop]).reshape(stop - start, -1).view(np.uint8)
        samples[:, member.start : member.start + member.size] = data
    return samples


def _texts(texts: Iterable[bytes], member: Member) -> NDArray[np.uint8]:
    """Texts of one width as bytes: (n, width)."""
    texts = list(texts)
    for text in texts:
        if len(text) != member.size:
            raise ValueError(f"{member.suffix} members have {member.size} bytes, and {text!r} has {len(text)}")
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), member.size)


def file_name(view: str, layout: SplitLayout, number: int) -> str:
    return f"{shard_folder(view, layout.split, number)}/{layout.split}-{number:06d}.tar"


class TarReader:
    """A split in tars."""

    def __init__(self, folder: Folder, view: str, layout: SplitLayout):
        self._place = (folder, view, layout)
        self._tars: dict[int, TarRows] = {}
        self.latents = self._sharded("latents", layout.shape, layout.dtype)
        self.log_variances = (
            self._sharded("log_variances", layout.shape, layout.dtype) if layout.log_variances else None
        )
        self._labels = self._sharded("labels", (layout.label_width,), "uint8") if layout.labelled else None

    def __len__(self) -> int:
        return len(self.latents)

    def __reduce__(self) -> tuple[Any, ...]:
        return TarReader, self._place

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        return self._parse(None if self._labels is None else np.asarray(self._labels), len(self))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        return self._facts[0]

    @cached_property
    def mirrored(self) -> NDArray[np.bool_]:
        return self._facts[1]

    def read(self, indices: Indices, dtype: DTypeLike | None = None) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Latents (n, C, h, w), as stored or cast, and labels (n,)."""
        rows = positions(indices, len(self))
        latents = self.latents.gather(rows)
        labels = self._parse(None if self._labels is None else self._labels.gather(rows), len(rows))
        return cast(latents, dtype), labels

    def facts(self, shard: int) -> Facts:
        count = self._place[2].rows_of(shard)[1]
        labels = self._parse(None if self._labels is None else self._labels.shard(shard), count)
        return Facts(labels, *self._facts_of(shard))

    def close(self) -> None:
        for array in (self.latents, self.log_variances, self._labels):
            if array is not None:
                array.close()
        self._tars.clear()

    def faults(self, shards: range, every_header: bool = False) -> Iterator[str]:
        """Tars that are missing or of a wrong size; with `every_header`, also headers that are not as written."""
        folder, view, layout = self._place
        for number in shards:
            path = file_name(view, layout, number)
            size = folder.size(path)
            if size is None:
                yield f"{folder}/{path}: this shard is missing. {REPAIR}"
            elif every_header or size != file_bytes(layout, layout.rows_of(number)[1]):
                try:
                    self._tar(number)
                except LvaeError as error:
                    yield str(error)
                    continue
                if every_header:
                    yield from self._header_faults(number)

    def _header_faults(self, number: int) -> Iterator[str]:
        folder, view, layout = self._place
        path, (first, count), frame = file_name(view, layout, number), layout.rows_of(number), frame_of(layout)
        data = np.frombuffer(map_file(folder.local(path)), np.uint8)
        if len(data) != file_bytes(layout, count) or data[count * frame.stride :].any():
            yield f"{folder}/{path}: another program has written it. {REPAIR}"
            return
        samples = data[: count * frame.stride].reshape(count, frame.stride)
        for start in range(0, count, BLOCK_ROWS):
            block = frame.blank(samples[start : start + BLOCK_ROWS])
            wrong = (block != frame.fill(first + start, len(block))).any(axis=1)
            if wrong.any():
                position = first + start + int(wrong.argmax())
                yield f"{folder}/{path}: a header of sample {position:0{KEY_DIGITS}d} is damaged. {REPAIR}"
                return

    def _sharded(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> ShardedArray:
        layout = self._place[2]
        return ShardedArray(
            layout.count, shape, dtype, layout.rows_per_shard, lambda number: getattr(self._tar(number), name)
        )

    def _parse(self, texts: NDArray[np.uint8] | None, count: int) -> NDArray[np.int32]:
        if texts is None:
            return np.full(count, -1, np.int32)
        folder, view, layout = self._place
        try:
            return parse_labels(texts)
        except ValueError as error:
            path = f"{folder}/shards/{view}/{layout.split}-*.tar"
            raise LvaeError(
                path, f"a .cls member is damaged ({error})", "Run 'lvae verify --deep' to find it."
            ) from error

    @cached_property
    def _facts(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        rows, mirrored = np.empty(len(self), np.int64), np.empty(len(self), np.bool_)
        for number in range(self._place[2].shards):
            first, count = self._place[2].rows_of(number)
            here = slice(first, first + count)
            rows[here], mirrored[here] = self._facts_of(number)
        return rows, mirrored

    def _facts_of(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        folder, view, layout = self._place
        first, count = layout.rows_of(number)
        rows, mirrored = np.empty(count, np.int64), np.empty(count, np.bool_)
        facts = self._tar(number).facts
        for row in range(count):
            try:
                fact = json.loads(bytes(facts.row(row)))
                rows[row], mirrored[row] = int(fact["row"]), bool(fact["mirrored"])
            except STRANGE_JSON as error:
                where = f"{folder}/{file_name(view, layout, number)}: the .json of sample {first + row:0{KEY_DIGITS}d}"
                raise LvaeError("", f"{where} is damaged ({error})", str(REPAIR)) from error
        return rows, mirrored

    def _tar(self, number: int) -> TarRows:
        """Opened when first asked for; mapped if its size and its first and last headers are as we write them."""
        if number not in self._tars:
            self._tars[number] = self._open(number)
        return self._tars[number]

    def _open(self, number: int) -> TarRows:
        folder, view, layout = self._place
        path, (first, count), frame = file_name(view, layout, number), layout.rows_of(number), frame_of(layout)
        if not folder.size(path):
            raise explain_missing(folder, path, "this shard is missing or empty", REPAIR)
        shard = map_file(folder.local(path))

        def as_written(row: int) -> bool:
            sample = np.frombuffer(shard[row * frame.stride : (row + 1) * frame.stride], np.uint8)[None]
            return sample.size == frame.stride and np.array_equal(frame.blank(sample), frame.fill(first + row, 1))

        if len(shard) == file_bytes(layout, count) and as_written(0) and as_written(count - 1):
            return _strided(layout, shard, count)
        if len(shard) < file_bytes(layout, count) and as_written(0):
            raise LvaeError(f"{folder}/{path}", f"has {len(shard)} bytes and is cut short", str(REPAIR))
        logger.warning("%s/%s is not laid out as we write it: looking through its members", folder, path)
        try:
            return _loose(layout, folder.local(path), shard, count)
        except (tarfile.TarError, *STRANGE_JSON) as error:
            raise LvaeError(f"{folder}/{path}", f"does not hold its {count} samples ({error})", str(REPAIR)) from error
