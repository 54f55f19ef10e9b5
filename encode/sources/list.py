"""A list of pictures: .csv, .jsonl or .txt, a path or URL a line, and a label if there is one.

    .csv     path,label a line, or path alone; a first line of column names is optional, and lets the columns stand in
             any order among others
    .jsonl   {"path": ..., "label": ...} a line; "file_name", "key", "image" and "url" are read as "path"
    .txt     a path a line; a label after a tab, or a number after a blank where the rest ends like an image

Paths are relative to the list. Keys are the paths as written; one that stands twice is an error, as is a picture that
is not there, once the whole list is through. What is listed is taken for a picture whatever it is called. A label is
a number, or a class name; names become classes in sorted order, and one list holds one sort of them. 10.0 is the
number 10; what is empty, NaN or null is no label.
"""

import csv
import itertools
import os
import posixpath
import unicodedata
from collections.abc import Iterator
from typing import IO, Any

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import no_images
from lvae.encode.files.remote import Status
from lvae.encode.images import ImageRejected
from lvae.encode.sources.base import Notes
from lvae.encode.sources.label_values import ClassNumbers, Label, is_number, label_at, text_label
from lvae.encode.sources.labels import KEY_COLUMNS, LABEL_COLUMNS, parse_json
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import composed, counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import raise_outage

ENDINGS = (".csv", ".jsonl", ".txt")
PATH_COLUMNS = (*KEY_COLUMNS, "url", "image_path", "filepath")
MAX_LINE = 1 << 20  # characters
AT_A_TIME = 1024  # rows that are looked at before the first of them is given out

Line = tuple[int, str, Label]  # its number, path, label


class ListSource(Notes):
    """See the module. `classes` is final once `rows()` is through."""

    kind = "list"

    def __init__(self, location: str):
        super().__init__()
        self.location = locations.resolve(location)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        numbers = ClassNumbers()
        if self.reads_labels:
            for number, path, label in lines_of(self.location):
                numbers.add(label, f"{self.location}: line {number} ({path!r:.100})")
        self.classes = numbers.settle()
        images, missing, example, other_forms = 0, 0, "", 0
        for (number, path, label), found in self._look_at_paths():
            if found is None:
                other, found = _find_other_form(locations.parent_of(self.location), path)
                if found is None:
                    missing, example = missing + 1, example or path
                    continue
                path, other_forms = other, other_forms + 1
            where = f"{self.location}: line {number}"
            if found.size is None:
                raise LvaeError(where, f"the server does not tell the size of {path}")
            self.seen.add(path, found.size, found.stamp)
            chosen = numbers.number(label) if self.reads_labels else UNLABELLED
            naming.count_unlabelled(self.counts, chosen)
            images += 1
            yield ImageRow(path, "", 0, found.size, "", chosen)
        if missing:
            raise LvaeError(
                self.location,
                f"names {counted(missing, 'picture')} not there, {example!r} for one",
                "Paths are relative to the list. Take them out.",
            )
        if not images:
            raise no_images(self.location, self.counts)
        if other_forms:
            self.warn("names", f"{counted(other_forms, 'path')} found in another Unicode form (NFC, NFD)")
        if self.reads_labels and not self.classes and (others := _other_columns(self.location)):
            names = ", ".join(map(repr, others))
            text = f"no image has a label, and no column is called label, but {names:.200}. --labels FILE gives labels"
            self.warn("labels not used", text)
        naming.warn_of_unlabelled(self, f"have no label in {locations.name_of(self.location)}")

    def _look_at_paths(self) -> Iterator[tuple[Line, Status | None]]:
        base, met = locations.parent_of(self.location), set[int]()  # hashes of paths: a list may name millions
        lines = lines_of(self.location, self.reads_labels)
        while batch := list(itertools.islice(lines, AT_A_TIME)):
            for number, path, _ in batch:
                plain = hash(path if locations.is_url(path) else posixpath.normpath(path))
                if plain in met:
                    raise LvaeError(self.location, f"line {number}: {path!r} stands twice", "Keys must be unique.")
                met.add(plain)
            where = [where_of(base, path, f"{self.location}: line {number}") for number, path, _ in batch]
            remote = any(map(locations.is_url, where))
            yield from zip(
                batch, concurrently(_find_status, where) if remote else map(_find_status, where), strict=True
            )


class ListReader:
    """Reads the files that a ListSource listed."""

    def __init__(self, location: str):
        self.location = locations.resolve(location)
        self._base = locations.parent_of(self.location)

    def read(self, row: ImageRow) -> bytes:
        if row.length > naming.MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {naming.MAX_MEMBER_BYTES >> 20} MiB")
        path = where_of(self._base, row.key, self.location)
        if locations.is_url(path):
            data = locations.read_range(path, 0, row.length + 1)
        else:
            with locations.open_file(path) as file:
                data = file.read(row.length + 1)
        if len(data) != row.length:
            raise LvaeError(row.key, "not as long as when it was listed", "Scan the source again into a new folder.")
        return data

    def close(self) -> None:
        """Nothing is kept open."""


def where_of(base: str, path: str, where: str) -> str:
    """The place of a listed path. A list from elsewhere may not name files of this machine."""
    if locations.is_url(path):
        locations.refuse_secrets(path)
    if locations.is_url(base) and (path.startswith(("/", "file:", "local:")) or ".." in path.split("/")):
        raise LvaeError(where, f"{path!r:.200}: a list behind a URL may only name URLs and what lies beside it")
    return locations.resolve(path) if locations.is_url(path) else locations.join(base, path)


def _find_other_form(base: str, path: str) -> tuple[str, Status | None]:
    """A listed path as the file system spells it, where it keeps letters and accents together or apart."""
    if not path.isascii() and not locations.is_url(locations.join(base, path)):
        for other in (composed(path), unicodedata.normalize("NFD", path)):
            if other != path and (found := _find_status(locations.join(base, other))) is not None:
                return other, found
    return path, None


def _find_status(location: str) -> Status | None:
    try:
        found = locations.status(location)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        return None
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be looked at ({locations.explain(error)})") from error
    return None if found.is_folder else found


# --- lines ---------------------------------------------------------------------------------------------------------


def lines_of(location: str, labels: bool = True) -> Iterator[Line]:
    """Raises LvaeError for a line that is not as above; without `labels` whatever those are."""
    plain = locations.plain_path(location)
    try:
        with locations.open_file(location, in_place=False) as file:
            match os.path.splitext(plain)[1].lower():  # noqa: PTH122  a URL is no Path
                case ".csv":
                    found = _read_csv(file, location)
                case ".jsonl":
                    found = _read_json_lines(file, location)
                case _:
                    found = _read_text(file, location)
            for number, path, label in found:
                if "\0" in path:
                    advice = "A list is UTF-8 text, a path a line: no UTF-16, nor what 'find -print0' writes."
                    raise LvaeError(location, f"line {number}: a path with a null byte", advice)
                if not path or not naming.is_utf8(path):
                    raise LvaeError(
                        location, f"line {number}: {('no path' if not path else 'a path of odd characters')}"
                    )
                yield number, path, label_at(label, f"{location}: line {number}") if labels else None
    except UnicodeDecodeError as error:
        raise LvaeError(location, "not UTF-8 text", "Save it as UTF-8.") from error
    except OSError as error:
        raise_outage(error)
        raise LvaeError(location, f"cannot be read ({locations.explain(error)})") from error


def _other_columns(location: str) -> list[str]:
    """Of a list that has names for its columns: those that may hold labels and are not called so."""
    ending = os.path.splitext(locations.plain_path(location))[1].lower()  # noqa: PTH122  a URL is no Path
    with locations.open_file(location, in_place=False) as file:
        first = next((line for line in _read_physical_lines(file, location) if line.strip()), "")
    if ending == ".csv":
        names = [cell.strip() for cell in next(csv.reader([first]))]
        names = names if any(name.lower() in PATH_COLUMNS for name in names) else []
    else:
        names = [str(name) for name in parse_json(first, location, nan=True)] if ending == ".jsonl" else []
    known = (*PATH_COLUMNS, *LABEL_COLUMNS)
    return [name for name in names if name.lower() not in known and naming.LABEL_NAMES.search(name)]


def _read_physical_lines(file: IO[bytes], location: str) -> Iterator[str]:
    for number in itertools.count(1):
        line = file.readline(MAX_LINE + 1)
        if len(line) > MAX_LINE:
            raise LvaeError(location, f"line {number} has more than {MAX_LINE} bytes")
        if not line:
            return
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")


Cells = tuple[int, str, Any]  # a line with its label as it stands there


def _read_csv(file: IO[bytes], location: str) -> Iterator[Cells]:
    reader = csv.reader(_read_physical_lines(file, location), strict=True)
    path_at, label_column, columns = 0, 1, 0
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
                    path_at, label_column = path_heads[0], label_heads[0] if label_heads else columns
                    continue
                if columns > 2:
                    raise LvaeError(location, f"line 1: {columns} columns without names", "A line is path,label.")
            if len(cells) != columns:
                raise LvaeError(location, f"line {reader.line_num}: {len(cells)} columns instead of {columns}")
            yield reader.line_num, cells[path_at], text_label(cells[label_column]) if label_column < columns else None
    except csv.Error as error:
        raise LvaeError(location, f"line {reader.line_num}: {error}") from error


def _read_json_lines(file: IO[bytes], location: str) -> Iterator[Cells]:
    for number, line in enumerate(_read_physical_lines(file, location), 1):
        if not line.strip():
            continue
        where = f"{location}: line {number}"
        entry = parse_json(line, where, nan=True)
        found = [entry[name] for name in PATH_COLUMNS if name in entry] if isinstance(entry, dict) else []
        if not found or not isinstance(found[0], str):
            raise LvaeError(where, 'a line is {"path": "a.jpg", "label": 3}')
        label = next((entry[name] for name in LABEL_COLUMNS if name in entry), None)
        yield number, found[0], label


def _read_text(file: IO[bytes], location: str) -> Iterator[Cells]:
    for number, line in enumerate(_read_physical_lines(file, location), 1):
        text = line.rstrip("\r\n")
        path, tab, label = text.rpartition("\t")
        if not tab:
            path, _, label = text.rpartition(" ")
            if not (is_number(label) and naming.is_image_name(path.rstrip())):
                path, label = text, ""
        if text.strip():
            yield number, path.strip() if label else path, text_label(label)
