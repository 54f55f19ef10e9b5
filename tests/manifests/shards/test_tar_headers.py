"""Tars whose headers go on and on: one line, and memory for what is believed of them alone."""

import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvae.encode.files.left_out import LeftOut
from lvae.encode.sources.reading.tar_members import read_members
from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.tar_headers import LARGEST_HEADER, MOST_GLOBAL

LARGE = 4 << 20
BLOCK = tarfile.BLOCKSIZE


def pax(attributes: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, len(attributes)
    return header.tobuf(tarfile.USTAR_FORMAT) + attributes + bytes(-len(attributes) % BLOCK)


def record(name: str, value: str) -> bytes:
    """Its length counts its own digits."""
    text = f" {name}={value}\n"
    length = len(text) + 1
    while len(f"{length}{text}") != length:
        length += 1
    return f"{length}{text}".encode()


def member(name: str, size: int = 0) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.USTAR_FORMAT)


def old_map(blocks: int) -> bytes:
    """The oldest form: blocks of 21 pieces each, the next one told of by a byte."""
    header = bytearray(member("holes"))
    header[156:157], header[482] = tarfile.GNUTYPE_SPARSE, 1
    header[386:482], header[483:495] = b"00000000001\0" * 8, b"00000000000\0"
    header[257:265] = b"ustar  \0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:BLOCK])
    block = b"00000000001\0" * 42 + b"\1" + bytes(7)
    return bytes(header) + block * (blocks - 1) + block[:504] + bytes(8)


def map_in_data(fields: int, numbers: int) -> bytes:
    """Form 1.0: the map stands in front of the data, and says how long it is."""
    attributes = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
    data = f"{fields}\n".encode() + b"0000000000000000000000000000001\n" * numbers
    data += bytes(-len(data) % BLOCK)
    return pax(attributes) + member("holes", len(data)) + data


ENDLESS = {
    "0.0": lambda: pax(record("GNU.sparse.size", "1") + record("GNU.sparse.offset", "1") * (LARGE // 23)),
    "0.1": lambda: pax(record("GNU.sparse.map", ",".join(["1"] * (LARGE // 2)))),
    "old": lambda: old_map(LARGE // BLOCK),
    "1.0": lambda: map_in_data(LARGE // 4, LARGE // 32),
    "1.0 cut short": lambda: map_in_data(1 << 60, 3),  # tarfile reads on after the end, for ever
    "global": lambda: b"".join(pax(record(f"a{number}", "x"), tarfile.XGLTYPE) for number in range(MOST_GLOBAL + 1)),
    "long name": lambda: pax(b"x" * LARGE, tarfile.GNUTYPE_LONGNAME),
}


def members_of(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        yield from (one.key for one in read_members(str(path), file, LeftOut({})))


@pytest.mark.parametrize("form", ENDLESS)
def test_headers_without_an_end_are_one_line(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(ENDLESS[form]() + member("a.png") + bytes(2 * BLOCK))
    tracemalloc.start()
    with pytest.raises(LvaeError, match=r"a\.tar: damaged or truncated at byte \d+ \(") as caught:
        list(members_of(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 16 * LARGEST_HEADER


def test_members_with_holes_as_tar_writes_them_cost_only_themselves(tmp_path: Path) -> None:
    """An image before and one behind each is found."""
    forms = [
        old_map(3),
        map_in_data(2, 4),
        pax(record("GNU.sparse.size", "1") + record("GNU.sparse.offset", "0") + record("GNU.sparse.numbytes", "0"))
        + member("holes"),
        pax(record("GNU.sparse.map", "0,0,1,0")) + member("holes"),
    ]
    for number, form in enumerate(forms):
        path, left_out = tmp_path / f"{number}.tar", dict[str, int]()
        path.write_bytes(member("a.png") + form + member("b.png") + bytes(2 * BLOCK))
        with path.open("rb") as file:
            assert [one.key for one in read_members(str(path), file, LeftOut(left_out))] == ["a.png", "b.png"], number
        assert sum(left_out.values()) == 1
    attributes = tarfile.TarInfo("c.png")
    attributes.pax_headers = {"SCHILY.xattr.user.note": "x" * 65536, "path": "d/" * 2000 + "c.png"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(attributes)
    (tmp_path / "long.tar").write_bytes(buffer.getvalue())
    assert list(members_of(tmp_path / "long.tar")) == ["d/" * 2000 + "c.png"]
