"""Labels in files beside the images of a tar: the number or name in a .cls, or "label" in a .json.

What Python's own json module reads is read: NaN, keys that stand twice (the last one counts), integers of any length.
What cannot be read takes the label from its own sample alone, and is told of. A .json beside a .cls is not needed.
"""

import json
import re
from collections.abc import Sequence
from typing import IO

from lvae.encode.files.naming import CLASSES_TXT, Labelled
from lvae.encode.sources.label_values import (
    MAX_NAME,
    WHOLE,
    ClassNumbers,
    Label,
    NotALabelError,
    as_label,
    check_label,
    text_label,
)
from lvae.encode.sources.reading.tar_members import Member
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED

MAX_BYTES = 16 << 20  # of a .cls or .json
CLS, JSON = ".cls", ".json"
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")  # numbers that were written as bytes


class SideFiles:
    """Of all tars of a source: whether their labels fit together, and which files could not be read.

    Labels are first added, and settled once all are known. Where a first tar has numbers, there is nothing to settle.
    """

    def __init__(self, classes: tuple[str, ...] | None):
        self._listed = None if classes is None else {name: number for number, name in enumerate(classes)}
        self._classes = classes
        self._numbers = ClassNumbers()
        self._settled = False
        self._first_number = ""  # where it stands
        self.begin_again()

    def begin_again(self) -> None:
        """Forget what is told in the end."""
        self._unreadable = self._alone = self._without = 0
        self._example = self._alone_example = self._without_example = ""

    def of_tar(self, path: str, file: IO[bytes]) -> "LabelsOfTar":
        """Collects the labels of one tar."""
        return LabelsOfTar(self, path, file)

    def add(self, label: Label, where: str) -> None:
        """A label of an image; raises LvaeError for one that no class can have."""
        label = self._listed_number(label, where)
        if isinstance(label, int):
            self._first_number = self._first_number or where
        self._numbers.add(label, where)

    @property
    def has_numbers(self) -> bool:
        return bool(self._first_number)

    def settle(self) -> tuple[str, ...] | None:
        """The classes, where labels are names; None where they are numbers, with or without a classes.txt."""
        classes = self._numbers.settle()
        self._settled = True
        return classes if self._numbers.named else None

    def number(self, label: Label, where: str) -> int:
        """The number of a label's class."""
        label = self._listed_number(label, where)
        if isinstance(label, str) and not self._settled:
            found = WHOLE.fullmatch(label)
            if found is None:
                raise LvaeError(where, f"a class name, but {self._first_number} has a number", "Use one sort.")
            label = as_label(int(found[1]))
        return check_label(label, where, self._classes) if isinstance(label, int) else self._numbers.number(label)

    def _listed_number(self, label: Label, where: str) -> Label:
        """A name of classes.txt as its number."""
        if not isinstance(label, str) or self._listed is None:
            return label if label is None or isinstance(label, str) else check_label(label, where, self._classes)
        if label not in self._listed:
            problem = f"the label {label!r:.60} is none of the classes in {CLASSES_TXT}"
            raise LvaeError(where, problem, "Add it there, or give --labels FILE.")
        return self._listed[label]

    def note_unreadable(self, where: str, why: str) -> None:
        self._unreadable += 1
        self._example = self._example or f"{where} ({why})"

    def note_alone(self, where: str) -> None:
        self._alone += 1
        self._alone_example = self._alone_example or where

    def note_without(self, where: str) -> None:
        """A file beside an image that holds no label."""
        self._without += 1
        self._without_example = self._without_example or where

    def warn(self, source: Labelled) -> None:
        """Once all rows are through."""
        if self._without and not source.classes:
            files = (
                f'{counted(self._without, "file")} beside images {"has" if self._without == 1 else "have"} no "label"'
            )
            text = f"no image has a label, and {files}, {self._without_example} for one. --labels FILE gives labels"
            source.warn("labels not used", text)
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
        self._found: dict[str, tuple[str, Label, str]] = {}  # ending, label, where
        self._unreadable: dict[str, tuple[str, str]] = {}  # where, and why

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

    def _read(self, member: Member, ending: str, where: str) -> Label:
        try:
            if member.length > MAX_BYTES:
                raise NotALabelError(f"{member.length} bytes are too many")
            self._file.seek(member.offset)
            data = self._file.read(member.length)
            return label_in_text(data) if ending == CLS else label_in_json(data)
        except NotALabelError as error:
            self._unreadable[member.key.rpartition(".")[0]] = where, str(error)
            return None

    def number(self, stems: Sequence[str]) -> int:
        """The class of the image that is found under the first of these names; UNLABELLED where there is none."""
        for stem in stems:
            if (found := self._found.get(stem)) is not None and found[1] is not None:
                return self._side_files.number(found[1], found[2])
        for stem in stems:
            if (unreadable := self._unreadable.get(stem)) is not None:
                self._side_files.note_unreadable(*unreadable)
                break
        return UNLABELLED

    def join(self, stems: set[int]) -> int:
        """Add those labels whose names are among these (hashes); the others are counted. How many there were."""
        joined = 0
        for stem, (_, label, where) in self._found.items():
            if label is not None and hash(stem) in stems:
                joined += 1
                self._side_files.add(label, where)
            elif label is not None:
                self._side_files.note_alone(where)
            elif hash(stem) in stems and stem in self._unreadable:
                self._side_files.note_unreadable(*self._unreadable[stem])
            elif hash(stem) in stems:
                self._side_files.note_without(where)
        return joined


def label_in_text(data: bytes) -> Label:
    """Blanks and line ends around a label do not belong to it."""
    try:
        text = data.decode("utf-8-sig").rstrip("\0")
    except UnicodeDecodeError as error:
        raise NotALabelError("not UTF-8 text") from error
    if not text.strip():
        raise NotALabelError("it is empty")
    if len(text.strip()) > MAX_NAME or CONTROL.search(text.strip()):
        raise NotALabelError(f"{text.strip()!r:.40} is no text that a class may have")
    return text_label(text)


def label_in_json(data: bytes) -> Label:
    try:
        found = json.loads(data, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise NotALabelError(f"not JSON, {error.msg} in line {error.lineno}") from error
    except UnicodeDecodeError as error:
        raise NotALabelError("not UTF-8 text") from error
    except RecursionError as error:
        raise NotALabelError("nested too deeply") from error
    label = as_label(found.get("label")) if isinstance(found, dict) else None
    if isinstance(label, str) and len(label) > MAX_NAME:
        raise NotALabelError(f"{label!r:.40} is too long for a class")
    return label.strip() if isinstance(label, str) else label


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 30 else float(text)
