"""The patch discriminator of Isola et al. ("Image-to-Image Translation with Conditional Adversarial Networks", 2017),
as autoencoders are trained against it, with the hinge loss and the adaptive weight of Esser et al. ("Taming
Transformers", 2021).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvae.manifests.seeds import derive

WIDTH = 64
LEAK = 0.2
LARGEST_WEIGHT = 1e4


def build_discriminator(layers: int, seed: int) -> nn.Sequential:
    """(B, 3, H, W) -> one verdict a patch, (B, 1, h, w). Weights are a function of the seed.

    layers: convolutions of stride 2, each but the first with batch norm; 3 see patches of 70 pixels.
    """
    widths = [WIDTH * min(2**level, 8) for level in range(layers + 1)]
    modules: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
    for level, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        stride = 2 if level < layers else 1
        modules.append(nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False))
        modules += [nn.BatchNorm2d(outputs), nn.LeakyReLU(LEAK)]
    network = nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, 4, padding=1))
    with torch.no_grad():
        for number, module in enumerate(network):
            generator = torch.Generator().manual_seed(derive(seed, "discriminator", number) >> 1)
            if isinstance(module, nn.Conv2d):
                module.weight.normal_(0, 0.02, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1, 0.02, generator=generator)
    return network


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from its verdicts on pictures and on reconstructions."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(reconstruction: Tensor, verdict: Tensor, last_layer: Tensor) -> Tensor:
    """What makes both losses pull equally hard at the decoder's last layer: |grad of one| / |grad of the other|."""
    (ours,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (theirs,) = torch.autograd.grad(verdict, last_layer, retain_graph=True)
    weight: Tensor = ours.norm() / (theirs.norm() + 1e-4)
    return weight.clamp(0, LARGEST_WEIGHT).detach()


SCALES = 3


WINDOW, STRIDE = 8, 4


EPSILON = 1e-4  # of squared differences in [-1, 1]: about one grey level, below which nothing is seen


def contrast(images: Tensor) -> list[Tensor]:
    """(B, 3, H, W) -> on each scale the local contrast of differences in x, y and along both diagonals."""
    found = []
    for scale in range(SCALES):
        if min(images.shape[2:]) <= WINDOW:
            break
        found.append(torch.cat([_local(difference) for difference in _differences(images)], dim=1))
        if scale + 1 < SCALES:
            images = F.avg_pool2d(images, 2)
    return found


def contrast_difference(images: Tensor, others: Tensor) -> Tensor:
    """The mean absolute difference in local contrast over all scales: (B, 3, H, W) twice -> scalar."""
    pairs = zip(contrast(images), contrast(others), strict=True)
    return torch.stack([(one - other).abs().mean() for one, other in pairs]).mean()


def _differences(x: Tensor) -> tuple[Tensor, ...]:
    right, down = x[:, :, :-1, 1:] - x[:, :, :-1, :-1], x[:, :, 1:, :-1] - x[:, :, :-1, :-1]
    return right, down, x[:, :, 1:, 1:] - x[:, :, :-1, :-1], x[:, :, 1:, :-1] - x[:, :, :-1, 1:]


def _local(difference: Tensor) -> Tensor:
    return (F.avg_pool2d(difference.square(), WINDOW, STRIDE) + EPSILON).sqrt()
