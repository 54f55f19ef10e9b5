"""The networks, their optimizers, and one update of them."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lvae.encode.autoencoder import load
from lvae.encode.networks.base import Autoencoder
from lvae.encode.networks.ldm import VQAutoencoder
from lvae.encode.quality.fidelity import Pixels, to_images, to_pixels
from lvae.encode.training.config import FitConfig
from lvae.encode.training.objective import last_layer, learning_rate, reconstruct
from lvae.encode.training.perceptual import Perceptual
from lvae.encode.training.sharpness import adaptive_weight, build_discriminator, contrast_difference, hinge
from lvae.train.devices.device import Device
from lvae.train.runs.checkpoints import Checkpoint

BETAS, DISCRIMINATOR_BETAS = (0.9, 0.99), (0.5, 0.9)


LARGEST_GRADIENT = 1.0  # longer ones are shortened


Pair = tuple[Pixels, Pixels]  # an original and its reconstruction, (H, W, 3)


class Training:
    """The networks, their optimizers, and one update of them."""

    def __init__(self, config: FitConfig, device: Device, perceptual: Perceptual | None, start: str | None):
        self.config, self.device = config, device
        network = load(config.architecture, start or f"random:{config.seed}")
        if isinstance(network, VQAutoencoder) and start is None:
            network.quantize.embedding.weight.div_(config.architecture["codes"])  # so that every entry is near
        self.network = self._place(network).train().requires_grad_(True)
        self.average = self._place(load(config.architecture, f"random:{config.seed}"))
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.learning_rate, BETAS)
        self.discriminator: nn.Sequential | None = None
        if config.adversarial_weight:
            self.discriminator = device.place(build_discriminator(config.discriminator_layers, config.seed))
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), config.learning_rate, DISCRIMINATOR_BETAS
            )
        self.perceptual = perceptual
        if perceptual is not None:
            device.place(perceptual.distance)

    def _place(self, network: Autoencoder) -> Autoencoder:
        return self.device.place(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def update(self, pixels: Tensor, step: int) -> dict[str, Tensor]:
        """One update from uint8 crops (B, 3, size, size); what is logged of it, on the device."""
        config = self.config
        images = self.device.put(pixels).float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)
        sharpening = step >= config.sharpen_after
        adversary = self.discriminator if sharpening else None
        found: dict[str, Tensor] = {}
        with self.device.autocast():
            decoded = reconstruct(self.network, images, partial(self._noise, step), config)
        pictures = decoded.images.float()
        found["l1"] = (pictures - images).abs().mean()
        error = found["l1"]
        if self.perceptual is not None:
            with self.device.autocast():
                distance = self.perceptual.distance(images, pictures).mean()
            found[self.perceptual.name] = distance
            error = error + config.perceptual_weight * distance
        if config.contrast_weight and sharpening:
            found["contrast"] = contrast_difference(images, pictures)
            error = error + config.contrast_weight * found["contrast"]
        found["bottleneck"] = decoded.bottleneck
        loss = error + decoded.bottleneck
        if adversary is not None:
            adversary.requires_grad_(False)
            with self.device.autocast():
                verdict = -adversary(pictures).float().mean()
            weight = adaptive_weight(error, verdict, last_layer(self.network))
            found["adversarial"], found["adversarial_factor"] = verdict, weight
            loss = loss + config.adversarial_weight * weight * verdict
        found["loss"] = loss
        found["gradient_norm"] = self._descend(loss, step)
        if adversary is not None:
            found["discriminator"] = self._judge(adversary, images, pictures.detach(), step)
        return {name: value.detach() for name, value in found.items()}

    def _noise(self, step: int, latents: Tensor) -> Tensor:
        """Standard normal, of the shape of these latents: a function of (seed, position)."""
        size = latents[0].numel()
        return self.device.normals(self.config.seed, step * len(latents), len(latents), size).view(latents.shape)

    def _descend(self, loss: Tensor, step: int) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for averaged, weights in zip(self.average.parameters(), self.network.parameters(), strict=True):
                averaged.lerp_(weights, 1 - decay)
        return norm

    def _judge(self, adversary: nn.Sequential, images: Tensor, fakes: Tensor, step: int) -> Tensor:
        adversary.requires_grad_(True)
        with self.device.autocast():
            loss = hinge(adversary(images).float(), adversary(fakes).float())
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = learning_rate(self.config, step)
        self.discriminator_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.discriminator_optimizer.step()
        return loss

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that the next update depends on."""
        groups = {
            "model": dict(self.network.state_dict()),
            "average": dict(self.average.state_dict()),
            "optimizer": _adam_state(self.optimizer, self.network),
        }
        if self.discriminator is not None:
            groups["discriminator"] = dict(self.discriminator.state_dict())
            groups["discriminator_optimizer"] = _adam_state(self.discriminator_optimizer, self.discriminator)
        return groups

    def restore(self, checkpoint: Checkpoint) -> None:
        self.network.load_state_dict(checkpoint.read("model"))
        self.average.load_state_dict(checkpoint.read("average"))
        _restore_adam(self.optimizer, self.network, checkpoint.read("optimizer"))
        if self.discriminator is not None:
            self.discriminator.load_state_dict(checkpoint.read("discriminator"))
            found = checkpoint.read("discriminator_optimizer")
            _restore_adam(self.discriminator_optimizer, self.discriminator, found)

    def reconstructions(self, pixels: Sequence[Pixels]) -> list[Pair]:
        """Pictures (H, W, 3) beside what the averaged weights make of them."""
        pairs = []
        with torch.inference_mode(), self.device.autocast():
            for one in pixels:
                images = self.device.put(to_images(one[None]))
                pairs.append((one, to_pixels(self.average.decode(self.average.encode(images)))[0]))
        return pairs


def _adam_state(optimizer: torch.optim.Adam, network: nn.Module) -> dict[str, Tensor]:
    state = optimizer.state
    return {
        f"{name}.{key}": value
        for name, parameter in network.named_parameters()
        for key, value in state.get(parameter, {}).items()
    }


def _restore_adam(optimizer: torch.optim.Adam, network: nn.Module, found: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        own = {key: found[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}.{key}" in found}
        for key, value in own.items():
            own[key] = value if key == "step" else torch.empty_like(parameter).copy_(value)
        if own:
            optimizer.state[parameter] = own
