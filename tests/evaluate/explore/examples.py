"""A run over drawn scenes whose weights are random, with the autoencoder of the package: 16 px, 1x1 to 4x4."""

from pathlib import Path

import torch

from lvae.manifests.dataset import Dataset
from lvae.manifests.storage.folder import Folder
from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.run import CHECKPOINTS, RunConfig, write_run
from tests.conftest import lvae


def dataset(root: Path, scenes: Path, size: int = 16) -> Path:
    lvae("encode", scenes, root, "--size", str(size), "--limit", "24", "--workers", "1")
    return root


def run(root: Path, data: Path, size: int = 16) -> Path:
    """`size`: of the pictures; latents have a fourth of it."""
    opened = Dataset.open(data)
    levels = (size // 4).bit_length()
    config = ModelConfig(
        resolution=size // 4,
        channels=4,
        width=16,
        encoder_width=16,
        multipliers=(1,) * (levels - 1),
        ffn_ratios=(1,) * (levels - 1),
        groups=(2,) * (levels - 1),
        encoder_blocks=(1,) * (levels - 1),
        attentions=(0,) * (levels - 1),
        heads=(0,) * (levels - 1),
        z_channels=4,
        classes=8,
        hierarchical_prior=True,
    )
    write_run(root, RunConfig.new("tiny", config, TrainConfig(updates=1), opened))
    model = HierarchicalVAE(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.08 * torch.randn(parameter.shape, generator=generator))
    state = model.state_dict()
    Checkpoints(root / CHECKPOINTS).save(1, {"model": state, "ema": state}, {"position": 0})
    for name in opened.folder.names("weights"):
        Folder(root).write(name, opened.folder.read(name))
    return root
