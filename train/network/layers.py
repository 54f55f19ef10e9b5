"""Layers of encoder and generator: convolutions, the inverted-bottleneck block, attention, resampling.

Attributes are named so that `state_dict` has the names of the published torch files. No layer draws anything when it
is built: `initialize` fills it from a generator.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lvae.train.network.gaussians import full_precision

T = TypeVar("T")
TRUNCATION = 0.87962566103423978  # std of a standard normal cut off at +-2
NORM_EPSILON = 1e-6  # of the mean square of a query or key
SMALLEST_NORM = 1e-30  # of a vector in the power iteration: a layer of zeros has sigma 0, not 0/0


class Convolution(nn.Conv2d):
    """1x1, or 3x3 with padding 1; Xavier uniform times `scale` at the start, bias 0."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, bias: bool = True, scale: float = 1.0):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.scale = scale

    def reset_parameters(self) -> None:
        """Nothing: see `initialize`."""

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        outputs, inputs, height, width = self.weight.shape
        bound = math.sqrt(6 / ((inputs + outputs) * height * width))
        self.weight.copy_(self.scale * torch.empty(self.weight.shape).uniform_(-bound, bound, generator=generator))
        if self.bias is not None:
            self.bias.zero_()


class Dense(nn.Linear):
    """LeCun normal at the start (cut off at two deviations), or zeros; bias 0."""

    def __init__(self, inputs: int, outputs: int, zeros: bool = False):
        super().__init__(inputs, outputs)
        self.zeros = zeros

    def reset_parameters(self) -> None:
        """Nothing: see `initialize`."""

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        self.bias.zero_()
        if self.zeros:
            self.weight.zero_()
            return
        std = 1 / math.sqrt(self.in_features) / TRUNCATION
        values = torch.empty(self.weight.shape)
        self.weight.copy_(nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std, generator=generator))


class LabelEmbedding(nn.Embedding):
    """One vector a class, and one for "no label" in the last row: (B,) -> (B, width)."""

    def __init__(self, classes: int, width: int):
        super().__init__(classes + 1, width, _weight=torch.empty(classes + 1, width))

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        std = 1 / math.sqrt(self.embedding_dim)
        self.weight.copy_(torch.empty(self.weight.shape).normal_(std=std, generator=generator))


class RegularizedConvolution(nn.Module):
    """A convolution whose largest singular value is penalized; `singular_vectors` holds the iteration's vector.

    master: the weight in full precision, where the convolution computes with a rounded copy of it.
    """

    singular_vectors: Tensor
    master: Tensor | None = None

    def __init__(self, inputs: int, outputs: int, kernel: int, scale: float):
        super().__init__()
        self.conv = Convolution(inputs, outputs, kernel, scale=scale)
        self.register_buffer("singular_vectors", torch.empty(1, outputs))

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        self.singular_vectors.copy_(torch.empty(self.singular_vectors.shape).normal_(generator=generator))

    @property
    def matrix(self) -> Tensor:
        """(outputs, inputs * k * k): its singular values are those of the published [k * k * inputs, outputs]."""
        return (self.conv.weight if self.master is None else self.master).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(x)
        return h


def power_iteration(matrices: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """One step of each: matrices (n, out, in), vectors (n, 1, out) -> sigma (n,) and the moved vectors (n, 1, out).

    v = u A / |u A|, u' = v A^T / |v A^T|, sigma = v A^T u'^T. The gradient flows through A in all three places.
    """
    right = _unit(vectors @ matrices)
    product = right @ matrices.transpose(1, 2)
    moved = _unit(product)
    return (product * moved).sum((1, 2)), moved


def _unit(vectors: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / norms.clamp(min=SMALLEST_NORM)


class ResidualBlock(nn.Module):
    """Inverted bottleneck: (B, inputs, h, w) -> (B, outputs, h, w).

    With a feed-forward half (ratio >= 1): two convolutions, then two 1x1 through `ratio` times the width. Without
    (ratio 0): the two convolutions. An activation precedes every one. The label's vector is added to what the block
    computes with, not to what it passes on. A regularized block (prior, posterior) passes nothing on.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        ratio: int,
        kernel: int,
        label_width: int | None,
        regularized: bool = False,
        scale: float = 1.0,
    ):
        super().__init__()
        last = (1, ratio * inputs) if ratio else (kernel, inputs)
        final = (
            RegularizedConvolution(last[1], outputs, last[0], scale)
            if regularized
            else Convolution(last[1], outputs, last[0], scale=scale)
        )
        self.conv1 = Convolution(inputs, inputs, kernel)
        self.conv2 = Convolution(inputs, inputs, kernel) if ratio else final
        self.dense1 = Convolution(inputs, ratio * inputs) if ratio else None
        self.dense2 = final if ratio else None
        self.classproj = None if label_width is None else Dense(label_width, inputs)
        self.skips = not regularized and inputs == outputs

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        h: Tensor = x
        if self.classproj is not None and label is not None:
            h = h + self.classproj(label)[:, :, None, None]
        h = self.conv2(F.silu(self.conv1(F.silu(h))))
        if self.dense1 is not None and self.dense2 is not None:
            h = self.dense2(F.silu(self.dense1(F.silu(h))))
        return h + x if self.skips else h


class QueryKeyNorm(nn.Module):
    """Queries and keys of one length, but for a scale a channel: scores then cannot grow with the weights."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(2, channels))

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        self.scale.fill_(1)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """(B, heads, h w, n) each -> the same."""
        return self._normalize(q, self.scale[0]), self._normalize(k, self.scale[1])

    @staticmethod
    def _normalize(x: Tensor, scale: Tensor) -> Tensor:
        full = full_precision(x)
        return (full * torch.rsqrt(full.square().mean(-1, keepdim=True) + NORM_EPSILON) * scale).to(x.dtype)


class Attention(nn.Module):
    """Every position attends to every other: (B, C, h, w) -> the same. No positions; no normalization unless asked for.

    With one head the positions themselves are keys and values. With several, q, k and v are projected, in this order.
    kind "published": with several heads, the published code computes the attention and returns the projected queries
    instead; every position is mapped by itself, and the rows of k and v never learn. "normalized": q and k are.
    """

    def __init__(self, channels: int, heads: int, kind: Literal["softmax", "normalized", "published"]):
        super().__init__()
        self.heads, self.kind = heads, kind
        self.norm = QueryKeyNorm(channels // heads) if kind == "normalized" else None
        self.qproj = Dense(channels, channels) if heads == 1 else None
        self.qkvproj = Dense(channels, 3 * channels) if heads > 1 else None
        self.outproj = Dense(channels, channels, zeros=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, h w, C), rows first
        mixed: Tensor = self.outproj(self._mix(tokens))
        return x + mixed.transpose(1, 2).reshape(x.shape)

    def _mix(self, tokens: Tensor) -> Tensor:
        if self.qproj is not None:
            q = self.qproj(tokens).unsqueeze(1)
            one = tokens.to(q.dtype).unsqueeze(1)
            q, k = (q, one) if self.norm is None else self.norm(q, one)
            return F.scaled_dot_product_attention(q, k, one).squeeze(1)
        assert self.qkvproj is not None
        channels = tokens.shape[2]
        if self.kind == "published":
            return F.linear(tokens, self.qkvproj.weight[:channels], self.qkvproj.bias[:channels])
        projected = self.qkvproj(tokens).reshape(*tokens.shape[:2], 3, self.heads, -1)  # (B, h w, 3, heads, C / heads)
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        if self.norm is not None:
            q, k = self.norm(q, k)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Downsample(nn.Module):
    """Average pooling by 2, or from 4 to 1; then a 1x1 convolution where the widths differ."""

    def __init__(self, inputs: int, outputs: int, factor: int):
        super().__init__()
        self.factor = factor
        self.conv_layer = Convolution(inputs, outputs) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, self.factor)
        return x if self.conv_layer is None else self.conv_layer(x)


class Upsample(nn.Module):
    """Nearest neighbours up to a size, then a 1x1 convolution where the widths differ."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv_layer = Convolution(inputs, outputs) if inputs != outputs else None

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = nearest(x, size)
        return x if self.conv_layer is None else self.conv_layer(x)


class _Nearest(torch.autograd.Function):
    """PyTorch's own backward pass gives the same, but XLA does not know it: gradients would travel to the host."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.factors = size[0] // x.shape[2], size[1] // x.shape[3]
        return F.interpolate(x, size, mode="nearest")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        vertical, horizontal = ctx.factors
        return F.avg_pool2d(gradient, ctx.factors) * (vertical * horizontal), None


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) enlarged to `size`, a whole multiple of it, by nearest neighbours."""
    enlarged: Tensor = _Nearest.apply(x, size)  # type: ignore[no-untyped-call]
    return enlarged


def reduce_image(x: Tensor, side: int) -> Tensor:
    """(B, C, R, R) reduced to (B, C, side, side): bilinear with antialiasing, as two products with one fixed matrix."""
    matrix = reduction_matrix(x.shape[-1], side).to(x.device)
    return torch.einsum("ij,bcjk,lk->bcil", matrix, x, matrix)


@cache
def reduction_matrix(size: int, side: int) -> Tensor:
    """float32 (side, size): how much each of `size` positions has in each of `side`, fewer, on the CPU."""
    return F.interpolate(torch.eye(size)[None, None], (side, size), mode="bilinear", antialias=True)[0, 0]


def apply(layer: Callable[..., T], inputs: Sequence[Tensor | None], recompute: bool) -> T:
    """layer(*inputs); with `recompute`, nothing between is kept for the backward pass, which computes it again."""
    if not (recompute and torch.is_grad_enabled()):
        return layer(*inputs)
    if any(tensor is not None and tensor.device.type == "xla" for tensor in inputs):
        # PyTorch's own looks for a module torch.xla; and only barriers keep a compiler from uniting what is done twice.
        from torch_xla.utils.checkpoint import checkpoint as xla_checkpoint

        recomputed: T = xla_checkpoint(layer, *inputs, use_reentrant=True, preserve_rng_state=False)
        return recomputed
    result: T = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result


def without_autocast(like: Tensor) -> torch.autocast:
    """Where matrix products must keep the precision of their operands, on this tensor's device."""
    return torch.autocast(_kind(like), enabled=False)


def lay_out(x: Tensor) -> Tensor:
    """(B, C, h, w) with its channels last in memory, in strides that every tensor of this shape gets here."""
    if x.shape[2:] == (1, 1):
        return x.flatten(1).contiguous()[:, :, None, None]
    return x.contiguous(memory_format=torch.channels_last)


def fan_out(x: Tensor | None, count: int) -> list[Tensor | None]:
    """The same so many times, of which the gradients are summed at once instead of one by one."""
    return [None] * count if x is None else list(x.expand(count, *x.shape).unbind(0))


def as_computed(values: Tensor) -> Tensor:
    """In the dtype that products give on this tensor's device, so that what they are added to does not widen them."""
    kind = _kind(values)
    return values.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else values


def _kind(like: Tensor) -> str:
    return "cpu" if like.is_meta else like.device.type
