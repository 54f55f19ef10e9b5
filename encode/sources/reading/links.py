"""What the links inside an archive stand for, as unpacking would show it."""

import posixpath
from collections.abc import Iterable, Iterator
from typing import TypeVar

from lvae.encode.files import naming
from lvae.encode.files.left_out import LeftOut
from lvae.manifests.errors import LvaeError

MAX_LINKS_ON_THE_WAY = 40  # as of a file system
MAX_LINKED = 10_000_000  # files that links of folders may stand for

T = TypeVar("T")


def target_of_link(key: str, text: str) -> str:
    """The key to which a symbolic link leads by itself; "" where that is outside the archive."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(key), text))
    return "" if path.startswith(("/", "..")) else naming.key_of_member(path)


def resolve_links(
    path: str, targets: dict[str, str], files: Iterable[tuple[str, T]], left_out: LeftOut
) -> Iterator[tuple[str, T]]:
    """Yield the key and the file for everything that links stand for, in the order of the links.

    targets: by the key of a link, the key to which it leads. files: all regular files of the archive, by key. A link of
    a folder stands for all that lies in it. What leads nowhere, or round in circles, is counted.
    """
    ends = {key: _follow(key, targets) for key in targets}
    wanted = set(ends.values()) - {""}
    found: dict[str, T] = {}
    inside: dict[str, list[tuple[str, T]]] = {}  # the files of a folder to which a link leads, by their keys below it
    for key, file in files:
        if key in wanted:
            found[key] = file
        for folder in _folders_around(key, wanted):
            inside.setdefault(folder, []).append((key[len(folder) :], file))
    for key, end in ends.items():  # links that lie in a folder to which another link leads
        if end in found:
            for folder in _folders_around(key, wanted):
                inside.setdefault(folder, []).append((key[len(folder) :], found[end]))
    count = 0
    for key, end in ends.items():
        if end in found:
            yield key, found[end]
        elif end in inside and not f"{key}/".startswith(f"{end}/"):
            for below, file in inside[end]:
                count += 1
                if count > MAX_LINKED:
                    raise LvaeError(path, f"its links of folders stand for more than {MAX_LINKED} files")
                yield key + below, file
        else:
            left_out.add(key, naming.LINKS)


def _follow(key: str, targets: dict[str, str]) -> str:
    """The key of the file or folder at the end of all links; "" where there is none."""
    for _ in range(MAX_LINKS_ON_THE_WAY):
        parts = key.split("/")
        for count in range(1, len(parts) + 1):
            target = targets.get("/".join(parts[:count]))
            if target is not None:
                key = "/".join([target, *parts[count:]]) if target else ""
                break
        else:
            return key
    return ""


def _folders_around(key: str, wanted: set[str]) -> Iterator[str]:
    """Those folders among the wanted that a file lies in, with nothing hidden on the way from there."""
    for at in [place for place, letter in enumerate(key) if letter == "/"]:
        if key[:at] in wanted and not any(map(naming.is_hidden, key[at + 1 :].split("/"))):
            yield key[:at]
