"""Labels from a file of their own: `--labels FILE`, over whatever a source says.

    .csv     key,label a line; a first line of column names is optional, and lets the columns stand in any order
    .jsonl   {"key": ..., "label": ...} a line; "file_name" is read as "key"
    .json    {key: label}, or NVIDIA's {"labels": [["key", 3], ...]}

A label is a number, or a class name; names become classes in sorted order. One file holds one sort of them.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lvae.encode.sources import naming as names
from lvae.manifests.errors import LvaeError
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
        raise LvaeError(f"{path}: not UTF-8 text.") from error
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror}).") from error
    match path.suffix.lower():
        case ".csv":
            entries = _csv(text, path)
        case ".jsonl":
            entries = _json_lines(text, path)
        case ".json":
            entries = _json(text, path)
        case _:
            raise LvaeError(f"{path}: labels are read from .csv, .jsonl and .json.")
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
            f"--labels: {missing} of {len(labels.by_key)} keys match no image, {example!r} for one."
            " A key is the path below the source."
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
                raise LvaeError(f"{where}: {len(cells)} columns instead of {columns}. A line is key,label.")
            label = cells[label_column].strip()
            yield where, cells[key_column], int(label) if is_number(label) else label
    except csv.Error as error:
        raise LvaeError(f"{path}: line {reader.line_num}: {error}.") from error


def _json_lines(text: str, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        entry = names.parse_json(line, where)
        key = entry.get("key", entry.get("file_name")) if isinstance(entry, dict) else None
        if not isinstance(key, str) or "label" not in entry:
            raise LvaeError(f'{where}: a line is {{"key": "path", "label": 3}}.')
        yield where, key, entry["label"]


def _json(text: str, path: Path) -> Iterator[Entry]:
    found = names.parse_json(text, str(path))
    if not isinstance(found, dict):
        raise LvaeError(f'{path}: neither {{"path": 3, ...}} nor NVIDIA\'s {{"labels": [["path", 3], ...]}}.')
    if isinstance(found.get("labels", 0), list):
        found = names.parse_label_pairs(found["labels"], str(path)) or {}
    for key, label in found.items():
        yield f"{path}: {key!r}", key, label


def _numbered(entries: Iterable[Entry], path: Path) -> Labels:
    labels: dict[str, Any] = {}
    sorts: dict[bool, str] = {}  # whether a label is a name -> where the first such stands
    for where, key, label in entries:
        if isinstance(label, str):
            if not label:
                raise LvaeError(f"{where}: the label of {key!r} is empty. Leave the line out instead.")
        else:
            names.checked_label(label, where, None)
        sorts.setdefault(isinstance(label, str), where)
        if labels.setdefault(key, label) != label:
            raise LvaeError(f"{where}: {key!r} has two labels, {labels[key]!r} and {label!r}.")
    if not labels:
        raise LvaeError(f"{path}: holds no labels.")
    if len(sorts) == 2:
        raise LvaeError(f"{sorts[True]}: a class name, but {sorts[False]} has a number. Use one sort.")
    if False in sorts:
        return Labels(None, labels)
    classes = tuple(sorted(set(labels.values())))
    numbers = {name: number for number, name in enumerate(classes)}
    return Labels(classes, {key: numbers[name] for key, name in labels.items()})


def is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal() and text.isascii() and len(text) < 20 and text.rfind("-") < 1
