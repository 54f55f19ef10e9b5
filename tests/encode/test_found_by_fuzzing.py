"""What fuzz.py found once, in the smallest form that shows it."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lvae.encode.images import ImageRejected
from lvae.encode.sources.base import read_bytes
from lvae.encode.sources.open import open_reader
from lvae.manifests.errors import LvaeError
from tests.encode.source_examples import listed, png, refused


def with_late_directory(data: bytes) -> bytes:
    """A zip that says that its directory begins ten bytes later: its first member begins at byte -10, then."""
    end = data.rindex(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<I", data, end + 16)
    return data[: end + 16] + struct.pack("<I", offset + 10) + data[end + 20 :]


def test_what_libraries_say_of_damaged_files_is_printable_and_short(tmp_path: Path) -> None:
    assert str(LvaeError("", "a\x0e\n\udce9b")) == r"a\x0e\n\udce9b."
    assert len(str(LvaeError("", "a" * 100_000))) == 1000
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [png()]}), path)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:footer] + b"\x0e" * 4 + data[footer + 4 :])
    assert refused(path).isprintable()


@pytest.mark.parametrize("name", ["a.npz", "a.zip"])
def test_a_directory_that_points_before_the_file_is_damage_and_no_outage(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.npz":
        np.savez_compressed(path, np.zeros((3, 4, 4, 3), np.uint8))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", png())
    source, rows = listed(path)
    damaged = with_late_directory(path.read_bytes())
    assert zipfile.ZipFile(io.BytesIO(damaged)).infolist()[0].header_offset < 0
    path.write_bytes(damaged)
    refused(path)
    reader = open_reader(source.kind, source.location)
    with pytest.raises((ImageRejected, LvaeError)):
        read_bytes(rows[0], reader)
    reader.close()
