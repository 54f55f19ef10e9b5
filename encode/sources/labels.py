"""Labels from a file of their own: `--labels FILE`, over whatever a source says.

    .csv     key,label a line; a first line of column names is optional, and lets the columns stand in any order
    .jsonl   {"key": ..., "label": ...} a line; "file_name" is read as "key"
    .json    {key: label}, or NVIDIA's {"labels": [["key", 3], ...]}

A label is a number, or a class name; names become classes in sorted order. One file holds one sort of them. As data
tools write them, 10.0 and "10" are the number 10, and what is empty, NaN, null or -1 is no label. A key is found in
whatever Unicode form (NFC, NFD) the source has it.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lvae.encode.files import naming
from lvae.encode.files.naming import key_of_member
from lvae.encode.sources.base import Source, SourceWarning
from lvae.encode.sources.label_values import ClassNumbers, Label, check_label, label_at, name_numbers, text_label
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import composed, counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.records import decode_json
from lvae.manifests.storage.given_files import read_given_file

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
        text = read_given_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LvaeError(path, "not UTF-8 text", "Save it as UTF-8.") from error
    match path.suffix.lower():
        case ".csv":
            entries = _read_csv(text, path)
        case ".jsonl":
            entries = _read_json_lines(text, path)
        case ".json":
            entries = _read_json(text, path)
        case _:
            raise LvaeError(path, "labels are read from .csv, .jsonl and .json")
    return _number_labels(entries, path)


def apply_labels(rows: Iterable[ImageRow], labels: Labels, source: Source | None = None) -> Iterator[ImageRow]:
    """The rows with these labels, -1 without an entry. `source`: where to count what is unlabelled, and to warn.

    Raises LvaeError after the last row if entries match no row, and where one matches two by their Unicode forms.
    """
    forms = {composed(key): key for key in labels.by_key if not key.isascii()}
    met: dict[str, str] = {}  # entry -> the image that has its label
    unlabelled = in_other_form = 0
    for row in rows:
        entry = row.key
        if entry not in labels.by_key and not entry.isascii():
            entry = forms.get(composed(entry), entry)
        label = labels.by_key.get(entry, UNLABELLED)
        if entry in labels.by_key:
            if entry in met:
                raise LvaeError(
                    "--labels", f"{entry!r} names two images, which differ only in their Unicode form (NFC and NFD)"
                )
            met[entry] = row.key
            in_other_form += entry != row.key
        unlabelled += label == UNLABELLED
        yield row._replace(label=label)
    if source is not None:
        source.counts[naming.UNLABELLED_IMAGES] = unlabelled
        if in_other_form:
            keys = counted(in_other_form, "key")
            source.warnings.append(SourceWarning("names", f"--labels: {keys} found in another Unicode form (NFC, NFD)"))
    if len(met) < len(labels.by_key):
        missing = len(labels.by_key) - len(met)
        example = next(key for key in labels.by_key if key not in met)
        raise LvaeError(
            "--labels",
            f"{missing} of {len(labels.by_key)} keys match no image, {example!r} for one",
            "A key is the path below the source.",
        )


def _read_csv(text: str, path: Path) -> Iterator[Entry]:
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
            if "\0" in cells[key_column]:
                advice = "Save the file as UTF-8. A key with a null byte is written in .jsonl, as \\u0000."
                raise LvaeError(where, "a key with a null byte", advice)
            yield where, cells[key_column], text_label(cells[label_column])
    except csv.Error as error:
        raise LvaeError(path, f"line {reader.line_num}: {error}") from error


def _read_json_lines(text: str, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        entry = parse_json(line, where, nan=True)
        key = entry.get("key", entry.get("file_name")) if isinstance(entry, dict) else None
        if not isinstance(key, str) or "label" not in entry:
            raise LvaeError(where, 'a line is {"key": "path", "label": 3}')
        yield where, key, entry["label"]


def _read_json(text: str, path: Path) -> Iterator[Entry]:
    found = parse_json(text, str(path), nan=True)
    if not isinstance(found, dict):
        raise LvaeError(path, 'neither {"path": 3, ...} nor NVIDIA\'s {"labels": [["path", 3], ...]}')
    if isinstance(found.get("labels", 0), list):
        found = parse_label_pairs(found["labels"], str(path)) or {}
    for key, label in found.items():
        yield f"{path}: {key!r}", key, label


def _number_labels(entries: Iterable[Entry], path: Path) -> Labels:
    labels: dict[str, Label] = {}
    numbers = ClassNumbers()
    for where, key, value in entries:
        label = label_at(value, where)
        numbers.add(label, where)
        if labels.setdefault(key, label) != label:
            raise LvaeError(where, f"{key!r} has two labels, {labels[key]!r} and {label!r}")
    if not labels:
        raise LvaeError(path, "holds no labels")
    forms: dict[str, str] = {}
    for key in labels:
        if forms.setdefault(composed(key), key) != key and labels[forms[composed(key)]] != labels[key]:
            raise LvaeError(path, f"{key!r} stands there twice, in two Unicode forms (NFC and NFD), with two labels")
    classes = numbers.settle()
    return Labels(classes if numbers.named else None, {key: numbers.number(label) for key, label in labels.items()})


def parse_json(text: bytes | str, where: str, nan: bool = False) -> Any:
    """Strict JSON: no duplicate keys, no NaN unless `nan`; an LvaeError in one line for anything else."""
    try:
        return decode_json(text, nan)
    except json.JSONDecodeError as error:
        raise LvaeError(where, f"not JSON, {error.msg} in line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise LvaeError(where, "not UTF-8 text") from error
    except RecursionError as error:
        raise LvaeError(where, "nested too deeply") from error
    except ValueError as error:  # duplicates, NaN, numbers of thousands of digits
        raise LvaeError(where, f"{error!s:.100}") from error


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
        key, label = parse_label_pair(pair, here)
        if labels.setdefault(key, label) != label:
            raise LvaeError(here, f"{key} has two labels, {labels[key]} and {label}")
    return labels


def parse_label_pair(pair: Any, where: str) -> tuple[str, int]:
    if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
        raise LvaeError("", f"{where} is {json.dumps(pair):.60}", 'It has to be ["path", number].')
    key = key_of_member(pair[0].replace("\\", "/"))
    label = label_at(pair[1], f"{where} ({key})")
    if isinstance(label, str):
        label = text_label(label)
    return key, UNLABELLED if label is None else check_label(label, f"{where} ({key})", None)


class NamedLabels:
    """Labels of a dataset.json, handed out by key; what it names and nobody asked for is an error in the end."""

    def __init__(self, labels: dict[str, int], where: str):
        self._labels, self._where = labels, where
        self._used = 0
        self.classes = name_numbers(max(labels.values(), default=-1))

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
