"""The labels of a dataset.json, NVIDIA's layout, read a piece at a time: {"labels": [["path", 3], ...]} or null."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from lvae.encode.sources.labels import parse_label_pair
from lvae.manifests.errors import LvaeError
from lvae.pipeline.exchange.caches.sorting import sort_many

MAX_VALUE = 1 << 20  # characters of one value
LABELS = "labels"
ENDS = ",:]} \t\r\n"  # what may stand behind a value; a number may go on at any other character
SPACE = re.compile(r"[ \t\r\n]*")


def read_label_pairs(pieces: Iterator[bytes], where: str) -> Iterator[tuple[str, int]] | None:
    """Paths and labels, sorted by path, each path once; None where the file gives no labels.

    LvaeError for what is no such file, at the latest when all has been read.
    """
    text = _Text(pieces, where)
    text.expect("{")
    while text.next() != "}":
        name = text.value()
        text.expect(":")
        if name == LABELS:
            if text.next() == "[":
                return _once_each(sort_many(_pairs(text, where)), where)
            if text.value() is not None:
                raise LvaeError(where, '"labels" is neither a list nor null')
            text.finish({LABELS})
            return None
        text.value()
        if text.next() == ",":
            text.expect(",")
    raise LvaeError(where, 'no "labels"', 'NVIDIA\'s layout is {"labels": [["path", 3], ...]} or null.')


def _pairs(text: "_Text", where: str) -> Iterator[tuple[str, int]]:
    text.expect("[")
    number = 0
    while text.next() != "]":
        if number:
            text.expect(",")
        yield parse_label_pair(text.value(), f"{where}: labels[{number}]")
        number += 1
    text.expect("]")
    text.finish({LABELS})


def _once_each(pairs: Iterator[tuple[str, int]], where: str) -> Iterator[tuple[str, int]]:
    before: tuple[str, int] | None = None
    for pair in pairs:
        if before is not None and pair[0] == before[0]:
            if pair != before:
                raise LvaeError(where, f"{pair[0]:.200} has two labels, {before[1]} and {pair[1]}")
            continue
        yield pair
        before = pair


class _Text:
    """JSON read value by value."""

    def __init__(self, pieces: Iterator[bytes], where: str):
        self._pieces, self._where = pieces, where
        self._decoder = json.JSONDecoder(parse_constant=self._refuse)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._ended = "", 0, False

    def next(self) -> str:
        """The next character that is no space, which stays; "" at the end."""
        while True:
            self._at = SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def expect(self, character: str) -> None:
        if self.next() != character:
            self._refuse(f"{character} is missing")
        self._at += 1

    def value(self) -> Any:
        """The next whole value."""
        self.next()
        while True:
            problem = "a value is too long, or goes on where it ends"
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
                if self._text[end : end + 1] in (*ENDS, "") and (end < len(self._text) or self._ended):
                    self._at = end
                    return found
            except ValueError as error:
                problem = str(error)
            except RecursionError:
                self._refuse("nested too deeply")
            if self._ended or len(self._text) - self._at > MAX_VALUE:
                self._refuse(problem)
            self._more()

    def finish(self, names: set[str]) -> None:
        """The rest of the object that this is in, which must not repeat its names, and nothing behind it."""
        while self.next() == ",":
            self.expect(",")
            name = self.value()
            if not isinstance(name, str) or name in names:
                self._refuse(f"{name!r:.60} stands twice, or is no name")
            names.add(name)
            self.expect(":")
            self.value()
        self.expect("}")
        if self.next():
            self._refuse("something stands behind it")

    def _more(self) -> None:
        piece = next(self._pieces, b"")
        self._ended = not piece
        try:
            self._text = self._text[self._at :] + self._utf8.decode(piece, self._ended)
        except UnicodeDecodeError as error:
            raise LvaeError(self._where, f"not valid JSON ({error})") from None
        self._at = 0

    def _refuse(self, problem: str) -> NoReturn:
        raise LvaeError(self._where, f"not valid JSON ({problem:.100})")
