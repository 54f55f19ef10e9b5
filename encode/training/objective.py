"""What an autoencoder is trained to make small, for each kind of network."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from lvae.encode.networks.base import Autoencoder
from lvae.encode.networks.ldm import KLAutoencoder, VQAutoencoder
from lvae.encode.networks.tiny import TinyAutoencoder
from lvae.encode.networks.upsampler import UpsamplerAutoencoder
from lvae.encode.training.config import FitConfig

Noise = Callable[[Tensor], Tensor]  # a latent -> standard normal numbers of its shape

COMMITMENT = 0.25  # lies on the codebook's side, as in the published models


@dataclass(frozen=True)
class Reconstruction:
    """images: (B, 3, H, W). bottleneck: the weighted term of the latent, a scalar."""

    images: Tensor
    bottleneck: Tensor


def reconstruct(network: Autoencoder, images: Tensor, noise: Noise, config: FitConfig) -> Reconstruction:
    """images (B, 3, H, W) in [-1, 1] through the bottleneck and back; noise draws of the shape of a latent."""
    match network:
        case KLAutoencoder():
            return _kl(network, images, noise, config)
        case VQAutoencoder():
            return _vq(network, images, config)
    return _deterministic(network, images, noise, config)


def _kl(network: KLAutoencoder, images: Tensor, noise: Noise, config: FitConfig) -> Reconstruction:
    mean, log_variance = network.moments(images)
    rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()  # nats of the batch
    decoded = network.decode(mean + (log_variance / 2).exp() * noise(mean))
    return Reconstruction(decoded, config.kl_weight * rate / images.numel())


def _vq(network: VQAutoencoder, images: Tensor, config: FitConfig) -> Reconstruction:
    latents = network.encode(images)
    nearest = network.quantize(latents)
    codebook = (nearest.detach() - latents).square().mean() + COMMITMENT * (nearest - latents.detach()).square().mean()
    passed = latents + (nearest - latents).detach()  # the gradient goes straight through
    return Reconstruction(network.decode_quantized(passed), config.codebook_weight * codebook)


def _deterministic(network: Autoencoder, images: Tensor, noise: Noise, config: FitConfig) -> Reconstruction:
    latents = network.encode(images)
    if config.latent_noise:
        spread = latents.detach().std(dim=(0, 2, 3), keepdim=True)
        latents = latents + config.latent_noise * spread * noise(latents)
    return Reconstruction(network.decode(latents), images.new_zeros(()))


def last_layer(network: Autoencoder) -> Tensor:
    """The weight of the decoder's last convolution."""
    match network:
        case KLAutoencoder() | VQAutoencoder():
            return network.decoder.conv_out.weight
        case TinyAutoencoder() | UpsamplerAutoencoder():
            decoder = network.decoder if isinstance(network, TinyAutoencoder) else network.upsampler
            last = decoder.layers[-1]
            assert isinstance(last, nn.Conv2d)
            return last.weight
    raise TypeError(type(network).__name__)


def learning_rate(config: FitConfig, step: int) -> float:
    """Of the update after `step` others: linear warm-up, constant, cosine to nothing."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    falling = config.decay * config.steps
    left = (config.steps - step) / falling if falling else 1.0
    cooled = 1.0 if left >= 1 else 0.5 * (1 - math.cos(math.pi * left))
    return config.learning_rate * warm * cooled
