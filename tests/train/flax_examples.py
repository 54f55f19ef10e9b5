"""Published Flax states, made from models of ours: the facts' table of names read backwards, and files written by hand.

Neither Flax nor JAX nor msgpack is there: msgpack is packed here, and pickles name JAX's functions from stand-ins.
"""

import io
import pickle
import re
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.train.model import HierarchicalVAE

Array = NDArray[Any]
Tree = dict[str, Any]


def flax_trees(model: HierarchicalVAE, wide_kernels: bool = False) -> tuple[Tree, Tree]:
    """(params, singular_vectors) of a model. wide_kernels: blocks without FFN have 3x3 at 1x1, as in the JAX code."""
    params: Tree = {}
    vectors: Tree = {}
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "singular_vectors":
            _put(vectors, f"{_path(module, state)}/sn_u", value)
            continue
        if name == "initial_x":
            _put(params, name, value.transpose(0, 2, 3, 1))
        elif name == "embed.weight":
            _put(params, "embed/embedding", value)
        elif leaf == "bias":
            _put(params, f"{_path(module, state)}/bias", value)
        elif value.ndim == 2:
            _put(params, f"{_path(module, state)}/kernel", value.T)
        else:
            if wide_kernels and _is_last_without_ffn(module, state) and value.shape[2] == 1:
                padded = np.full((*value.shape[:2], 3, 3), 0.5, value.dtype)  # what stands around meets padding only
                padded[:, :, 1, 1] = value[:, :, 0, 0]
                value = padded
            _put(params, f"{_path(module, state)}/kernel", value.transpose(2, 3, 1, 0))
    return params, vectors


def _is_last_without_ffn(module: str, state: dict[str, Array]) -> bool:
    block = re.sub(r"\.conv2(\.conv)?$", "", module)
    return block != module and f"{block}.dense1.weight" not in state


def _path(module: str, state: dict[str, Array]) -> str:
    if module in ("outproj", "inproj"):
        return module
    if module == "encoder.in_proj":
        return "encoder/Conv_0"
    path = re.sub(r"encoder\.encoder_levels\.(\d+)", r"encoder/EncoderLevel_\1", module)
    path = re.sub(r"(EncoderLevel_\d+)\.layer_list\.(\d+)", r"\1/layer_list_\2", path)
    path = re.sub(r"^layer_list\.(\d+)\.layer_list\.(\d+)", r"layer_list_\1/layer_list_\2", path)
    place, _, rest = path.partition(".")
    part, _, layer = rest.partition("_block.")
    if layer:
        place, rest = f"{place}/{part}_block", layer
    if rest in ("actsproj", "zproj"):
        return f"{place}/{rest}"
    if rest.endswith(".conv"):
        return f"{place}/ConvSR_0/Conv_0"
    block = "prior_block" in place or "posterior_block" in place
    if block and f"{module}.conv.weight" in state:  # the regularized wrapper itself, which holds the vector
        return f"{place}/ConvSR_0"
    names = {"conv1": "Conv_0", "conv2": "Conv_1", "dense1": "Conv_2", "dense2": "Conv_3", "classproj": "Dense_0"}
    names |= {"conv_layer": "Conv_0", "qkvproj": "Dense_0", "qproj": "Dense_0", "outproj": "Dense_1"}
    return f"{place}/{names[rest]}"


def _put(tree: Tree, path: str, value: Array) -> None:
    *branches, leaf = path.split("/")
    for branch in branches:
        tree = tree.setdefault(branch, {})
    assert leaf not in tree
    tree[leaf] = value


# --- msgpack, as Flax writes it --------------------------------------------------------------------------------------


def packed(value: Any, chunk_bytes: int = 1 << 30) -> bytes:
    """Flax's serialization of a state. chunk_bytes: above it an array is cut into chunks (1 GiB in Flax)."""
    out = io.BytesIO()
    _pack(value, out, chunk_bytes)
    return out.getvalue()


def _pack(value: Any, out: io.BytesIO, chunk_bytes: int) -> None:
    match value:
        case None:
            out.write(b"\xc0")
        case bool():
            out.write(b"\xc3" if value else b"\xc2")
        case int():
            out.write(struct.pack(">Bq", 0xD3, value) if not 0 <= value < 128 else bytes([value]))
        case float():
            out.write(struct.pack(">Bd", 0xCB, value))
        case str():
            text = value.encode()
            out.write(bytes([0xA0 | len(text)]) if len(text) < 32 else struct.pack(">BH", 0xDA, len(text)))
            out.write(text)
        case bytes():
            out.write(struct.pack(">BI", 0xC6, len(value)) + value)
        case dict():
            out.write(bytes([0x80 | len(value)]) if len(value) < 16 else struct.pack(">BH", 0xDE, len(value)))
            for key, item in value.items():
                _pack(key, out, chunk_bytes)
                _pack(item, out, chunk_bytes)
        case tuple() | list():
            out.write(bytes([0x90 | len(value)]))
            for item in value:
                _pack(item, out, chunk_bytes)
        case np.ndarray() if value.nbytes > chunk_bytes:
            size = max(1, chunk_bytes // value.itemsize)
            flat = value.reshape(-1)
            chunks = {str(i): flat[start : start + size] for i, start in enumerate(range(0, flat.size, size))}
            shape = {str(i): side for i, side in enumerate(value.shape)}
            _pack({"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}, out, chunk_bytes)
        case np.ndarray() | np.generic():
            inner = packed([list(value.shape), value.dtype.name, value.tobytes()])
            out.write(struct.pack(">BIb", 0xC9, len(inner), 1 if isinstance(value, np.ndarray) else 3) + inner)
        case Extension():
            out.write(struct.pack(">BIb", 0xC9, len(value.content), value.kind) + value.content)
        case _:
            raise TypeError(type(value))


class Extension:
    """Bytes under a number, such as an array of a dtype that numpy has not."""

    def __init__(self, kind: int, content: bytes):
        self.kind, self.content = kind, content


def bfloat16(values: Array) -> Extension:
    """As Flax writes an array of bfloat16."""
    halves = (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2")
    return Extension(1, packed([list(values.shape), "bfloat16", halves.tobytes()]))


# --- pickles, as JAX writes them -------------------------------------------------------------------------------------


class FrozenDict(dict[str, Any]):
    """A stand-in that is pickled as Flax's."""

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)


class JaxArray:
    """A stand-in that is pickled as JAX's array: numpy's function, arguments and state, then JAX's own."""

    def __init__(self, value: Array):
        self.value = value

    def __reduce__(self) -> Any:
        function, arguments, state = self.value.__reduce__()
        return _reconstruct_array, (function, arguments, state, {"weak_type": False})


def _reconstruct_array(*_: Any) -> Any:
    raise AssertionError("reading a file must not call anything")


@contextmanager
def as_if_installed() -> Iterator[None]:
    """While pickling, the stand-ins are found where Flax and JAX have theirs."""
    places = {"flax.core.frozen_dict": (FrozenDict,), "jax._src.array": (_reconstruct_array,)}
    names = {"flax", "flax.core", "jax", "jax._src", *places}
    before = {name: sys.modules.get(name) for name in names}
    homes = {item: item.__module__ for items in places.values() for item in items}
    try:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        for name, items in places.items():
            for item in items:
                setattr(sys.modules[name], item.__name__, item)
                item.__module__ = name
        yield
    finally:
        for item, home in homes.items():
            item.__module__ = home
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def frozen(tree: Tree, jax: bool = True) -> FrozenDict:
    """A tree of Flax's dictionaries, of JAX's or numpy's arrays."""
    return FrozenDict(
        {k: frozen(v, jax) if isinstance(v, dict) else JaxArray(v) if jax else v for k, v in tree.items()}
    )


def pickled(value: Any, protocol: int = 4) -> bytes:
    with as_if_installed():
        return pickle.dumps(value, protocol)
