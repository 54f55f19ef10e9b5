"""Labels in files beside the images of a tar: the number or name in a .cls, or "label" in a .json.

What Python's own json module reads is read: NaN, keys that stand twice (the last one counts), integers of any length.
What cannot be read takes the label from its own sample alone, and is told of. A .json beside a .cls is not needed.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import IO, Any

from lvae.encode.files.naming import CLASSES_TXT
from lvae.encode.files.tar_members import Member
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import MAX_LABEL
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

MAX_BYTES = 16 << 20  # of a .cls or .json
MAX_NAME = 1000  # characters of a class
CLS, JSON = ".cls", ".json"
WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?", re.ASCII)

Label = int | str


class UnreadableLabelError(Exception):
    """A side file in which no label can be found; says why."""


class SideFiles:
    """Of all tars of a source: whether their labels fit together, and which files could not be read."""

    def __init__(self, classes: tuple[str, ...] | None):
        self._numbers = None if classes is None else {name: number for number, name in enumerate(classes)}
        self._classes = classes
        self._first: dict[type, str] = {}  # where the first number stands, and the first name
        self._unreadable = self._alone = 0
        self._example = self._alone_example = ""

    def of_tar(self, path: str, file: IO[bytes]) -> "LabelsOfTar":
        """Collects the labels of one tar."""
        return LabelsOfTar(self, path, file)

    def check(self, label: Label, where: str) -> Label:
        """A label that fits the classes and the labels before it: a number, or a name that is not in classes.txt."""
        if isinstance(label, str) and self._numbers is not None:
            if label not in self._numbers:
                raise LvaeError(
                    where,
                    f"the label {label!r:.60} is none of the classes in {CLASSES_TXT}",
                    "Add it there, or give --labels FILE.",
                )
            label = self._numbers[label]
        if isinstance(label, int):
            if not 0 <= label <= MAX_LABEL:
                raise LvaeError(where, f"the label {label} is out of range", f"Labels are 0 to {MAX_LABEL}.")
            if self._classes is not None and label >= len(self._classes):
                names = counted(len(self._classes), "class", "classes")
                raise LvaeError(where, f"the label {label} is out of range: {CLASSES_TXT} names {names}")
        self._first.setdefault(type(label), where)
        if len(self._first) == 2:
            raise LvaeError(
                self._first[str],
                f"a class name, but {self._first[int]} has a number",
                "Use one sort, or give --labels FILE.",
            )
        return label

    def note_unreadable(self, where: str, why: str) -> None:
        self._unreadable += 1
        self._example = self._example or f"{where} ({why})"

    def note_alone(self, where: str) -> None:
        self._alone += 1
        self._alone_example = self._alone_example or where

    def warn(self, source: Notes) -> None:
        """Once all rows are through."""
        if self._alone:
            labels = counted(self._alone, "label")
            source.warn("labels not used", f"{labels} in .cls or .json without an image, {self._alone_example} for one")
        if self._unreadable:
            files = counted(self._unreadable, "label file")
            source.warn("labels not used", f"{files} cannot be read, {self._example} for one")


class LabelsOfTar:
    """The labels of one tar by the member's name without its ending; a .cls goes before a .json."""

    def __init__(self, side_files: SideFiles, path: str, file: IO[bytes]):
        self._side_files, self._path, self._file = side_files, path, file
        self._found: dict[str, tuple[str, Label | None, str]] = {}  # ending, label, where

    def add(self, member: Member) -> bool:
        """Take a member's label; False where it is no such file."""
        stem, dot, last = member.key.rpartition(".")
        ending = dot + last.lower()
        if ending not in (CLS, JSON):
            return False
        before = self._found.get(stem)
        if before is not None and before[0] == CLS and ending == JSON:
            return True
        where = f"{self._path}: {member.name}"
        label = self._read(member, ending, where)
        if before is not None and before[0] == ending and label != before[1]:
            raise LvaeError(where, f"stands twice, with the labels {before[1]!r:.60} and {label!r:.60}")
        if label is not None or before is None or (ending == CLS and before[1] is None):
            self._found[stem] = ending, label, where
        return True

    def _read(self, member: Member, ending: str, where: str) -> Label | None:
        try:
            if member.length > MAX_BYTES:
                raise UnreadableLabelError(f"{member.length} bytes are too many")
            self._file.seek(member.offset)
            data = self._file.read(member.length)
            return label_in_text(data) if ending == CLS else label_in_json(data)
        except UnreadableLabelError as error:
            self._side_files.note_unreadable(where, str(error))
            return None

    def of(self, stems: Iterable[str]) -> Label | None:
        """The label that is found under the first of these names; None where there is none."""
        for stem in stems:
            if (found := self._found.get(stem)) is not None and found[1] is not None:
                return self._side_files.check(found[1], found[2])
        return None

    def joined(self, stems: set[int]) -> set[Label]:
        """The labels whose names are among these (hashes), checked; the others are counted."""
        found: set[Label] = set()
        for stem, (_, label, where) in self._found.items():
            if label is not None and hash(stem) in stems:
                found.add(self._side_files.check(label, where))
            elif label is not None:
                self._side_files.note_alone(where)
        return found


def label_in_text(data: bytes) -> Label | None:
    """Blanks and line ends around a label do not belong to it."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableLabelError("not UTF-8 text") from error
    if not text.strip():
        raise UnreadableLabelError("it is empty")
    return as_label(text)


def label_in_json(data: bytes) -> Label | None:
    try:
        found = json.loads(data, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UnreadableLabelError(f"not JSON, {error.msg} in line {error.lineno}") from error
    except UnicodeDecodeError as error:
        raise UnreadableLabelError("not UTF-8 text") from error
    except RecursionError as error:
        raise UnreadableLabelError("nested too deeply") from error
    return as_label(found.get("label")) if isinstance(found, dict) else None


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 30 else float(text)


def as_label(value: Any) -> Label | None:
    """A number or a name; None where there is none: null, NaN, an empty text, or -1. A list of one is that one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        text = value.strip()
        if len(text) > MAX_NAME or "\0" in text:
            raise UnreadableLabelError("too long to be a class")
        if number := WHOLE.fullmatch(text):
            return None if int(number[1]) == -1 else int(number[1])
        return text or None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return None if value == -1 else int(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    raise UnreadableLabelError(f"its label is {json.dumps(value):.60}, neither a number nor a name")
