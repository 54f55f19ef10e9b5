"""Files in the format of safetensors, read lazily."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.lazy_tensor import StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_BYTES = 16 << 20  # published ones stay below 1 MiB
# Rust's errors come as the first one; what Python makes of an odd header as the others.
ERRORS = (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError)


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file; mapped when read, so that none takes memory before it is used."""
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
        return {
            name: StoredTensor(tuple(file.get_slice(name).get_shape()), partial(_read, file, name, path))
            for name in sorted(file.keys())
        }
    except ERRORS as error:
        raise _damaged(path, error) from None


def _read(file: Any, name: str, path: Path) -> "Tensor":
    try:
        tensor: Tensor = file.get_tensor(name)
    except ERRORS as error:
        raise _damaged(path, error) from None
    return tensor


def _damaged(path: Path, error: Exception) -> LvaeError:
    cause = " ".join(str(error).split())[:120]
    size = path.stat().st_size
    return LvaeError(path, f"damaged or incomplete safetensors ({size} bytes: {cause})", "Fetch it again.")
