"""Keys that a person wrote down, found among those of a dataset.

A line is a key as it is, or as messages and JSON show it: escaped (plain/line\\nbreak.png), a JSON string
("plain/line\\nbreak.png"), or an object with a "key", as in rejected.jsonl. A key as it is goes first, so that an
escape never stands for another one. Where nothing is met so, letters and accents may be kept together or apart (NFC,
NFD).
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import composed, counted
from lvae.manifests.storage.given_files import read_given_file

ESCAPE = re.compile(r"\\(?:([nrt\\])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
LETTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
NEAR = 3  # keys that are suggested
COMPARED = 100_000  # keys in which a similar one is sought


@dataclass(frozen=True)
class NamedKeys:
    """keys: those of the dataset that were named. missing: lines that name none. other_form: keys met as NFC or NFD."""

    keys: tuple[str, ...]
    missing: tuple[str, ...]
    other_form: int


def read_key_lines(path: Path) -> list[str]:
    """The lines of a file of keys. Bytes that are not UTF-8 are written as \\xe9, as keys of such names are."""
    where = f"--without-keys {path}"
    text = read_given_file(path, where).decode("utf-8-sig", "backslashreplace")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        advice = "The file is UTF-8 text, a key a line; a null byte in a key is written \\x00."
        raise LvaeError(where, f"line {line} holds a null byte", advice)
    return [line for line in text.split("\n") if line.strip("\r")]  # and at nothing else that a key may hold


def find_keys(lines: Iterable[str], keys: Iterable[str]) -> NamedKeys:
    """Raises LvaeError where a line names two keys that differ only in their Unicode form."""
    wanted: dict[str, list[tuple[int, int]]] = {}  # text -> (line, how far it is from the line as it stands)
    forms: dict[str, list[int]] = {}
    numbered = list(dict.fromkeys(lines))
    for number, line in enumerate(numbered):
        for distance, text in enumerate(_readings(line)):
            wanted.setdefault(text, []).append((number, distance))
            forms.setdefault(composed(text), []).append(number)
    met: dict[int, tuple[int, str]] = {}
    by_form: dict[int, set[str]] = {}
    for key in keys:
        for number, distance in wanted.get(key, ()):
            if number not in met or distance < met[number][0]:
                met[number] = distance, key
        if not key.isascii():
            for number in forms.get(composed(key), ()):
                by_form.setdefault(number, set()).add(key)
    found = {key for _, key in met.values()}
    for number, alike in by_form.items():
        if number in met:
            continue
        if len(alike) > 1:
            one = min(alike)
            raise LvaeError(
                "--without-keys", f"{one!r} names two images, which differ only in their Unicode form (NFC and NFD)"
            )
        found |= alike
    missing = [line for number, line in enumerate(numbered) if number not in met and number not in by_form]
    return NamedKeys(tuple(sorted(found)), tuple(missing), len(by_form.keys() - met.keys()))


def refuse_missing(where: str, lines: int, missing: tuple[str, ...], keys: Iterable[str]) -> None:
    """Raise LvaeError for lines that name no key, with keys that look like the first of them."""
    if not missing:
        return
    near = near_keys(missing[0], keys)
    like = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise LvaeError(
        where,
        f"no image has {len(missing)} of these {counted(lines, 'key')}, {missing[0]!r} for one",
        f"{like}Nothing was changed. A key with a line end is written escaped, as \\n. "
        "--missing-ok passes over keys that are not there.",
    )


def near_keys(line: str, keys: Iterable[str]) -> list[str]:
    """A few keys that somebody may have meant."""
    name = composed(line).rpartition("/")[2].casefold().strip()
    some: list[str] = []
    near: list[str] = []
    for key in keys:
        if len(some) < COMPARED:
            some.append(key)
        last = composed(key).rpartition("/")[2].casefold()
        if name and (last == name or last.rpartition(".")[0] == name or line.strip() in key):
            near.append(key)
            if len(near) == NEAR:
                return near
    return near or difflib.get_close_matches(line, some, NEAR)


def _readings(line: str) -> Iterator[str]:
    """What a line may stand for, as it is first."""
    yield line
    line = line.removesuffix("\r")
    yield line
    if line[:1] in ('"', "{"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        value = value.get("key") if isinstance(value, dict) else value
        if isinstance(value, str):
            yield value
    if "\\" in line:
        yield ESCAPE.sub(_unescape, line)


def _unescape(found: re.Match[str]) -> str:
    letter, *digits = found.groups()
    if letter is not None:
        return LETTERS[letter]
    code = int(next(one for one in digits if one is not None), 16)
    return chr(code) if code <= 0x10FFFF else found[0]
