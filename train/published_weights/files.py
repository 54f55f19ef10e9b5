"""What a published file holds of the VAE: which weights, under which names, from which step. Nothing is read yet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.tensors.lazy_tensor import StoredTensor
from lvae.manifests.tensors.open import open_tree
from lvae.train.published_weights.flax_names import torch_names

VAE, AUTOENCODER = "vae.", "dae."
VECTORS = ".singular_vectors"
MAX_DEPTH = 16

Stored = dict[str, StoredTensor]


@dataclass(frozen=True)
class PublishedFile:
    """The VAE's tensors under the torch files' names.

    ema, raw: the averaged weights and the last ones; None where the file has no such. Torch files say nothing of what
    they hold: theirs count as averaged. step: of the training, where the file says so. autoencoder: whether a first
    stage lies beside. size: bytes of the file, which what is read must be in proportion to.
    """

    layout: Literal["torch", "flax"]
    ema: Stored | None
    raw: Stored | None
    step: int | None
    autoencoder: bool
    size: int

    @property
    def preferred(self) -> Stored:
        found = self.ema if self.ema is not None else self.raw
        assert found is not None
        return found

    @property
    def about(self) -> str:
        """Which weights the preferred ones are, in words."""
        if self.layout == "torch":
            return "weights of a torch file, which are presumably averaged (EMA)"
        return "averaged weights (EMA)" if self.ema is not None else "weights of the last update: there is no average"


def open_published(source: str | Path | Mapping[str, Any]) -> PublishedFile:
    """A file, a torch state dict, or a Flax tree of arrays. LvaeError where it holds nothing that could be a VAE."""
    if isinstance(source, Mapping):
        where, size = "these weights", 1 << 62
        tree: Mapping[str, Any] = _make_tree(source, 0)
    else:
        where = str(source)
        try:
            tree, size = open_tree(Path(source))
        except OSError as error:
            raise LvaeError(where, f"cannot be read ({error.strerror or error})") from None
    inner = tree.get("state_dict")
    if isinstance(inner, Mapping):
        tree = inner
    of_torch = any(isinstance(value, StoredTensor) and "." in name for name, value in tree.items())
    if not of_torch and any(isinstance(value, Mapping) for value in tree.values()):
        return _open_flax(tree, size, where)
    return _open_torch(tree, size, where)


def _open_torch(tree: Mapping[str, Any], size: int, where: str) -> PublishedFile:
    """The VAE's tensors below `vae.`, or at the top; the vectors may be named by the convolution inside, too."""
    prefix = VAE if any(name.startswith(VAE) for name in tree) else ""
    state: Stored = {}
    for name, tensor in tree.items():
        if isinstance(tensor, StoredTensor) and name.startswith(prefix):
            state[name.removeprefix(prefix).replace(f".conv{VECTORS}", VECTORS)] = tensor
    if tree and not state:
        name, value = next(iter(tree.items()))
        problem = f"{printable(name)!r} is a {type(value).__name__}, not a tensor"
        raise LvaeError(where, problem, "Give a state dict.")
    beside = any(name.startswith(AUTOENCODER) for name in tree)
    return PublishedFile("torch", state, None, None, beside, size)


def _open_flax(tree: Mapping[str, Any], size: int, where: str) -> PublishedFile:
    vectors = tree.get("singular_vectors")
    ema, raw = (_find_weights(tree.get(name), vectors) for name in ("ema_params", "params"))
    if ema is None and raw is None:
        raw = _find_weights(tree, None)
    if raw is None and ema is None:
        keys = ", ".join(printable(str(name)) for name in list(tree)[:6])
        raise LvaeError(where, f"has neither ema_params nor params ({keys})", "Give a state of the published trainer.")
    step = _read_step(tree.get("step"))
    return PublishedFile("flax", ema, raw, step, False, size)


def _find_weights(tree: object, vectors: object) -> Stored | None:
    """A tree of parameters under torch's names, with the vectors of the power iteration where they are there."""
    if not isinstance(tree, Mapping):
        return None
    inner = tree.get("params")
    if isinstance(inner, Mapping) and "outproj" not in tree:
        tree = inner
    if "outproj" not in tree:
        return None
    flat = dict(_walk_tensors(tree, "", 0))
    if isinstance(vectors, Mapping):
        flat |= {name: tensor for name, tensor in _walk_tensors(vectors, "", 0) if name.endswith("/sn_u")}
    return torch_names(flat)


def _walk_tensors(tree: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, StoredTensor]]:
    for name, value in tree.items():
        if isinstance(value, StoredTensor):
            yield f"{path}{name}", value
        elif isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _walk_tensors(value, f"{path}{name}/", depth + 1)


def _read_step(value: object) -> int | None:
    if isinstance(value, StoredTensor) and value.shape == ():
        tensor = value.read()
        value = int(tensor) if not tensor.is_floating_point() else None
    return value if type(value) is int and 0 <= value < 1 << 40 else None


def _make_tree(source: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    """Tensors and arrays in memory, as if they lay in a file."""
    result: dict[str, Any] = {}
    for name, value in source.items():
        if isinstance(value, Mapping):
            result[str(name)] = _make_tree(value, depth + 1) if depth < MAX_DEPTH else None
        elif isinstance(value, Tensor):
            result[str(name)] = StoredTensor(tuple(value.shape), lambda value=value: value)  # type: ignore[misc]
        elif hasattr(value, "__array__") and hasattr(value, "shape"):
            result[str(name)] = StoredTensor(tuple(value.shape), lambda value=value: _make_tensor(value))  # type: ignore[misc]
        else:
            result[str(name)] = value
    return result


def _make_tensor(value: Any) -> Tensor:
    """numpy's or JAX's; bfloat16, which numpy has not, through float32."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(array).copy())
