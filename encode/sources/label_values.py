"""What counts as a label: numbers, names, and their classes."""

import math
import re
from decimal import Decimal
from typing import Any

from lvae.encode.files.naming import CLASSES_TXT
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED

Label = int | str | None


NO_LABEL = frozenset({"", "nan", "null", "<na>"})  # as text, in any case


WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?", re.ASCII)


class NotALabelError(ValueError):
    """A value that can be neither a number nor a name of a class."""


def as_label(value: Any) -> Label:
    """A value of a data tool as a number, a name, or None where it says nothing. Text stays text: see `text_label`.

    Raises NotALabelError for what cannot be a class.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise NotALabelError("bytes that are not UTF-8") from error
    if isinstance(value, str):
        value = value.rstrip("\0")  # of fields of one width
        return None if len(value) < 100 and value.strip().lower() in NO_LABEL else value
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        if not math.isfinite(value) or value != int(value):
            raise NotALabelError(f"{value} is not a whole number")
        value = int(value)
    if value is None or value == UNLABELLED:
        return None
    if isinstance(value, int):
        return int(value)
    raise NotALabelError(f"{value!r:.60} is neither a whole number nor a name")


def text_label(text: str) -> Label:
    """A label from a file of text, where numbers cannot be told from names but by their look."""
    text = text.rstrip("\0").strip()
    if number := WHOLE.fullmatch(text):
        return as_label(int(number[1]))
    return as_label(text)


class ClassNumbers:
    """Gathers all labels of a source, then numbers them: numbers stay what they are, names are sorted.

    Where all names are numbers in quotes, they are numbers.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._first: dict[type, str] = {}  # where the first number stands, and the first name
        self._largest = UNLABELLED
        self._numbers: dict[str, int] | None = None
        self._named = False

    def add(self, label: Label, where: str) -> None:
        """Raises LvaeError for a number out of range, or where there are numbers and names."""
        if label is None:
            return
        self._first.setdefault(type(label), where)
        if isinstance(label, str):
            self._names.add(label)
            if len(self._names) > MAX_LABEL or len(label) > MAX_NAME:
                raise LvaeError(where, "too many or too long values to be classes", "Give --labels FILE.")
        else:
            self._largest = max(self._largest, check_label(label, where, None))

    def settle(self) -> tuple[str, ...] | None:
        """All are added: the names of the classes; None where there is no label."""
        in_quotes = {name: number for name in self._names if (number := WHOLE.fullmatch(name.strip())) is not None}
        if len(in_quotes) == len(self._names):
            self._numbers = {}
            for name, number in in_quotes.items():
                value = int(number[1])
                self._numbers[name] = UNLABELLED if value == UNLABELLED else check_label(value, self._first[str], None)
            self._largest = max([self._largest, *self._numbers.values()])
            return name_numbers(self._largest)
        if len(self._first) == 2:
            there = self._first[int]
            raise LvaeError(self._first[str], f"a class name, but {there} has a number", "Use one sort.")
        classes = tuple(sorted(self._names))
        self._numbers, self._named = {name: number for number, name in enumerate(classes)}, True
        return classes

    def number(self, label: Label) -> int:
        """Of a label that was added."""
        if label is None:
            return UNLABELLED
        if isinstance(label, int):
            return label
        assert self._numbers is not None, "settle first"
        return self._numbers[label]

    @property
    def named(self) -> bool:
        """Whether classes have names of their own."""
        return self._named


def label_at(value: Any, where: str) -> Label:
    """`as_label`, and an LvaeError that names the place."""
    try:
        return as_label(value)
    except NotALabelError as error:
        raise LvaeError(where, f"the label {error}") from error


def is_number(text: str) -> bool:
    return WHOLE.fullmatch(text) is not None


MAX_LABEL = 999_999


MAX_NAME = 1000  # characters of a class


def check_label(label: Any, where: str, classes: tuple[str, ...] | None) -> int:
    """An integer label that is in range, or an LvaeError that begins with `where`."""
    if isinstance(label, bool) or not isinstance(label, int):
        raise LvaeError(where, f"the label {label!r:.60} is not a whole number")
    if not 0 <= label <= MAX_LABEL:
        advice = f"Labels are 0 to {MAX_LABEL}; --labels FILE gives others."
        raise LvaeError(where, f"the label {label} is out of range", advice)
    if classes is not None and label >= len(classes):
        raise LvaeError(where, f"the label {label} is out of range: {CLASSES_TXT} names {len(classes)} classes")
    return label


def name_numbers(largest: int) -> tuple[str, ...] | None:
    """Names for labels that came as bare numbers: "0" to the largest; None where it is -1."""
    return tuple(map(str, range(largest + 1))) or None
