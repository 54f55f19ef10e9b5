"""The members of a tar: where each regular file's bytes lie, and what stands for another one.

A tar is read forwards, a header at a time. What cannot be understood is an error that names file and offset, so that a
damaged or truncated tar never turns into a smaller dataset. Links, hard or symbolic, give what unpacking would give:
they come last, after a second reading of the headers, which only a tar with links costs.
"""

import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut
from lvae.encode.images import is_image
from lvae.encode.sources.reading.links import resolve_links, target_of_link
from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.tar_headers import BoundedHeader
from lvae.manifests.storage.retry import raise_outage

BLOCK = tarfile.BLOCKSIZE
READ_AHEAD = 8 << 20  # of a tar behind a URL

DAMAGE = (tarfile.TarError, ValueError, OverflowError, MemoryError, EOFError, RecursionError, IndexError, KeyError)
COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\x04\x22\x4d\x18": "unlz4",
}


class Member(NamedTuple):
    """A regular file in a tar: its name there, its name to people, and where its bytes lie."""

    name: str
    key: str
    offset: int
    length: int


class Header(BoundedHeader):
    """A header read as what it says it is: only POSIX ones keep the beginning of a long path behind byte 345."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        header = super().frombuf(buf, encoding, errors)
        if bytes(buf[257:263]) != b"ustar\0":  # GNU tar keeps times there, older ones nothing
            name = bytes(buf[:100]).partition(b"\0")[0].decode(encoding, errors)
            header.name = name.rstrip("/") if header.isdir() else name
        return header


def open_tar(path: str, name: str, seen: locations.Seen | None) -> IO[bytes]:
    """A tar to read forwards. One behind a URL is read right through: a request for each header would take longer."""
    try:
        if seen is not None:
            found = locations.status(path)
            seen.add(name, found.size, found.stamp)
        return locations.open_file(path, READ_AHEAD)
    except OSError as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read ({locations.explain(error)})") from error


def read_members(path: str, file: IO[bytes], left_out: LeftOut) -> Iterator[Member]:
    """The regular files of a tar, then what links stand for; the rest is counted.

    Raises LvaeError for what is not a whole tar, and for an image that stands twice.
    """
    met: set[int] = set()  # hashes, since a tar may hold millions of names
    links: dict[str, str] = {}
    for header in read_headers(path, file):
        key = naming.key_of_member(naming.readable(header.name))
        odd = _why_not(header, key)
        if odd is not None:
            left_out.add(key, odd)
        elif header.issym() or header.islnk():
            text = naming.readable(header.linkname)
            links[key] = naming.key_of_member(text) if header.islnk() else target_of_link(key, text)
        elif not header.isdir():
            _check_new(key, met, path, header.offset)
            yield Member(header.name, key, header.offset_data, header.size)
    if links:
        for key, member in resolve_links(path, links, _read_targets(path, file), left_out):
            _check_new(key, met, path, member.offset)
            yield member._replace(key=key)


def _check_new(key: str, met: set[int], path: str, offset: int) -> None:
    if naming.is_image_name(key) is not False:
        if hash(key) in met:
            raise LvaeError(path, f"{key!r} stands twice, again at byte {offset}", "Names must be unique.")
        met.add(hash(key))


def is_image_member(member: Member, file: IO[bytes], left_out: LeftOut) -> bool:
    by_name = naming.is_image_name(member.key)
    if by_name is None:
        file.seek(member.offset)
        by_name = is_image(file.read(min(member.length, naming.MAGIC_BYTES)))
    if not by_name:
        left_out.add(member.key)
    return by_name


def refuse_compressed(path: str, first_bytes: bytes) -> None:
    """Bytes inside a compressed tar cannot be read in place."""
    for magic, command in COMPRESSED.items():
        if first_bytes.startswith(magic):
            raise LvaeError(
                path,
                "is compressed, and images are read in place",
                f"Run '{command}' on it, or unpack it to a folder.",
            )


def read_headers(path: str, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Every header of a tar, in order, checked to leave no gap up to the closing block."""
    size = locations.size_of(file)
    file.seek(0)
    refuse_compressed(path, file.read(6))
    file.seek(0)
    offset = 0
    try:
        archive = tarfile.open(  # noqa: SIM115  the file is the caller's
            fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape", tarinfo=Header
        )
        while (header := archive.next()) is not None:
            if header.size < 0 or archive.offset <= offset or header.offset_data < 0:
                raise LvaeError(path, f"damaged at byte {offset} (a size that makes no sense)")
            if header.isreg() and not header.issparse() and header.offset_data + header.size > size:
                raise LvaeError(path, f"truncated: {header.name!r} at byte {offset} goes on after the end of the file")
            offset = archive.offset
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            yield header
        _check_end(path, file, offset)
    except DAMAGE as error:
        raise LvaeError(path, f"damaged or truncated at byte {offset} ({error})") from error
    except OSError as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read at byte {offset} ({locations.explain(error)})") from error


def _check_end(path: str, file: IO[bytes], offset: int) -> None:
    """tarfile takes any block that it does not understand for the end. The end is zeros, and nothing follows."""
    file.seek(offset)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise LvaeError(path, f"truncated at byte {offset}: the closing block is missing")
    if any(block):
        raise LvaeError(path, f"damaged at byte {offset}: neither a member nor the closing block")
    while block := file.read(1 << 16):
        if any(block):
            raise LvaeError(path, f"goes on after its end at byte {offset}; were several tars joined by cat?")


def _why_not(header: tarfile.TarInfo, key: str) -> str | None:
    """Under what a member is counted that is no row; None for regular files, folders and links."""
    if header.isdir():
        return None
    if any(map(naming.is_hidden, key.split("/"))):
        return naming.HIDDEN
    if header.issym() or header.islnk():
        return None
    return naming.SPECIAL if not header.isreg() or header.issparse() or not key else None


def _read_targets(path: str, file: IO[bytes]) -> Iterator[tuple[str, Member]]:
    """Every regular file by its key, hidden ones too: stores to which links lead often are."""
    for header in read_headers(path, file):
        key = naming.key_of_member(naming.readable(header.name))
        if key and header.isreg() and not header.issparse():
            yield key, Member(header.name, key, header.offset_data, header.size)
