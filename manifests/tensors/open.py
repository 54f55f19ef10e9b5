"""Files of weights, told apart by content: which tensors they hold, unread. No file's code is ever run.

The formats: safetensors_files.py, torch_files.py (with zip_archive.py, pickle_reader.py and
pickle_objects.py), flax_files.py. Nothing here needs torch before a tensor is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.tensors.flax_files import looks_like_msgpack, read_msgpack
from lvae.manifests.tensors.lazy_tensor import StoredTensor
from lvae.manifests.tensors.pickle_reader import is_pickle
from lvae.manifests.tensors.safetensors_files import MAX_HEADER_BYTES, read_safetensors
from lvae.manifests.tensors.torch_files import read_legacy, read_pickled_arrays, read_zip
from lvae.manifests.tensors.zip_archive import Archive, map_file

Stored = dict[str, StoredTensor]
Tree = Mapping[str, Any]  # of StoredTensor, plain values and further trees

SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")


def open_tensors(path: Path) -> tuple[Stored, int]:
    """A file's tensors and its size in bytes, unpacked. Told apart by content: a file's name proves nothing."""
    if not path.exists():
        raise LvaeError(path, "no such file", "Give one that exists.")
    if not path.is_file():
        raise LvaeError(path, "not a regular file", "Give a file of weights or its folder.")
    size = path.stat().st_size
    if size == 0:
        raise LvaeError(path, "the file is empty (0 bytes)", "Fetch it again.")
    with path.open("rb") as file:
        head = file.read(512)
        header_bytes = int.from_bytes(head[:8], "little")
        if _is_safetensors(head, size):
            return read_safetensors(path), size
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _open_zip(map_file(file), str(path))
        if is_pickle(head):
            return read_legacy(map_file(file), str(path)), size
    raise LvaeError(path, f"{_no_weights(head, header_bytes, size)}")


def open_tree(path: Path) -> tuple[Tree, int]:
    """A file's tensors, in nested dictionaries where it has them, and its size in bytes.

    Whatever `open_tensors` opens, a checkpoint of Flax, or a pickle of dictionaries of arrays (numpy's or JAX's).
    """
    if path.is_file():
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(16)
            if is_pickle(head):
                tree = read_pickled_arrays(map_file(file), str(path))
                if tree is not None:
                    return tree, size
            elif looks_like_msgpack(head) and not _is_safetensors(head, size):
                return read_msgpack(map_file(file), str(path)), size
    return open_tensors(path)


def _open_zip(data: memoryview, source: str, inside: bool = False) -> tuple[Stored, int]:
    """torch's own zip file, or one that a single file of torch's was packed into."""
    archive = Archive(data, source)
    names = [name for name in archive.names() if not Path(name).name.startswith(".") and "__MACOSX" not in name]
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) == 1:
        return read_zip(archive, folders[0], source), len(data)
    wanted = [name for name in names if name.endswith(SUFFIXES)]
    if folders or inside or len(wanted) != 1:
        raise LvaeError(source, "a zip file that does not hold one file of weights", "Unpack it and give that file.")
    inner = archive.unpack(wanted[0])
    source = f"{source} ({printable(wanted[0])})"
    head = bytes(inner[:512])
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(inner, source, inside=True)
    if head.startswith(b"\x80"):
        return read_legacy(inner, source), len(inner)
    if head[8:9] == b"{":
        raise LvaeError(source, "a .safetensors file within a zip file", "Unpack it and give that file.")
    raise LvaeError(source, f"{_no_weights(head, 0, len(inner))}")


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, MAX_HEADER_BYTES)


def _no_weights(head: bytes, header_bytes: int, size: int) -> str:
    """What a file is that is none of weights, and what to do."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return f"an HTML page ({size} bytes) instead of weights, so the download failed. Fetch it again."
    if text.startswith(b"version https://git-lfs"):
        return f"a pointer of git-lfs ({size} bytes) instead of the weights. Run 'git lfs pull' in its folder."
    if head[8:9] == b"{" and header_bytes > size - 8:
        return f"an incomplete download ({size} bytes, shorter than the header of {header_bytes}). Fetch it again."
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")) or (
        head[257:262] == b"ustar"
    ):
        return f"a packed archive ({size} bytes). Unpack it and give the file of weights inside."
    return (
        f"not a .safetensors file, nor one that torch.save wrote ({size} bytes). Give weights in one of these formats."
    )
