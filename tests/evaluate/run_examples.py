"""A little run, made without training: a model whose weights are random but hear their labels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner, Result

from lvae.cli import main
from lvae.manifests.dataset import Dataset
from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.run import CHECKPOINTS, RunConfig, write_run
from tests.manifests.dataset_examples import Contents, build, resign


def model_config(**changes: Any) -> ModelConfig:
    """4x4 latents of 3 channels, three classes: two resolutions, three groups."""
    settings = {
        "resolution": 4,
        "channels": 3,
        "width": 8,
        "encoder_width": 8,
        "multipliers": (1, 1),
        "ffn_ratios": (1, 1),
        "groups": (2, 1),
        "encoder_blocks": (1, 1),
        "attentions": (0, 0),
        "heads": (0, 0),
        "z_channels": 2,
        "classes": 3,
        "hierarchical_prior": True,
    }
    return ModelConfig(**(settings | changes))


def dataset(root: Path, **changes: Any) -> Dataset:
    """144 "pictures" of 4x4 pixels, encoded by no network at all."""
    build(root, Contents(pixels=True, **changes))
    resign(root, lambda content: content["autoencoder"].update(architecture={"kind": "pixels", "factor": 1}))
    return Dataset.open(root)


def run(root: Path, data: Dataset, config: ModelConfig | None = None, seed: int = 0) -> Path:
    config = config or model_config()
    write_run(root, RunConfig.new("tiny", config, TrainConfig(updates=1), data))
    model = HierarchicalVAE(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    raw = model.state_dict()
    ema = {name: tensor * 0.9 if tensor.is_floating_point() else tensor for name, tensor in raw.items()}
    Checkpoints(root / CHECKPOINTS).save(7, {"model": raw, "ema": ema}, {"position": 0})
    return root


def latents(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(Dataset.open(path).latents)


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    """The command, in this process."""
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done
