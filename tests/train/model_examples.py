"""Small models that between them have everything: labels, both priors, blocks without FFN, one head and many."""

from dataclasses import replace

import torch
from torch import Tensor

from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import model_preset

CONDITIONAL = ModelConfig(
    resolution=16,
    channels=3,
    width=8,
    encoder_width=12,
    multipliers=(1, 1, 2, 3),
    ffn_ratios=(0, 2, 3, 1),
    groups=(1, 3, 2, 2),
    encoder_blocks=(2, 2, 4, 1),
    attentions=(0, 2, 4, 1),
    heads=(0, 1, 4, 2),
    z_channels=3,
    classes=5,
    hierarchical_prior=True,
)
PLAIN = replace(CONDITIONAL, classes=0, hierarchical_prior=False, channels=4)
UNCONDITIONAL = replace(CONDITIONAL, classes=0)
LABELLED_PLAIN = replace(CONDITIONAL, hierarchical_prior=False)
ABOVE_ONE = replace(
    PLAIN,
    multipliers=(2, 1),
    ffn_ratios=(0, 2),
    groups=(2, 2),
    encoder_blocks=(1, 2),
    attentions=(0, 1),
    heads=(0, 2),
)
UPSAMPLER = replace(ABOVE_ONE, channels=3, resolution=16, low_resolution_factor=2)
EXAMPLES = {
    "conditional": CONDITIONAL,
    "plain": PLAIN,
    "unconditional": UNCONDITIONAL,
    "labelled plain": LABELLED_PLAIN,
    "above one": ABOVE_ONE,
    "upsampler": UPSAMPLER,
}


def scaled_down(name: str) -> ModelConfig:
    """A preset's architecture, narrow and on less: its levels, attentions and kinds of block."""
    config = model_preset(name)
    return replace(
        config,
        resolution=config.resolution if config.resolutions[-1] == 1 else 32,
        width=8,
        encoder_width=16 if config.encoder_width > config.width else 8,
        z_channels=2,
        classes=min(config.classes, 3),
        groups=tuple(_few(n, r) for n, r in zip(config.groups, config.resolutions, strict=True)),
        encoder_blocks=tuple(_few(n, r) for n, r in zip(config.encoder_blocks, config.resolutions, strict=True)),
        ffn_ratios=tuple(min(n, 2) for n in config.ffn_ratios),
    )


def _few(layers: int, resolution: int) -> int:
    return min(layers, 4 if resolution <= 64 else 1)


def lively(config: ModelConfig, seed: int = 0) -> HierarchicalVAE:
    """A model as after training: no layer is zero or nearly so, biases included."""
    model = HierarchicalVAE(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.7 * (parameter[0].numel() if parameter.ndim > 1 else 10) ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def batch(config: ModelConfig, count: int = 3, seed: int = 1) -> tuple[Tensor, Tensor | None]:
    """Latents and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, config.channels, config.resolution, config.resolution, generator=generator)
    return x, torch.arange(count) % config.classes if config.classes else None
