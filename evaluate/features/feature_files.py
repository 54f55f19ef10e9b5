"""Features of pictures in a file: computed once, scored as often as one likes, in any metric.

FEATURES.npz: `pooled` (n, d) float32 and, of the Inception network, `spatial` (n, 2023) and `logits` (n, 1008); `mode`,
`weights_sha256`, `what` and `size` say what they are of. Of labelled pictures also `labels` int32 (n,), -1 where one
has none, and `classes`, their names, where they have names. Files without them are read likewise.
"""

import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.features.compute import compute_features
from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures, named_network
from lvae.evaluate.pictures.labels import PictureLabels, labels_if_any
from lvae.evaluate.pictures.npz import StreamedArray, stream_array, write_streamed
from lvae.evaluate.pictures.streams import ImageStack
from lvae.manifests.errors import LvaeError
from lvae.manifests.statistics import require_finite

ARRAYS = ("pooled", "spatial", "logits")
SAID = ("mode", "weights_sha256", "what", "size")
LABELS = ("labels", "classes")
Progress = Callable[[int], None]
Features = NDArray[np.float32]


@dataclass(frozen=True)
class FeaturesRecord:
    """what: "images", "samples" or "reconstructions", of this size (H, W). mode, weights_sha256: of the network."""

    what: str
    size: tuple[int, int]
    mode: str
    weights_sha256: str


@dataclass(frozen=True)
class StoredFeatures:
    """Features out of a file, where pictures would stand otherwise."""

    where: str
    record: FeaturesRecord
    features: PictureFeatures

    @property
    def what(self) -> str:
        return self.record.what

    @property
    def size(self) -> tuple[int, int]:
        return self.record.size

    @property
    def count(self) -> int:
        return len(self.features.pooled)

    def __len__(self) -> int:
        return self.count

    def rows(self, chosen: NDArray[np.int64]) -> "StoredFeatures":
        """Those of some pictures."""
        return replace(self, features=self.features.rows(chosen))

    @property
    def network(self) -> FeatureNetwork:
        """The network that they are of, in name: it computes nothing."""
        return named_network(self.record.mode, self.record.weights_sha256)


def write_features(
    out: Path,
    arrays: Mapping[str, Callable[[], Iterable[Features]]],
    count: int,
    record: FeaturesRecord,
    labels: PictureLabels | None,
) -> None:
    """Arrays by name, each as pieces of rows in order, `count` in all."""
    streamed = {name: _stream(pieces, count) for name, pieces in arrays.items()}
    said = describe_features(record) | _describe_labels(labels)
    write_streamed(out, streamed | {name: stream_array(value) for name, value in said.items()})


def describe_features(record: FeaturesRecord) -> dict[str, NDArray[Any]]:
    """What a file says of its features, as arrays of it."""
    return {
        "mode": np.array(record.mode),
        "weights_sha256": np.array(record.weights_sha256),
        "what": np.array(record.what),
        "size": np.array(record.size),
    }


def _describe_labels(labels: PictureLabels | None) -> dict[str, NDArray[Any]]:
    if labels is None:
        return {}
    return {"labels": labels.numbers} | ({} if labels.classes is None else {"classes": np.array(labels.classes)})


def _stream(pieces: Callable[[], Iterable[Features]], count: int) -> StreamedArray:
    width = next(iter(pieces())).shape[1]
    return StreamedArray((count, width), np.dtype(np.float32), pieces)


def extract(out: Path, stack: ImageStack, network: FeatureNetwork, progress: Progress = lambda _: None) -> int:
    """Features of all pictures of a stack to OUT; how many there were. A batch at a time is in memory."""
    with ExitStack() as open_files:
        spools: dict[str, tuple[IO[bytes], int]] = {}
        count = 0
        for images, found in compute_features(stack, network):
            for name in found.arrays:
                values = getattr(found, name)
                if name not in spools:
                    spools[name] = (open_files.enter_context(tempfile.TemporaryFile(dir=_beside(out))), values.shape[1])
                spools[name][0].write(np.ascontiguousarray(values, np.float32).data)
            count += len(images)
            progress(len(images))
        arrays = {name: _read_back(file, width) for name, (file, width) in spools.items()}
        record = FeaturesRecord(stack.what, stack.size, network.mode, network.sha256)
        write_features(out, arrays, count, record, stack.labels)
    return count


def _beside(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def _read_back(file: IO[bytes], width: int) -> Callable[[], Iterator[Features]]:
    def pieces() -> Iterator[Features]:
        file.seek(0)
        while data := file.read(1024 * width * 4):
            yield np.frombuffer(data, np.float32).reshape(-1, width)

    return pieces


def read_features(path: Path) -> StoredFeatures | None:
    """None where the file holds no features; LvaeError where it is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if "pooled" not in file.files:
                return None
            stored: dict[str, Any] = {name: file[name] for name in (*ARRAYS, *SAID, *LABELS) if name in file.files}
    except FileNotFoundError:
        raise LvaeError(path, "no such file") from None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, OSError) as error:
        raise LvaeError(path, f"not a whole .npz file ({error})", "Fetch or write it again.") from None
    arrays: list[Any] = [stored.get(name) for name in ARRAYS]
    rows = {
        len(array) if array.ndim == 2 and array.dtype == np.float32 else -1 for array in arrays if array is not None
    }
    if any(name not in stored for name in SAID) or stored["size"].shape != (2,) or len(rows) != 1 or -1 in rows:
        raise LvaeError(path, "holds no features as 'lvae features' writes them", "Make them again.")
    for array in arrays:
        if array is not None:
            require_finite(array, path, "features of picture", range(len(array)), "Make them again.")
    size = tuple(int(number) for number in stored["size"])
    record = FeaturesRecord(str(stored["what"]), (size[0], size[1]), str(stored["mode"]), str(stored["weights_sha256"]))
    labels = _read_labels(path, stored, len(arrays[0]))
    return StoredFeatures(str(path), record, PictureFeatures(arrays[0], arrays[1], arrays[2], labels))


def _read_labels(path: Path, stored: Mapping[str, NDArray[Any]], count: int) -> PictureLabels | None:
    if "labels" not in stored:
        return None
    numbers, names = stored["labels"], stored.get("classes")
    fine = numbers.dtype == np.int32 and numbers.shape == (count,) and numbers.min() >= -1
    if fine and names is not None:
        fine = names.ndim == 1 and names.dtype.kind == "U" and numbers.max() < len(names)
    if not fine:
        raise LvaeError(path, "holds labels that 'lvae features' did not write", "Make them again.")
    return labels_if_any(numbers, None if names is None else tuple(map(str, names)))
