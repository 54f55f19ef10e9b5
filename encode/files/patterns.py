"""Names with braces and wildcards: train-{0000..0146}.tar, train-*.tar, {a,b}/x.tar.

In a URL, * stands in the last component alone, and ? and [ stand for themselves.
"""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lvae.encode.files import locations
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.retry import raise_outage

MAX_FILES = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(source: str) -> bool:
    if locations.is_url(source):
        return any(character in source for character in "*{")
    return any(character in source for character in "*?[{") and not os.path.lexists(source)


def base_of(location: str) -> str:
    """The folder to which the tars of a location are relative: a folder itself, a pattern's plain part, or a parent."""
    if locations.is_url(location):
        plain = re.split(r"[*{]", location, maxsplit=1)[0]
        if plain != location:
            return plain.rpartition("/")[0] + "/"
        return location if location.endswith("/") else locations.parent_of(location)
    if is_pattern(location):
        return os.path.split(re.split(r"[*?\[{]", location, maxsplit=1)[0])[0] or "."
    return location if Path(location).is_dir() else str(Path(location).absolute().parent)


def expand(pattern: str) -> list[str]:
    """The files that a pattern names, relative to its `base_of`.

    Braces name files, each of which has to be there; wildcards find files, sorted by name (by Unicode code point).
    """
    found: list[str] = []
    for name in _braces(pattern):
        if locations.is_url(name):
            found += _behind_url(name, pattern)
        elif glob.has_magic(name):
            found += sorted(glob.glob(name))  # noqa: PTH207  Path.glob takes no absolute pattern
        elif Path(name).exists():
            found.append(name)
        else:
            raise LvaeError(name, f"no such file, but {pattern} asks for it")
        if len(found) > MAX_FILES:
            raise LvaeError(pattern, f"stands for more than {MAX_FILES} files")
    if not found:
        raise LvaeError(pattern, "no file has such a name")
    base = base_of(pattern)
    relative = [_relative(name, base) for name in found]
    if len(set(relative)) != len(relative):
        again = next(name for number, name in enumerate(relative) if name in relative[:number])
        raise LvaeError(pattern, f"names {again} twice")
    return relative


def _behind_url(name: str, pattern: str) -> list[str]:
    try:
        if "*" not in name:
            if not locations.exists(name):
                raise LvaeError(name, f"no such file, but {pattern} asks for it")
            return [name]
        folder, _, wanted = name.rpartition("/")
        if "*" in folder:
            raise LvaeError(pattern, "in a URL, * stands in the last component alone")
        matches = re.compile(re.escape(locations.plain(name, wanted)).replace(r"\*", ".*"), re.DOTALL).fullmatch
        return [locations.join(folder, entry) for entry in locations.names_in(f"{folder}/") if matches(entry)]
    except OSError as error:
        raise_outage(error)
        raise LvaeError(name, f"cannot be read ({locations.explain(error)})") from error


def _relative(name: str, base: str) -> str:
    if locations.is_url(name):
        return locations.plain(name, name.removeprefix(base))
    return os.path.relpath(name, base).replace(os.sep, "/")


def _braces(pattern: str) -> Iterator[str]:
    match = BRACES.search(pattern)
    if match is None:
        if "{" in pattern or "}" in pattern:
            raise LvaeError(pattern, "braces that do not close", "Write train-{0000..0146}.tar or {a,b}.tar.")
        yield pattern
        return
    for choice in _choices(match[1], pattern):
        yield from _braces(pattern[: match.start()] + choice + pattern[match.end() :])


def _choices(inside: str, pattern: str) -> list[str]:
    if numbers := RANGE.fullmatch(inside):
        first, last = int(numbers[1]), int(numbers[2])
        if not first <= last < first + MAX_FILES:
            raise LvaeError(pattern, f"{{{inside}}} has to count upwards, to at most {MAX_FILES} files")
        width = len(numbers[1]) if numbers[1].startswith("0") or len(numbers[1]) == len(numbers[2]) else 1
        return [f"{number:0{width}}" for number in range(first, last + 1)]
    if "," not in inside:
        raise LvaeError(pattern, f"{{{inside}}} is neither a range like {{0000..0146}} nor a list like {{a,b}}")
    return inside.split(",")
