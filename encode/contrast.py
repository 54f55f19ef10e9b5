"""Local contrast: a term that keeps texture without weights from elsewhere.

L1 alone is least where a picture is the median of all that would fit its code, which is smooth. Here the *amount* of
detail around each place is compared, not its position: the root mean square of differences between neighbours within a
small window, on three scales. It is what SSIM calls contrast (Wang et al., "Image quality assessment", 2004), taken of
gradients as texture models do (Portilla and Simoncelli, "A parametric texture model", 2000).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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
