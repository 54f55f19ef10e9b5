"""The names and layouts of the published Flax states, as those of the torch files: both have the same tensors.

A path is `encoder/EncoderLevel_0/layer_list_1/Conv_0/kernel`. What a numbered convolution is follows from what stands
beside it: blocks, attentions and resamplings are all called layer_list_j.
"""

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from lvae.manifests.tensors.lazy_tensor import StoredTensor

BLOCK = ("conv1", "conv2", "dense1", "dense2")
ENCODER_LAYER = re.compile(r"encoder/EncoderLevel_(\d{1,4})/layer_list_(\d{1,4})")
GENERATOR_LAYER = re.compile(r"layer_list_(\d{1,4})/layer_list_(\d{1,4})")
GROUP_PART = re.compile(r"(layer_list_\d{1,4}/layer_list_\d{1,4})/((?:prior|posterior|shared)_block|actsproj|zproj)")
WHOLE = {"encoder/Conv_0": "encoder.in_proj", "outproj": "outproj", "inproj": "inproj", "embed": "embed"}
VECTOR = "sn_u"


def torch_names(tree: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """By path -> by the torch files' names, laid out as they are there. What has no place keeps its path with dots."""
    children: dict[str, set[str]] = {}
    for path in tree:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            children.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    shapes = {path: tensor.shape for path, tensor in tree.items()}
    found: dict[str, StoredTensor] = {}
    for path, tensor in tree.items():
        module, _, leaf = path.rpartition("/")
        name = _module(module, children, shapes)
        if path == "initial_x":
            found[path] = _permute(tensor, (0, 3, 1, 2))
        elif leaf == VECTOR and name is not None:
            found[f"{name}.singular_vectors"] = tensor
        elif name is None or leaf not in ("kernel", "bias", "embedding"):
            found[path.replace("/", ".")] = tensor
        elif leaf == "kernel":
            found[f"{name}.weight"] = _weight(tensor, _is_centred(module, shapes))
        else:
            found[f"{name}.{'bias' if leaf == 'bias' else 'weight'}"] = tensor
    return found


def _module(path: str, children: Mapping[str, set[str]], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The torch module of a Flax module that holds weights."""
    if path in WHOLE:
        return WHOLE[path]
    if path.endswith("/ConvSR_0"):  # holds the vector; the regularized convolution is inside
        return _find_regularized(path.removesuffix("/ConvSR_0"), children)
    if path.endswith("/ConvSR_0/Conv_0"):
        outer = _find_regularized(path.removesuffix("/ConvSR_0/Conv_0"), children)
        return None if outer is None else f"{outer}.conv"
    if match := GROUP_PART.fullmatch(path):
        return f"{_layer(match[1])}.{match[2]}" if not match[2].endswith("_block") else None
    parent, _, last = path.rpartition("/")
    siblings = children.get(parent, set())
    if match := GROUP_PART.fullmatch(parent):
        layer = f"{_layer(match[1])}.{match[2]}"
    elif ENCODER_LAYER.fullmatch(parent) or GENERATOR_LAYER.fullmatch(parent):
        layer = _layer(parent)
        if "Conv_0" not in siblings:
            inputs, outputs = (*shapes.get(f"{parent}/Dense_0/kernel", ()), 0, 0)[:2]
            projection = "qproj" if inputs == outputs else "qkvproj"
            return {"Dense_0": f"{layer}.{projection}", "Dense_1": f"{layer}.outproj"}.get(last)
        if "Conv_1" not in siblings:
            return f"{layer}.conv_layer" if last == "Conv_0" else None
    else:
        return None
    names = {f"Conv_{number}": name for number, name in enumerate(BLOCK)} | {"Dense_0": "classproj"}
    return f"{layer}.{names[last]}" if last in names else None


def _find_regularized(block: str, children: Mapping[str, set[str]]) -> str | None:
    """The last convolution of a prior's or posterior's block: that of the half with an FFN where there is one."""
    match = GROUP_PART.fullmatch(block)
    if match is None:
        return None
    return f"{_layer(match[1])}.{match[2]}.{'dense2' if 'Conv_2' in children.get(block, ()) else 'conv2'}"


def _layer(path: str) -> str:
    if match := ENCODER_LAYER.fullmatch(path):
        return f"encoder.encoder_levels.{match[1]}.layer_list.{match[2]}"
    match = GENERATOR_LAYER.fullmatch(path)
    assert match is not None
    return f"layer_list.{match[1]}.layer_list.{match[2]}"


def _is_centred(module: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether this 3x3 kernel stands in a block without FFN at 1x1, where only its centre meets anything but padding.

    There the published JAX code has 3x3 kernels, the torch code 1x1 ones. The block's first kernel tells the level.
    """
    block = module.removesuffix("/ConvSR_0/Conv_0") if "/ConvSR_0" in module else module.removesuffix("/Conv_1")
    first, beside = shapes.get(f"{block}/Conv_0/kernel"), f"{block}/Conv_2/kernel" in shapes
    own = shapes.get(f"{module}/kernel", ())
    return block != module and not beside and first is not None and first[:2] == (1, 1) and own[:2] == (3, 3)


def _weight(kernel: StoredTensor, centred: bool) -> StoredTensor:
    """(h, w, in, out) -> (out, in, h, w); (in, out) -> (out, in)."""
    if len(kernel.shape) == 2:
        return _permute(kernel, (1, 0))
    if len(kernel.shape) != 4:
        return kernel
    weight = _permute(kernel, (3, 2, 0, 1))
    return StoredTensor((*weight.shape[:2], 1, 1), partial(_centre, weight)) if centred else weight


def _permute(tensor: StoredTensor, order: tuple[int, ...]) -> StoredTensor:
    if len(tensor.shape) != len(order):
        return tensor
    return StoredTensor(tuple(tensor.shape[side] for side in order), partial(_read_permuted, tensor, order))


def _read_permuted(tensor: StoredTensor, order: tuple[int, ...]) -> Tensor:
    return tensor.read().permute(order)


def _centre(weight: StoredTensor) -> Tensor:
    return weight.read()[:, :, 1:2, 1:2]
