"""An LMDB whose values are pictures, as LSUN is published: read in place, as a file, without the lmdb library.

The library maps the file and trusts it: a truncated or damaged one ends the process. Here every number is checked, so
that it is an error in one line; and the bytes are read like those of a tar, from any thread, over URLs, too.

Order: by key. A value may be anything whose key has no other file's extension: LSUN's keys are hashes. Small values
without an extension (counters, lists of keys) are looked into. There are no classes: LSUN has one LMDB for each.
"""

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut, no_images
from lvae.encode.images import is_image
from lvae.encode.sources.base import Notes
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import raise_outage

DATA = "data.mdb"
MAGIC = b"\xde\xc0\xef\xbe"
MAGIC_AT = 16
PAGE_HEADER = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper (mdb.c, MDB_page)
OVERFLOW_PAGES = struct.Struct("<I")  # in place of lower and upper
META = struct.Struct(
    "<IIQQ 48s IHH5Q QQ"
)  # magic, version, address, map size, free list, the main tree, last page, txn
NODE = struct.Struct("<HHHH")  # size or page number, its high half, flags, size of the key
BRANCH, LEAF, OVERFLOW = 0x01, 0x02, 0x04
OTHER_ORDER = 0x02 | 0x08  # MDB_REVERSEKEY, MDB_INTEGERKEY
BIG_DATA, SUB_DATA, DUPLICATES = 0x01, 0x02, 0x04
NO_PAGE = (1 << 64) - 1
MAX_DEPTH = 32
HEX = "hex:"


class Tree(NamedTuple):
    """What the newest of the two meta pages says."""

    page_bytes: int
    root: int
    last_page: int
    transaction: int


class Value(NamedTuple):
    key: bytes
    offset: int
    length: int
    in_tree: bool  # it lies in a page of the tree, not in pages of its own


class LmdbSource(Notes):
    """See the module."""

    kind = "lmdb"
    classes = None

    def __init__(self, location: str):
        """A folder with a data.mdb, or such a file."""
        super().__init__()
        location = locations.resolve(location)
        inside = locations.is_folder(location)
        self.location = locations.join(location, DATA) if inside else location

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        container, images, left_out = locations.name_of(self.location), 0, LeftOut(self.counts)
        try:
            found = locations.status(self.location)
            self.seen.add(container, found.size, found.stamp)
            with locations.open_file(self.location) as file:
                for value in values(file, self.location):
                    name = readable(value.key)
                    if not self._is_image(value, name, file):
                        self.count(naming.NOT_IMAGES)
                        continue
                    images += 1
                    naming.count_unlabelled(self.counts, UNLABELLED)
                    yield ImageRow(name, container, value.offset, value.length, name, UNLABELLED)
        except OSError as error:
            raise_outage(error)
            raise LvaeError(self.location, f"cannot be read ({locations.explain(error)})") from error
        if not images:
            raise no_images(self.location, self.counts)
        if container == DATA:
            self.account_for_rest(locations.parent_of(self.location), [DATA, "lock.mdb"], left_out)
            left_out.warn(self)

    def _is_image(self, value: Value, name: str, file: IO[bytes]) -> bool:
        by_name = naming.is_image_name(name)
        if by_name is None and (value.in_tree or "." in name):
            file.seek(value.offset)
            return is_image(file.read(min(value.length, naming.MAGIC_BYTES)))
        return by_name is not False


def readable(key: bytes) -> str:
    """A key as text where it is printable, else in hexadecimal; no two keys come out alike."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text and not text.startswith(HEX) else HEX + key.hex()


def values(file: IO[bytes], path: str) -> Iterator[Value]:
    """Every value of the main tree, by key. Raises LvaeError where the file is not a whole LMDB."""
    tree = _newest(file, path)
    size = locations.size_of(file)
    if size < (tree.last_page + 1) * tree.page_bytes and tree.root != NO_PAGE:
        raise LvaeError(path, f"truncated: {size} bytes are fewer than its {tree.last_page + 1} pages take")
    if tree.root != NO_PAGE:
        pages = _Pages(file, path, tree, size)
        previous: bytes | None = None
        for value in pages.values(tree.root, 0):
            if previous is not None and value.key <= previous:
                raise LvaeError(path, f"damaged: its keys are out of order at {value.key!r:.60}")
            previous = value.key
            yield value


def _newest(file: IO[bytes], path: str) -> Tree:
    file.seek(0)
    first = _meta(file.read(PAGE_HEADER.size + META.size), path)
    if first is None:
        raise LvaeError(path, "not an LMDB of the usual kind (version 1, 64 bits, little-endian)")
    file.seek(first.page_bytes)
    second = _meta(file.read(PAGE_HEADER.size + META.size), path)
    return second if second is not None and second.transaction > first.transaction else first


def _meta(data: bytes, path: str) -> Tree | None:
    if len(data) < PAGE_HEADER.size + META.size or data[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
        return None
    _, version, _, _, free, _, flags, _, _, _, _, _, root, last_page, transaction = META.unpack_from(data, MAGIC_AT)
    (page_bytes,) = struct.unpack_from("<I", free)
    if version != 1 or page_bytes not in (1 << power for power in range(8, 17)):
        return None
    if flags & (DUPLICATES | OTHER_ORDER):
        raise LvaeError(path, "its keys have several values, or an order of their own; LSUN's have not")
    return Tree(page_bytes, root, last_page, transaction)


class _Pages:
    """Walks the tree; every page is entered at most once, so a loop is found."""

    def __init__(self, file: IO[bytes], path: str, tree: Tree, size: int):
        self._file, self._path, self._tree = file, path, tree
        self._pages = min(size // tree.page_bytes, tree.last_page + 1)
        self._left = self._pages

    def values(self, number: int, depth: int) -> Iterator[Value]:
        page, flags, slots = self._page(number, depth)
        for slot in slots:
            if slot + NODE.size > len(page):
                raise self._damaged(number)
            low, high, node_flags, key_bytes = NODE.unpack_from(page, slot)
            begin = slot + NODE.size
            if begin + key_bytes > len(page):
                raise self._damaged(number)
            if flags & BRANCH:
                yield from self.values(low | high << 16 | node_flags << 32, depth + 1)
                continue
            if node_flags & SUB_DATA:
                raise LvaeError(self._path, "has databases inside, which pictures do not need")
            key, length = page[begin : begin + key_bytes], low | high << 16
            if not key:
                raise self._damaged(number)
            yield self._value(page, number, key, begin + key_bytes, length, big=bool(node_flags & BIG_DATA))

    def _page(self, number: int, depth: int) -> tuple[bytes, int, list[int]]:
        """A page of the tree, its flags, and where its nodes begin."""
        self._left -= 1
        if not 2 <= number < self._pages or depth > MAX_DEPTH or self._left < 0:
            raise self._damaged(number)
        self._file.seek(number * self._tree.page_bytes)
        page = self._file.read(self._tree.page_bytes)
        if len(page) < self._tree.page_bytes:
            raise LvaeError(self._path, f"truncated at page {number}")
        own, _, flags, lower, _ = PAGE_HEADER.unpack_from(page)
        if own != number or flags & (BRANCH | LEAF) not in (BRANCH, LEAF) or not PAGE_HEADER.size <= lower <= len(page):
            raise self._damaged(number)
        count = (lower - PAGE_HEADER.size) // 2
        return page, flags, list(struct.unpack_from(f"<{count}H", page, PAGE_HEADER.size))

    def _value(self, page: bytes, number: int, key: bytes, at: int, length: int, big: bool) -> Value:
        if not big:
            if at + length > len(page):
                raise self._damaged(number)
            return Value(key, number * self._tree.page_bytes + at, length, True)
        if at + 8 > len(page):
            raise self._damaged(number)
        (first,) = struct.unpack_from("<Q", page, at)
        pages = -(-(PAGE_HEADER.size + length) // self._tree.page_bytes)
        if not 2 <= first <= self._pages - pages:
            raise self._damaged(number)
        return Value(key, first * self._tree.page_bytes + PAGE_HEADER.size, length, False)

    def _damaged(self, number: int) -> LvaeError:
        return LvaeError(self._path, f"damaged at page {number}")
