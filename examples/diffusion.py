"""A trainer of one's own on our shards: a small latent diffusion model with `diffusers`, in about 100 lines.

    pip install diffusers
    python examples/diffusion.py latents diffusion --updates 2000

It reads normalized latents (about N(0, 1) a channel, so no scale is typed by hand), trains UNet2DModel to predict the
noise, class-conditional where there are classes, and decodes samples with the autoencoder that the dataset carries.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from lvae import Dataset


def build_model(dataset: Dataset, width: int) -> UNet2DModel:
    """Two resolutions, attention at the lower one."""
    _, channels, height, width_of_latents = dataset.shape
    return UNet2DModel(
        sample_size=(height, width_of_latents),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        num_class_embeds=len(dataset.classes) if dataset.classes else None,
    )


def endless(dataset: Dataset, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches (B, C, h, w) float32 and (B,), epoch after epoch."""
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(dataset.torch(), batch, shuffle=True, drop_last=len(dataset) >= batch, generator=order)
    while True:
        yield from loader


def train(dataset: Dataset, model: UNet2DModel, updates: int, batch: int, device: str) -> UNet2DModel:
    """Predict the noise; returns the running average of the weights."""
    schedule = DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    for update, (latents, labels) in enumerate(endless(dataset, batch, seed=0), 1):
        latents, noise = latents.to(device), torch.randn(latents.shape).to(device)
        steps = torch.randint(0, len(schedule), (len(latents),), device=device)
        classes = labels.to(device) if dataset.classes else None
        predicted = model(schedule.add_noise(latents, noise, steps), steps, class_labels=classes).sample
        loss = functional.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(model)
        if update % 100 == 0 or update == updates:
            print(f"update {update}: loss {loss.item():.3f}")
        if update == updates:
            break
    return averaged.module


@torch.no_grad()
def sample(model: UNet2DModel, dataset: Dataset, count: int, steps: int, device: str) -> Tensor:
    """(count, C, h, w) normalized latents, a class after the other."""
    schedule = DDIMScheduler(1000, clip_sample=False)
    schedule.set_timesteps(steps)
    latents = torch.randn(count, *dataset.shape[1:], generator=torch.Generator().manual_seed(1)).to(device)
    labels = torch.arange(count, device=device) % len(dataset.classes) if dataset.classes else None
    for step in schedule.timesteps:
        predicted = model(latents, step, class_labels=labels).sample
        latents = schedule.step(predicted, step, latents).prev_sample
    return latents


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = Dataset.open(asked.dataset)
    model = build_model(dataset, asked.width).to(device)
    model = train(dataset, model, asked.updates, asked.batch, device).eval()
    model.save_pretrained(asked.out)
    pictures = dataset.decode(sample(model, dataset, 16, asked.steps, device).cpu().numpy())
    pictures.save(asked.out / "samples.png")
    print(f"{asked.out}: the model, and samples.png")


if __name__ == "__main__":
    main()
