"""The KL and VQ autoencoders of Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022).

Attributes are named so that `state_dict` has the names of CompVis' published files. Additions and activations work in
place where the tensor belongs to nobody else; autograd allows every one of them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvae.encode.catalogue.architectures import LdmSpec
from lvae.encode.networks.base import Autoencoder

NORM_GROUPS = 32
NORM_EPS = 1e-6  # torch's 1e-5 shows on nearly flat pictures
LOG_VARIANCE_RANGE = (-30.0, 20.0)
DISTANCES_AT_ONCE = 1 << 22  # positions x codes: 16 MiB of float32


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups; for channels that 32 does not divide (none published), as many as divide both."""
    return nn.GroupNorm(math.gcd(NORM_GROUPS, channels), channels, eps=NORM_EPS)


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def conv1(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


class ResidualBlock(nn.Module):
    """(B, a, H, W) -> (B, b, H, W)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = conv3(inputs, outputs)
        self.norm2 = group_norm(outputs)
        self.conv2 = conv3(outputs, outputs)
        self.nin_shortcut = conv1(inputs, outputs) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x), inplace=True))
        h = self.conv2(F.silu(self.norm2(h), inplace=True))
        return h.add_(x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nn.Module):
    """Every position attends to every other, one head as wide as the picture is deep: (B, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q = conv1(channels, channels)
        self.k = conv1(channels, channels)
        self.v = conv1(channels, channels)
        self.proj_out = conv1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (_tokens(part(y)) for part in (self.q, self.k, self.v))
        o = F.scaled_dot_product_attention(q, k, v)  # (B, 1, H W, C)
        h: Tensor = self.proj_out(o.squeeze(1).transpose(1, 2).contiguous().view(x.shape))
        return h.add_(x)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H W, C), rows first; contiguous, or the fused kernel for CPUs would not take it."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, floor(H/2), floor(W/2)); zeros are added on the right and at the bottom only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return h


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return h


class Level(nn.Module):
    """The blocks of one resolution. A subclass says how the next one is reached."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attends: bool):
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(inputs if j == 0 else outputs, outputs) for j in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attends else 0))

    def blocks(self, x: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[j](x)
        return x


class DownLevel(Level):
    """A level of the encoder; the last one keeps its resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attends: bool, last: bool):
        super().__init__(inputs, outputs, blocks, attends)
        self.downsample = None if last else Downsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(Level):
    """A level of the decoder; the last one, level 0, keeps its resolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attends: bool, last: bool):
        super().__init__(inputs, outputs, blocks, attends)
        self.upsample = None if last else Upsample(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.upsample is None else self.upsample(x)


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them."""

    def __init__(self, channels: int, attends: bool):
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels) if attends else None
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block_1(x)
        if self.attn_1 is not None:
            x = self.attn_1(x)
        h: Tensor = self.block_2(x)
        return h


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, outputs, floor(H/f), floor(W/f))."""

    def __init__(self, spec: LdmSpec, outputs: int):
        super().__init__()
        widths = [spec.width * multiplier for multiplier in spec.multipliers]
        self.conv_in = conv3(3, spec.width)
        self.down = nn.ModuleList(
            DownLevel(inputs, width, spec.blocks, i in spec.attention_levels, last=i == len(widths) - 1)
            for i, (inputs, width) in enumerate(zip([spec.width, *widths], widths, strict=False))
        )
        self.mid = Middle(widths[-1], spec.middle_attention)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        h: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x)), inplace=True))
        return h


class Decoder(nn.Module):
    """(B, C, h, w) -> (B, 3, f h, f w). Levels are numbered as in the encoder and run from the last to level 0."""

    def __init__(self, spec: LdmSpec):
        super().__init__()
        widths = [spec.width * multiplier for multiplier in spec.multipliers]
        self.conv_in = conv3(spec.latent_channels, widths[-1])
        self.mid = Middle(widths[-1], spec.middle_attention)
        self.up = nn.ModuleList(
            UpLevel(inputs, width, spec.blocks + 1, i in spec.decoder_levels, last=i == 0)
            for i, (inputs, width) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for i in reversed(range(len(self.up))):
            x = self.up[i](x)
        h: Tensor = self.conv_out(F.silu(self.norm_out(x), inplace=True))
        return h


class KLAutoencoder(Autoencoder):
    """The latent is a diagonal Gaussian; `encode` gives its mode."""

    def __init__(self, spec: LdmSpec):
        super().__init__(spec)
        self.encoder = Encoder(spec, 2 * spec.latent_channels)
        self.quant_conv = conv1(2 * spec.latent_channels, 2 * spec.latent_channels)
        self.post_quant_conv = conv1(spec.latent_channels, spec.latent_channels)
        self.decoder = Decoder(spec)

    def encode(self, images: Tensor) -> Tensor:
        return self.moments(images)[0]

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.check_images(images)
        moments = torch.cat([self.quant_conv(self.encoder(part)) for part in self.one_by_one(images)])
        mean, log_variance = moments.chunk(2, dim=1)
        return mean.contiguous(), log_variance.clamp(*LOG_VARIANCE_RANGE)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self.decoder(self.post_quant_conv(part)) for part in self.one_by_one(latents)])


class Codebook(nn.Module):
    """The entries that a VQ decoder knows."""

    def __init__(self, codes: int, channels: int):
        super().__init__()
        self.embedding = nn.Embedding(codes, channels, _weight=torch.empty(codes, channels))  # not drawn twice

    def indices(self, latents: Tensor) -> Tensor:
        """The nearest entry of each position, the first of equals: (B, C, h, w) -> int64 (B, h, w).

        |z|^2, the same for every entry, is left out. Each image is taken by itself, a chunk of positions at a time:
        memory stays bounded and an image's indices do not depend on its batch.
        """
        entries = self.embedding.weight
        norms = entries.square().sum(1)
        at_once = max(1, DISTANCES_AT_ONCE // len(entries))
        positions = latents.flatten(2).transpose(1, 2)  # (B, h w, C)
        nearest = torch.empty(positions.shape[:2], dtype=torch.int64, device=latents.device)
        for i, image in enumerate(positions):
            for start in range(0, len(image), at_once):
                distances = torch.addmm(norms, image[start : start + at_once], entries.T, alpha=-2)
                nearest[i, start : start + at_once] = distances.argmin(1)
        return nearest.view(len(latents), *latents.shape[2:])

    def forward(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> the nearest entries, (B, C, h, w)."""
        entries: Tensor = self.embedding(self.indices(latents))
        return entries.permute(0, 3, 1, 2).contiguous()  # else convolutions take it for channels-last


class VQAutoencoder(Autoencoder):
    """The latent is continuous, as in LDM's VQModelInterface: `encode` stops before the codebook, `decode` uses it."""

    def __init__(self, spec: LdmSpec):
        super().__init__(spec)
        self.encoder = Encoder(spec, spec.latent_channels)
        self.quant_conv = conv1(spec.latent_channels, spec.latent_channels)
        self.quantize = Codebook(spec.codes, spec.latent_channels)
        self.post_quant_conv = conv1(spec.latent_channels, spec.latent_channels)
        self.decoder = Decoder(spec)

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return torch.cat([self.quant_conv(self.encoder(part)) for part in self.one_by_one(images)])

    def indices(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> int64 (B, h, w): the codebook entries that `decode` would use."""
        return self.quantize.indices(latents)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self.decode_quantized(self.quantize(part)) for part in self.one_by_one(latents)])

    def decode_quantized(self, entries: Tensor) -> Tensor:
        """Codebook entries (B, C, h, w) -> (B, 3, f h, f w)."""
        h: Tensor = self.decoder(self.post_quant_conv(entries))
        return h
