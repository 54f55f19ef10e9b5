"""Labels from a file of their own: `--labels FILE`, over whatever a source says.

    .csv     key,label a line; a first line of column names is optional, and lets the columns stand in any order
    .jsonl   {"key": ..., "label": ...} a line; "file_name" is read as "key"
    .json    {key: label}, or NVIDIA's {"labels": [["key", 3], ...]}

A label is a number, or a class name; names become classes in sorted order. One file holds one sort of them.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lvae.encode.files import naming as names
from lvae.encode.files.naming import CLASSES_TXT, key_of_member
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

KEY_COLUMNS = ("key", "file_name", "filename", "file", "path", "image", "name", "id")
LABEL_COLUMNS = ("label", "class", "category", "target", "class_id", "class_name", "label_id")

Entry = tuple[str, str, Any]  # where it stands, key, label


class Labels(NamedTuple):
    """classes: None where the file gives numbers. by_key: the label of every key in the file."""

    classes: tuple[str, ...] | None
    by_key: dict[str, int]


def read_labels(path: str | Path) -> Labels:
    """Read a whole file. Raises LvaeError for what is not as above, in one line that names the place."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LvaeError(path, "not UTF-8 text") from error
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror})") from error
    match path.suffix.lower():
        case ".csv":
            entries = _csv(text, path)
        case ".jsonl":
            entries = _json_lines(text, path)
        case ".json":
            entries = _json(text, path)
        case _:
            raise LvaeError(path, "labels are read from .csv, .jsonl and .json")
    return _numbered(entries, path)


def apply_labels(rows: Iterable[ImageRow], labels: Labels, counts: dict[str, int] | None = None) -> Iterator[ImageRow]:
    """The rows with these labels, -1 without an entry. Give a source's `counts` to have its "unlabelled" corrected.

    Raises LvaeError after the last row if entries match no row.
    """
    met: set[str] = set()
    unlabelled = 0
    for row in rows:
        label = labels.by_key.get(row.key, UNLABELLED)
        if label == UNLABELLED:
            unlabelled += 1
        else:
            met.add(row.key)
        yield row._replace(label=label)
    if counts is not None:
        counts[names.UNLABELLED_IMAGES] = unlabelled
    if len(met) < len(labels.by_key):
        missing = len(labels.by_key) - len(met)
        example = next(key for key in labels.by_key if key not in met)
        raise LvaeError(
            "--labels",
            f"{missing} of {len(labels.by_key)} keys match no image, {example!r} for one",
            "A key is the path below the source.",
        )


def _csv(text: str, path: Path) -> Iterator[Entry]:
    reader = csv.reader(io.StringIO(text), strict=True)
    key_column, label_column, columns = 0, 1, 2
    try:
        for number, cells in enumerate(reader):
            where = f"{path}: line {reader.line_num}"
            if not cells:
                continue
            if number == 0:
                heads = [cell.strip().lower() for cell in cells]
                key_heads = [column for column, head in enumerate(heads) if head in KEY_COLUMNS]
                label_heads = [column for column, head in enumerate(heads) if head in LABEL_COLUMNS]
                if key_heads and label_heads:
                    key_column, label_column, columns = key_heads[0], label_heads[0], len(heads)
                    continue
            if len(cells) != columns:
                raise LvaeError(where, f"{len(cells)} columns instead of {columns}", "A line is key,label.")
            label = cells[label_column].strip()
            yield where, cells[key_column], int(label) if is_number(label) else label
    except csv.Error as error:
        raise LvaeError(path, f"line {reader.line_num}: {error}") from error


def _json_lines(text: str, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        entry = parse_json(line, where)
        key = entry.get("key", entry.get("file_name")) if isinstance(entry, dict) else None
        if not isinstance(key, str) or "label" not in entry:
            raise LvaeError(where, 'a line is {"key": "path", "label": 3}')
        yield where, key, entry["label"]


def _json(text: str, path: Path) -> Iterator[Entry]:
    found = parse_json(text, str(path))
    if not isinstance(found, dict):
        raise LvaeError(path, 'neither {"path": 3, ...} nor NVIDIA\'s {"labels": [["path", 3], ...]}')
    if isinstance(found.get("labels", 0), list):
        found = parse_label_pairs(found["labels"], str(path)) or {}
    for key, label in found.items():
        yield f"{path}: {key!r}", key, label


def _numbered(entries: Iterable[Entry], path: Path) -> Labels:
    labels: dict[str, Any] = {}
    sorts: dict[bool, str] = {}  # whether a label is a name -> where the first such stands
    for where, key, label in entries:
        if isinstance(label, str):
            if not label:
                raise LvaeError(where, f"the label of {key!r} is empty", "Leave the line out instead.")
        else:
            checked_label(label, where, None)
        sorts.setdefault(isinstance(label, str), where)
        if labels.setdefault(key, label) != label:
            raise LvaeError(where, f"{key!r} has two labels, {labels[key]!r} and {label!r}")
    if not labels:
        raise LvaeError(path, "holds no labels")
    if len(sorts) == 2:
        raise LvaeError(f"{sorts[True]}", f"a class name, but {sorts[False]} has a number", "Use one sort.")
    if False in sorts:
        return Labels(None, labels)
    classes = tuple(sorted(set(labels.values())))
    numbers = {name: number for number, name in enumerate(classes)}
    return Labels(classes, {key: numbers[name] for key, name in labels.items()})


def is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal() and text.isascii() and len(text) < 20 and text.rfind("-") < 1


MAX_LABEL = 999_999


def checked_label(label: Any, where: str, classes: tuple[str, ...] | None) -> int:
    """An integer label that is in range, or an LvaeError that begins with `where`."""
    if isinstance(label, bool) or not isinstance(label, int):
        raise LvaeError(where, f"the label {label!r:.60} is not a whole number")
    if not 0 <= label <= MAX_LABEL:
        raise LvaeError(where, f"the label {label} is out of range", f"Labels are 0 to {MAX_LABEL}.")
    if classes is not None and label >= len(classes):
        raise LvaeError(where, f"the label {label} is out of range: {CLASSES_TXT} names {len(classes)} classes")
    return label


def numbered_classes(largest: int) -> tuple[str, ...] | None:
    """Names for labels that came as bare numbers: "0" to the largest; None where it is -1."""
    return tuple(map(str, range(largest + 1))) or None


def parse_json(text: bytes | str, where: str) -> Any:
    """Strict JSON: no duplicate keys, no NaN; an LvaeError in one line for anything else."""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise LvaeError(where, f"not JSON, {error.msg} in line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise LvaeError(where, "not UTF-8 text") from error
    except RecursionError as error:
        raise LvaeError(where, "nested too deeply") from error
    except ValueError as error:  # duplicates, NaN, numbers of thousands of digits
        raise LvaeError(where, f"{error!s:.100}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{again!r:.60} stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def parse_dataset_json(text: bytes | str, where: str) -> dict[str, int] | None:
    """NVIDIA's layout, {"labels": [["path", 3], ...]} or null -> labels by path, or None."""
    found = parse_json(text, where)
    if not isinstance(found, dict) or "labels" not in found:
        raise LvaeError(where, 'no "labels"', 'NVIDIA\'s layout is {"labels": [["path", 3], ...]} or null.')
    return parse_label_pairs(found["labels"], where)


def parse_label_pairs(pairs: Any, where: str) -> dict[str, int] | None:
    if pairs is None:
        return None
    if not isinstance(pairs, list):
        raise LvaeError(where, '"labels" is neither a list nor null')
    labels: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        here = f"{where}: labels[{number}]"
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise LvaeError("", f"{here} is {json.dumps(pair):.60}", 'It has to be ["path", number].')
        key = key_of_member(pair[0].replace("\\", "/"))
        label = checked_label(pair[1], f"{here} ({key})", None)
        if labels.setdefault(key, label) != label:
            raise LvaeError(here, f"{key} has two labels, {labels[key]} and {label}")
    return labels


class NamedLabels:
    """Labels of a dataset.json, handed out by key; what it names and nobody asked for is an error in the end."""

    def __init__(self, labels: dict[str, int], where: str):
        self._labels, self._where = labels, where
        self._used = 0
        self.classes = numbered_classes(max(labels.values(), default=-1))

    def label(self, key: str) -> int:
        if key not in self._labels:
            return UNLABELLED
        self._used += 1
        return self._labels[key]

    def finish(self, is_there: Iterable[str]) -> None:
        """Raise if an entry was never asked for; `is_there` is walked only then, for an example."""
        if self._used == len(self._labels):
            return
        missing = set(self._labels).difference(is_there)
        raise LvaeError(
            self._where,
            f"names {counted(len(missing), 'image')} not there, {min(missing)!r} for one",
            "Take them out.",
        )
