"""Latents written as other trainers read them: one class a layout."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.parts.receipts import array_header
from lvae.manifests.parts.rows import UNLABELLED
from lvae.pipeline.exchange.pt_file import write_pt
from lvae.pipeline.exchange.safetensors_file import write_safetensors
from lvae.pipeline.exchange.stored_zip import StoredZip

FILE_ROWS = 2048  # of a file of safetensors; LightningDiT's script takes some 10,000, its loader any number
RANK_FILES = 1000  # so that names of three digits sort as numbers do


@dataclass(frozen=True)
class Content:
    """What is to be written: so many images of entries (C', h, w), and how they are to be stored.

    mean, std: of what is written, a channel.
    """

    count: int
    orientations: int
    shape: tuple[int, int, int]
    moments: bool
    dtype: np.dtype[np.floating]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def name(self) -> str:
        return "moments" if self.moments else "latents"


class Writer(Protocol):
    """A context that writes into an empty folder (edm2: also into one file)."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, latents: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
        """More images: (n, orientations, C', h, w) in the dtype to be stored, and (n,)."""
        ...

    def add_table(self, name: str, pieces: Iterable[bytes]) -> None:
        """A file beside the latents."""
        ...

    def finish(self) -> None: ...


def _write_table(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("xb") as file:
        file.writelines(pieces)


class Edm2Writer:
    """NNNNN/img-mean-std-NNNNNNNN.npy and dataset.json, in a folder or a zip; mirrors are images of their own."""

    def __init__(self, out: Path, content: Content):
        self._out, self._count = out, 0
        self._zip = StoredZip(out) if out.suffix == ".zip" else None
        self._labels: list[NDArray[np.int32]] = []
        self._orientations, self._made = content.orientations, set[str]()
        self._header = array_header(content.shape, content.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.__exit__()

    def add(self, latents: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
        for entry in latents.reshape(-1, *latents.shape[2:]):
            self._write(_edm2_name(self._count), self._header + entry.tobytes())
            self._count += 1
        self._labels.append(np.repeat(labels, self._orientations))

    def add_table(self, name: str, pieces: Iterable[bytes]) -> None:
        if self._zip is not None:
            self._zip.add_pieces(name, pieces)
        else:
            self._out.mkdir(exist_ok=True)
            _write_table(self._out / name, pieces)

    def finish(self) -> None:
        self.add_table("dataset.json", self._label_table())
        if self._zip is not None:
            self._zip.finish()

    def _label_table(self) -> Iterator[bytes]:
        if any((labels == UNLABELLED).any() for labels in self._labels):
            yield b'{"labels": null}'
            return
        number, before = 0, '{"labels": ['
        for labels in self._labels:
            for label in labels.tolist():
                yield f'{before}["{_edm2_name(number)}", {label}]'.encode()
                number, before = number + 1, ", "
        yield b"]}" if number else b'{"labels": []}'

    def _write(self, name: str, data: bytes) -> None:
        if self._zip is not None:
            self._zip.add(name, data)
            return
        folder = name.rpartition("/")[0]
        if folder not in self._made:
            (self._out / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        (self._out / name).write_bytes(data)


def _edm2_name(number: int) -> str:
    digits = f"{number:08d}"
    return f"{digits[:5]}/img-mean-std-{digits}.npy"


class DitWriter:
    """imagenet256_features/N.npy (1, C, h, w) and imagenet256_labels/N.npy (1,), the names that train.py looks for."""

    def __init__(self, out: Path, content: Content):
        self._out = out
        self._features, self._labels = out / "imagenet256_features", out / "imagenet256_labels"
        for folder in (self._features, self._labels):
            folder.mkdir(parents=True)
        self._header = array_header((1, *content.shape), content.dtype)
        self._label_header = array_header((1,), np.dtype(np.int64))
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def add(self, latents: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
        for both, label in zip(latents, labels.astype(np.int64), strict=True):
            for entry in both:
                (self._features / f"{self._count}.npy").write_bytes(self._header + entry.tobytes())
                (self._labels / f"{self._count}.npy").write_bytes(self._label_header + label.tobytes())
                self._count += 1

    def add_table(self, name: str, pieces: Iterable[bytes]) -> None:
        _write_table(self._out / name, pieces)

    def finish(self) -> None: ...


class SafetensorsWriter:
    """Files of some rows: latents (or moments), ..._flip, labels. As LightningDiT's loader reads them, or plainly."""

    def __init__(self, out: Path, content: Content, lightning: bool):
        self._out, self._content, self._lightning = out, content, lightning
        out.mkdir(parents=True, exist_ok=True)
        self._files = 0
        rows = min(FILE_ROWS, content.count)
        self._latents = np.empty((content.orientations, rows, *content.shape), content.dtype)
        self._labels = np.empty(rows, np.int64)
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def add(self, latents: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
        while len(latents):
            room = len(self._labels) - self._filled
            some = slice(self._filled, self._filled + min(room, len(latents)))
            self._latents[:, some] = np.moveaxis(latents[:room], 1, 0)
            self._labels[some] = labels[:room]
            self._filled = some.stop
            latents, labels = latents[room:], labels[room:]
            if self._filled == len(self._labels):
                self._flush()

    def _flush(self) -> None:
        content, stored = self._content, self._latents[:, : self._filled]
        arrays: dict[str, NDArray[np.generic]] = {content.name: stored[0], "labels": self._labels[: self._filled]}
        if content.orientations == 2:
            arrays[f"{content.name}_flip"] = stored[1]
        elif self._lightning:
            arrays["latents_flip"] = stored[0]  # the loader takes either, by the toss of a coin
        metadata = {"total_size": str(self._filled), "dtype": f"torch.{content.dtype.name}", "device": "cpu"}
        write_safetensors(self._out / self._name(), arrays, metadata)
        self._files += 1
        self._filled = 0

    def _name(self) -> str:
        if not self._lightning:
            return f"latents-{self._files:06d}.safetensors"
        rank, shard = divmod(self._files, RANK_FILES)
        return f"latents_rank{rank:02d}_shard{shard:03d}.safetensors"

    def add_table(self, name: str, pieces: Iterable[bytes]) -> None:
        _write_table(self._out / name, pieces)

    def finish(self) -> None:
        if self._filled:
            self._flush()
        if self._lightning:
            names = (("mean", self._content.mean), ("std", self._content.std))
            found = {name: np.array(values, np.float32).reshape(1, -1, 1, 1) for name, values in names}
            write_pt(self._out / "latents_stats.pt", found)


class NpyWriter:
    """latents.npy (or moments.npy), ..._flip.npy and labels.npy: whole arrays, written forwards."""

    def __init__(self, out: Path, content: Content):
        self._out = out
        out.mkdir(parents=True, exist_ok=True)
        names = [content.name, f"{content.name}_flip"][: content.orientations]
        self._files: Sequence[IO[bytes]] = [(out / f"{name}.npy").open("xb") for name in names]
        for file in self._files:
            file.write(array_header((content.count, *content.shape), content.dtype))
        self._labels = (out / "labels.npy").open("xb")
        self._labels.write(array_header((content.count,), np.dtype(np.int64)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files, self._labels):
            file.close()

    def add(self, latents: NDArray[np.floating], labels: NDArray[np.int32]) -> None:
        for orientation, file in enumerate(self._files):
            file.write(np.ascontiguousarray(latents[:, orientation]).data)
        self._labels.write(labels.astype(np.int64).data)

    def add_table(self, name: str, pieces: Iterable[bytes]) -> None:
        _write_table(self._out / name, pieces)

    def finish(self) -> None: ...
