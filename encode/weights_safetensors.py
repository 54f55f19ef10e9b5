"""Our own files of weights, in the format of safetensors."""

from typing import TYPE_CHECKING

from safetensors.torch import save
from torch import Tensor

if TYPE_CHECKING:
    from lvae.encode.autoencoder import Autoencoder


def save_safetensors(autoencoder: "Autoencoder") -> bytes:
    """The weights as a .safetensors file: canonical names, float32, sorted; equal weights give equal bytes."""
    return save_state(autoencoder.state_for_storage())


def save_state(state: dict[str, Tensor]) -> bytes:
    """A .safetensors file of these tensors. It has one entry of metadata: the order of several is not defined."""
    return save(state, metadata={"format": "pt"})
