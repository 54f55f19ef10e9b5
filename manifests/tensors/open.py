"""Files of weights, told apart by content: which tensors they hold, unread. No file's code is ever run.

The formats: safetensors_files.py, torch_files.py (with zip_archive.py and pickle_reader.py), flax_files.py. Nothing
here needs torch before a tensor is read.
"""

from collections.abc import Mapping
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.tensors.flax_files import looks_like_msgpack, read_msgpack
from lvae.manifests.tensors.lazy_tensor import StoredTensor, Tree
from lvae.manifests.tensors.memory_file import map_file
from lvae.manifests.tensors.pickle_reader import is_pickle
from lvae.manifests.tensors.safetensors_files import MAX_HEADER_BYTES, read_safetensors
from lvae.manifests.tensors.torch_files import read_legacy, read_pickled_arrays, read_zip
from lvae.manifests.tensors.zip_archive import Archive

Stored = dict[str, StoredTensor]

ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")
SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")


def open_tensors(path: Path) -> tuple[Stored, int]:
    """A file's tensors below `state_dict`, or at the top, and its size in bytes, unpacked."""
    tree, size = open_tree(path)
    inner = tree.get("state_dict")
    tree = inner if isinstance(inner, Mapping) else tree
    return {name: value for name, value in tree.items() if isinstance(value, StoredTensor)}, size


def open_tree(path: Path) -> tuple[Tree, int]:
    """A file's tensors, in nested dictionaries where it has them, and its size in bytes, unpacked.

    .safetensors, what torch.save wrote, also packed in a zip, checkpoints of Flax, and pickles of numpy's or JAX's
    arrays, told apart by content: a file's name proves nothing.
    """
    if not path.exists():
        raise LvaeError(path, "no such file", "Give one that exists.")
    if not path.is_file():
        raise LvaeError(path, "not a regular file", "Give a file of weights or its folder.")
    size = path.stat().st_size
    if size == 0:
        raise LvaeError(path, "the file is empty (0 bytes)", "Fetch it again.")
    with path.open("rb") as file:
        head = file.read(512)
        if _is_safetensors(head, size):
            return read_safetensors(path), size
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _open_zip(map_file(file), str(path))
        if is_pickle(head):
            tree = read_pickled_arrays(map_file(file), str(path))
            return (read_legacy(map_file(file), str(path)) if tree is None else tree), size
        if looks_like_msgpack(head):
            return read_msgpack(map_file(file), str(path)), size
    raise _not_weights(path, head, int.from_bytes(head[:8], "little"), size)


def _open_zip(data: memoryview, source: str, inside: bool = False) -> tuple[Tree, int]:
    """torch's own zip file, or one that a single file of torch's was packed into."""
    archive = Archive(data, source)
    names = [name for name in archive.names() if not Path(name).name.startswith(".") and "__MACOSX" not in name]
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) == 1:
        return read_zip(archive, folders[0], source), len(data)
    wanted = [name for name in names if name.lower().endswith(SUFFIXES)]
    if folders or inside or len(wanted) != 1:
        raise LvaeError(source, "a zip file that does not hold one file of weights", "Unpack it and give that file.")
    inner = archive.unpack(wanted[0])
    source = f"{source} ({printable(wanted[0])})"
    head = bytes(inner[:512])
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(inner, source, inside=True)
    if is_pickle(head):
        return read_legacy(inner, source), len(inner)
    if head[8:9] == b"{":
        raise LvaeError(source, "a .safetensors file within a zip file", "Unpack it and give that file.")
    raise _not_weights(source, head, 0, len(inner))


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= min(size - 8, MAX_HEADER_BYTES)


def _not_weights(where: object, head: bytes, header_bytes: int, size: int) -> LvaeError:
    """What a file is that is none of weights, and what to do."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    what = f"not a .safetensors file, nor one that torch.save wrote ({size} bytes)"
    advice = "Give weights in one of these formats."
    if text.startswith(b"<"):
        what, advice = f"an HTML page ({size} bytes) instead of weights, so the download failed", "Fetch it again."
    elif text.startswith(b"version https://git-lfs"):
        what = f"a pointer of git-lfs ({size} bytes) instead of the weights"
        advice = "Run 'git lfs pull' in its folder."
    elif head[8:9] == b"{" and header_bytes > size - 8:
        what = f"an incomplete download ({size} bytes, shorter than the header of {header_bytes})"
        advice = "Fetch it again."
    elif head.startswith(ARCHIVES) or head[257:262] == b"ustar":
        what, advice = f"a packed archive ({size} bytes)", "Unpack it and give the file of weights inside."
    return LvaeError(where, what, advice)
