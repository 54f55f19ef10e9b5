"""Files, tars and zips of flat pictures, and what a SOURCE says of them."""

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from lvae.encode.sources.open import open_reader
from tests.encode.source_examples import listed


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (level % 256, level // 256 % 256, 99)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, names: Iterable[str]) -> Path:
    """A file for every name; those that end like images are images."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number) if name.endswith((".png", ".jpg")) else b"text")
    return folder


def tarred(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def contents(location: object) -> dict[str, bytes]:
    source, rows = listed(location)
    reader = open_reader(source.kind, source.location)
    found = {row.key: reader.read(row) for row in rows}
    assert all(len(found[row.key]) == row.length for row in rows)
    reader.close()
    return found


def samples(first: int, count: int, classes: int = 3) -> dict[str, bytes]:
    members = {}
    for number in range(first, first + count):
        members[f"{number:04}.png"] = png(number)
        members[f"{number:04}.cls"] = str(number % classes).encode()
    return members
