"""A list of pictures: .csv, .jsonl or .txt, a path or URL a line, and a label if there is one.

    .csv     path,label a line, or path alone; a first line of column names is optional, and lets the columns stand in
             any order among others
    .jsonl   {"path": ..., "label": ...} a line; "file_name", "key", "image" and "url" are read as "path"
    .txt     a path a line; a label after a tab, or a number after a blank where the rest ends like an image

Paths are relative to the list. Keys are the paths as written; one that stands twice is an error, as is a picture that
is not there, once the whole list is through. What is listed is taken for a picture whatever it is called. A label is
a number, or a class name; names become classes in sorted order, and one list holds one sort of them.
"""

import csv
import itertools
import os
from collections.abc import Iterator
from typing import IO, Any

from lvae.encode.files import locations as places
from lvae.encode.files import naming as names
from lvae.encode.files.remote import Status
from lvae.encode.images import ImageRejected
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import (
    KEY_COLUMNS,
    LABEL_COLUMNS,
    MAX_LABEL,
    checked_label,
    is_number,
    numbered_classes,
    parse_json,
)
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

ENDINGS = (".csv", ".jsonl", ".txt")
PATH_COLUMNS = (*KEY_COLUMNS, "url", "image_path", "filepath")
MAX_LINE = 1 << 20  # characters
AT_A_TIME = 1024  # rows that are looked at before the first of them is given out

Line = tuple[int, str, Any]  # its number, path, label or None


class ListSource(Notes):
    """See the module. `classes` is final once `rows()` is through."""

    kind = "list"

    def __init__(self, location: str):
        super().__init__()
        self.location = places.resolved(location)
        self._named: tuple[str, ...] | None = None
        self._largest = UNLABELLED

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self._named if self._named is not None else numbered_classes(self._largest)

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        self._named, self._largest = self._class_names(), UNLABELLED
        numbers = {name: number for number, name in enumerate(self._named or ())}
        images, missing, example = 0, 0, ""
        for (number, path, label), found in self._looked_at():
            if found is None:
                missing, example = missing + 1, example or path
                continue
            where = f"{self.location}: line {number}"
            if found.size is None:
                raise LvaeError(where, f"the server does not tell the size of {path}")
            self.seen.add(path, found.size, found.stamp)
            chosen = UNLABELLED if label is None else numbers[label] if isinstance(label, str) else label
            self._largest = max(self._largest, chosen)
            names.count_unlabelled(self.counts, chosen)
            images += 1
            yield ImageRow(path, "", 0, found.size, "", chosen)
        if missing:
            raise LvaeError(
                self.location,
                f"names {counted(missing, 'picture')} not there, {example!r} for one",
                "Paths are relative to the list. Take them out.",
            )
        if not images:
            raise names.no_images(self.location, self.counts)
        names.warn_of_unlabelled(self, f"have no label in {places.name_of(self.location)}")

    def _looked_at(self) -> Iterator[tuple[Line, Status | None]]:
        base, met = places.parent_of(self.location), set[int]()  # hashes of paths: a list may name millions
        lines = lines_of(self.location)
        while batch := list(itertools.islice(lines, AT_A_TIME)):
            for number, path, _ in batch:
                if hash(path) in met:
                    raise LvaeError(self.location, f"line {number}: {path!r} stands twice", "Keys must be unique.")
                met.add(hash(path))
            where = [where_of(base, path, f"{self.location}: line {number}") for number, path, _ in batch]
            remote = any(map(places.is_url, where))
            yield from zip(batch, concurrently(_status, where) if remote else map(_status, where), strict=True)

    def _class_names(self) -> tuple[str, ...] | None:
        """Checks all labels; the sorted names, where they are names."""
        found: set[str] = set()
        number_at = name_at = 0
        for number, path, label in lines_of(self.location):
            if isinstance(label, str):
                name_at = name_at or number
                found.add(label)
            elif label is not None:
                number_at = number_at or number
                checked_label(label, f"{self.location}: line {number} ({path!r:.100})", None)
            if number_at and name_at:
                raise LvaeError(
                    self.location,
                    f"line {name_at}: a class name, but line {number_at} has a number",
                    "Use one sort.",
                )
            if len(found) > MAX_LABEL:
                raise LvaeError(self.location, f"more than {MAX_LABEL} class names")
        return tuple(sorted(found)) or None


class ListReader:
    """Reads the files that a ListSource listed."""

    def __init__(self, location: str):
        self.location = places.resolved(location)
        self._base = places.parent_of(self.location)

    def read(self, row: ImageRow) -> bytes:
        if row.length > names.MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {names.MAX_MEMBER_BYTES >> 20} MiB")
        path = where_of(self._base, row.key, self.location)
        if places.is_url(path):
            data = places.read_range(path, 0, row.length + 1)
        else:
            with places.open_file(path) as file:
                data = file.read(row.length + 1)
        if len(data) != row.length:
            raise LvaeError(row.key, "not as long as when it was listed", "Scan the source again into a new folder.")
        return data

    def close(self) -> None:
        """Nothing is kept open."""


def where_of(base: str, path: str, where: str) -> str:
    """The place of a listed path. A list from elsewhere may not name files of this machine."""
    if places.is_url(path):
        places.refuse_secrets(path)
    if places.is_url(base) and (path.startswith(("/", "file:", "local:")) or ".." in path.split("/")):
        raise LvaeError(where, f"{path!r:.200}: a list behind a URL may only name URLs and what lies beside it")
    return places.resolved(path) if places.is_url(path) else places.join(base, path)


def _status(location: str) -> Status | None:
    try:
        found = places.status(location)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return None
    except OSError as error:
        raise LvaeError(location, f"cannot be looked at ({places.why(error)})") from error
    return None if found.is_folder else found


# --- lines ---------------------------------------------------------------------------------------------------------


def lines_of(location: str) -> Iterator[Line]:
    """Raises LvaeError for a line that is not as above."""
    plain = places.plain_path(location)
    try:
        with places.open_file(location, in_place=False) as file:
            match os.path.splitext(plain)[1].lower():  # noqa: PTH122  a URL is no Path
                case ".csv":
                    found = _csv(file, location)
                case ".jsonl":
                    found = _json_lines(file, location)
                case _:
                    found = _text(file, location)
            for number, path, label in found:
                if not path or "\0" in path or not names.is_utf8(path):
                    raise LvaeError(
                        location, f"line {number}: {('no path' if not path else 'a path of odd characters')}"
                    )
                yield number, path, None if label == "" else label
    except UnicodeDecodeError as error:
        raise LvaeError(location, "not UTF-8 text") from error
    except OSError as error:
        raise LvaeError(location, f"cannot be read ({places.why(error)})") from error


def _physical(file: IO[bytes], location: str) -> Iterator[str]:
    for number in itertools.count(1):
        line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise LvaeError(location, f"line {number} has more than {MAX_LINE} bytes")
        if not line:
            return
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _csv(file: IO[bytes], location: str) -> Iterator[Line]:
    reader = csv.reader(_physical(file, location), strict=True)
    path_at, label_at, columns = 0, 1, 0
    try:
        for cells in reader:
            if not cells:
                continue
            if not columns:
                columns = len(cells)
                heads = [cell.strip().lower() for cell in cells]
                path_heads = [column for column, head in enumerate(heads) if head in PATH_COLUMNS]
                label_heads = [column for column, head in enumerate(heads) if head in LABEL_COLUMNS]
                if path_heads and (label_heads or columns == 1 or (len(set(heads)) == columns > 1 and "" not in heads)):
                    path_at, label_at = path_heads[0], label_heads[0] if label_heads else columns
                    continue
                if columns > 2:
                    raise LvaeError(location, f"line 1: {columns} columns without names", "A line is path,label.")
            if len(cells) != columns:
                raise LvaeError(location, f"line {reader.line_num}: {len(cells)} columns instead of {columns}")
            label = cells[label_at].strip() if label_at < columns else None
            yield reader.line_num, cells[path_at], int(label) if label and is_number(label) else label
    except csv.Error as error:
        raise LvaeError(location, f"line {reader.line_num}: {error}") from error


def _json_lines(file: IO[bytes], location: str) -> Iterator[Line]:
    for number, line in enumerate(_physical(file, location), 1):
        if not line.strip():
            continue
        where = f"{location}: line {number}"
        entry = parse_json(line, where)
        found = [entry[name] for name in PATH_COLUMNS if name in entry] if isinstance(entry, dict) else []
        if not found or not isinstance(found[0], str):
            raise LvaeError(where, 'a line is {"path": "a.jpg", "label": 3}')
        label = next((entry[name] for name in LABEL_COLUMNS if name in entry), None)
        if label is not None and not isinstance(label, str):
            checked_label(label, where, None)
        yield number, found[0], label


def _text(file: IO[bytes], location: str) -> Iterator[Line]:
    for number, line in enumerate(_physical(file, location), 1):
        text = line.rstrip("\r\n")
        path, tab, label = text.rpartition("\t")
        if not tab:
            path, _, label = text.rpartition(" ")
            if not (is_number(label) and names.is_image_name(path.rstrip())):
                path, label = text, ""
        if text.strip():
            yield number, path.strip() if label else path, int(label) if is_number(label) else label
