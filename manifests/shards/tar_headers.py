"""Headers of tars of strangers: tarfile takes memory for what they claim, several times over."""

import tarfile

LARGEST_HEADER = 8 << 20  # bytes of a long name or of a member's extended attributes
EXTENDED = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


class BoundedHeader(tarfile.TarInfo):
    """A header that is not read where it is larger than any that was meant."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        """Called by tarfile for every header, for subclasses to look at it first."""
        if self.type in EXTENDED and self.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size >> 20} MiB")
        found: tarfile.TarInfo = super()._proc_member(tarfile_)  # type: ignore[misc]
        return found
