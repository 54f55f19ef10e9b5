"""Headers of tars of strangers: tarfile takes memory for what they claim, several times over."""

import tarfile
from typing import IO

LARGEST_HEADER = 1 << 20  # bytes of a long name, of a member's extended attributes, or of the map of its holes
MOST_GLOBAL = 1000  # attributes of all members that follow
EXTENDED = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.GNUTYPE_SPARSE,
    }
)


class BoundedHeader(tarfile.TarInfo):
    """A header that is not read where it is larger than any that was meant."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """Called by tarfile for every header, for subclasses to look at it first."""
        if self.type not in EXTENDED:
            return super()._proc_member(tarfile_)  # type: ignore[misc,no-any-return]
        if self.type != tarfile.GNUTYPE_SPARSE and self.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes, more than {LARGEST_HEADER >> 20} MiB")
        file = tarfile_.fileobj
        tarfile_.fileobj = _Limited(file)  # type: ignore[assignment,arg-type]
        try:
            found: tarfile.TarInfo = super()._proc_member(tarfile_)  # type: ignore[misc]
        finally:
            tarfile_.fileobj = file
        if len(tarfile_.pax_headers) > MOST_GLOBAL:
            raise tarfile.ReadError(f"more than {MOST_GLOBAL} attributes of all members")
        return found


class _Limited:
    """The file of a tar while one header is read, whose pieces may go on without an end: after the file's, too."""

    def __init__(self, file: IO[bytes]):
        self._file, self._left = file, LARGEST_HEADER + 2 * tarfile.BLOCKSIZE
        self.tell, self.seek = file.tell, file.seek

    def read(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise tarfile.ReadError(f"a header of more than {LARGEST_HEADER >> 20} MiB")
        return self._file.read(count)
