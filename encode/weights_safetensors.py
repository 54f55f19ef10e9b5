"""Files in the format of safetensors: another program's, read lazily, and our own."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lvae.encode.weights_stored import StoredTensor
from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from lvae.encode.autoencoder import Autoencoder

MAX_HEADER_BYTES = 16 << 20  # published ones stay below 1 MiB
# Rust's errors come as the first one; what Python makes of an odd header as the others.
ERRORS = (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError)


def save_safetensors(autoencoder: "Autoencoder") -> bytes:
    """The weights as a .safetensors file: canonical names, float32, sorted; equal weights give equal bytes."""
    return save_state(autoencoder.state_for_storage())


def save_state(state: dict[str, Tensor]) -> bytes:
    """A .safetensors file of these tensors. It has one entry of metadata: the order of several is not defined."""
    return save(state, metadata={"format": "pt"})


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


def _read(file: Any, name: str, path: Path) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)
    except ERRORS as error:
        raise _damaged(path, error) from None
    return tensor


def _damaged(path: Path, error: Exception) -> LvaeError:
    cause = " ".join(str(error).split())[:120]
    size = path.stat().st_size
    return LvaeError(f"{path}: damaged or incomplete safetensors ({size} bytes: {cause}). Fetch it again.")
