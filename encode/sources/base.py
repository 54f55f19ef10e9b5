"""What every source of images offers: its rows, and a reader of their bytes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut
from lvae.encode.files.locations import Seen
from lvae.manifests.errors import LvaeError, one_line
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.storage.retry import ANSWERS, retry

Kind = Literal["unlabelled", "labels not used", "splits", "folders", "left out", "names", "classes", "slow"]


@dataclass(frozen=True)
class SourceWarning:
    """What a person should know of a source beside its counts.

    kind: "unlabelled": images without a label among others that have one; "labels not used": files that look like
    labels; "splits": classes that are called like splits; "folders": which folders are classes; "left out": what may
    hold images and is not read; "names": images whose names had to be changed or sought; "classes": few of them have
    images; "slow": it will take long to read.
    """

    kind: Kind
    text: str

    def __str__(self) -> str:
        return self.text


class Source(Protocol):
    """What a SOURCE holds.

    kind: "folder", "list", "lmdb", "npy", "npz", "parquet", "synthetic", "tar" or "zip".
    location: the SOURCE as an absolute path or pattern, for `open_reader` and `open_source` elsewhere on this machine.
    classes: their names, or None. Final once `rows()` is through, as are `counts` and `warnings`.
    counts: what was found beside images, such as "hidden files", "not images", "unlabelled".
    warnings: for a person; they tell, too, what became of labels.
    reads_labels: set it to False where labels come from elsewhere: then nothing that is wrong with the source's own
        labels stops it, and none is given.
    seen: a hash over size and time (or ETag) of the files that the rows of the last `rows()` lie in, as far as it went
        (a file counts before its first row is handed out): where it differs, the images need a closer look.
    """

    @property
    def kind(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def warnings(self) -> list[SourceWarning]: ...
    @property
    def seen(self) -> Seen: ...

    reads_labels: bool

    def rows(self) -> Iterator[ImageRow]:
        """The images, in the same order every time. Raises LvaeError for what is damaged, and where there are none."""


class Reader(Protocol):
    """Hands out the bytes of listed images. Any number of threads may read; it can be pickled."""

    def read(self, row: ImageRow) -> bytes:
        """The bytes of one image's file.

        Raises OSError where the storage fails (try again), ImageRejected where this one member is at fault, and
        LvaeError where the source is not what it was when listed.
        """

    def close(self) -> None: ...


READ_DELAYS = (0.5, 2.0, 8.0)  # seconds before each further try at bytes that could not be read


def read_bytes(row: ImageRow, reader: Reader) -> bytes:
    """The bytes of an image, with a few patient tries. A file that is gone or shorter than listed is not waited for."""
    try:
        data = retry(lambda: reader.read(row), READ_DELAYS, where=row.key)
    except ANSWERS as error:
        raise LvaeError(row.key, f"cannot be read any more ({error.strerror})", "Restore it, or scan anew.") from error
    if len(data) != row.length and row.offset >= 0:
        raise LvaeError(row.key, f"has {len(data)} bytes, and had {row.length} when it was listed")
    return data


class Notes:
    """The part of a source that is begun anew with every listing."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.warnings: list[SourceWarning] = []
        self.seen = Seen()
        self.reads_labels = True

    def begin_again(self) -> None:
        """Counts and warnings stay the same objects: walks that were handed them go on filling them."""
        self.counts.clear()
        self.warnings.clear()
        self.seen = Seen()

    def count(self, what: str) -> None:
        """One more of what is no image to be listed."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def account_for_rest(self, folder: str, used: Iterable[str], left_out: LeftOut) -> None:
        """Count what else lies in a folder, however deep, beside the files that were read."""
        for name in sorted(set(locations.walk_names(folder)).difference(used)):
            if any(map(naming.is_hidden, name.split("/"))):
                self.count(naming.HIDDEN)
            elif name.endswith("/"):
                left_out.add(name, naming.LINKED_FOLDERS)
            elif naming.is_image_name(name):
                left_out.add(name, naming.BESIDE)
            else:
                left_out.add(name, naming.NOT_READ if name.lower().endswith(".tar") else None)

    def warn(self, kind: Kind, text: str) -> None:
        self.warnings.append(SourceWarning(kind, one_line(text)))
