"""Files of formats that are written here without their libraries are what those write or read."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lvae.pipeline.exchange.caches.files import ZipFiles
from lvae.pipeline.exchange.pt_file import write_pt
from lvae.pipeline.exchange.safetensors_file import write_safetensors
from lvae.pipeline.exchange.stored_zip import StoredZip


@pytest.mark.slow
def test_a_zip_is_whole_by_the_standard_library(tmp_path: Path) -> None:
    with StoredZip(tmp_path / "a.zip") as archive:
        for number in range(70_000):  # more than a zip without the 64-bit extension holds
            archive.add(f"{number:06d}", str(number).encode())
        archive.finish()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive_:
        assert len(archive_.namelist()) == 70_000
        assert archive_.read("069999") == b"69999"
        assert archive_.testzip() is None


def test_a_table_in_pieces_is_a_member_like_any_other(tmp_path: Path) -> None:
    """Also where its place does not fit into 32 bits: the file has a hole."""
    with StoredZip(tmp_path / "a.zip") as archive:
        archive.add("first", b"abc")
        archive._position = archive._file.seek(5 << 30)
        archive.add_pieces("rows", (b"%d\n" % number for number in range(100)))
        archive.add("last", b"")
        archive.finish()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive_:
        assert archive_.namelist() == ["first", "rows", "last"]
        assert archive_.testzip() is None
        assert archive_.read("rows").decode().split() == [str(number) for number in range(100)]
    pieces = ZipFiles(str(tmp_path / "a.zip")).read_if_there("rows")
    assert pieces is not None and b"".join(pieces).startswith(b"0\n1\n")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_safetensors_are_those_of_the_library(tmp_path: Path, dtype: str) -> None:
    arrays = {"latents": np.ones((3, 4, 2, 2), dtype), "labels": np.arange(3), "latents_flip": np.zeros((0, 4), dtype)}
    write_safetensors(tmp_path / "ours", arrays, {"total_size": "3"})
    save_file(arrays, tmp_path / "theirs", {"total_size": "3"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_are_written_as_torch_reads_them(tmp_path: Path) -> None:
    arrays = {"mean": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1), "é": np.eye(2, 3, dtype=np.float32)}
    write_pt(tmp_path / "a.pt", arrays)
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].is_contiguous()
        np.testing.assert_array_equal(found[name].numpy(), array)
