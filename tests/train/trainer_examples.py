"""Small models and ways to train them."""

from typing import Any

import torch

from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.data.batches import Batch
from lvae.train.devices.device import Device
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE


def model_config(**changes: Any) -> ModelConfig:
    """8x8 latents of 4 channels: three resolutions, five groups."""
    settings = {
        "resolution": 8,
        "channels": 4,
        "width": 16,
        "encoder_width": 16,
        "multipliers": (1, 1, 1),
        "ffn_ratios": (2, 2, 2),
        "groups": (2, 2, 1),
        "encoder_blocks": (1, 1, 1),
        "attentions": (0, 1, 0),
        "heads": (0, 2, 0),
        "z_channels": 4,
        "classes": 0,
        "hierarchical_prior": False,
    }
    return ModelConfig(**(settings | changes))


def train_config(**changes: Any) -> TrainConfig:
    settings = {"updates": 100, "batch": 8, "warm_up_updates": 4, "learning_rate": 1e-3, "ema": 0.9, "sigma_q": 0.5}
    return TrainConfig(**(settings | changes))


def updater(training: TrainConfig | None = None, model: ModelConfig | None = None, device: Any = None) -> Updater:
    return Updater(HierarchicalVAE(model or model_config()), training or train_config(), device or Device())


def batch(number: int = 0, size: int = 8, classes: int = 0) -> Batch:
    """Random latents of `number`, a function of it."""
    generator = torch.Generator().manual_seed(number)
    latents = torch.randn(size, 4, 8, 8, generator=generator)
    labels = torch.randint(0, classes, (size,), generator=generator) if classes else None
    dropped = torch.rand(size, generator=generator) < 0.1 if classes else None
    return Batch(latents, labels, dropped, number * size)
