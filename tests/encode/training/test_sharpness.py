"""The terms that keep pictures sharp: local contrast, the discriminator, LPIPS."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lvae.encode.quality.fidelity import fine_detail, to_images, to_pixels
from lvae.encode.scenes.make import scene
from lvae.encode.training.lpips import WIDTHS, Lpips
from lvae.encode.training.sharpness import adaptive_weight, build_discriminator, contrast_difference, hinge
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)


def picture() -> torch.Tensor:
    return to_images(np.asarray(scene(0, 3, 64))[None])


def blurred(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)


def test_local_contrast_sees_blur_but_not_where_texture_lies() -> None:
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2
    other = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.2
    assert contrast_difference(noise, noise) == 0
    moved, softened = contrast_difference(noise, other), contrast_difference(noise, blurred(noise))
    assert moved < 0.25 * softened
    assert (noise - other).abs().mean() > (noise - blurred(noise)).abs().mean()  # L1 would have it the other way


def test_going_down_the_contrast_term_sharpens_a_picture() -> None:
    target = picture()
    found = blurred(target).requires_grad_(True)
    optimizer = torch.optim.Adam([found], 0.01)
    before = fine_detail(to_pixels(found)[0])
    for _ in range(60):
        optimizer.zero_grad()
        contrast_difference(target, found).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    wanted = fine_detail(to_pixels(target)[0])
    assert before < 0.3 * wanted
    assert 0.5 * wanted < fine_detail(to_pixels(found)[0]) < 2 * wanted


def test_contrast_of_flat_and_tiny_pictures_has_a_gradient_without_nan() -> None:
    for side in (9, 16, 64):
        flat = torch.zeros(1, 3, side, side, requires_grad=True)
        contrast_difference(torch.zeros(1, 3, side, side), flat).backward()  # type: ignore[no-untyped-call]
        assert flat.grad is not None
        assert flat.grad.isfinite().all()


@pytest.mark.parametrize(("layers", "parameters", "side"), [(3, 2765633, 30), (2, 663361, 62)])
def test_discriminators_have_the_published_size(layers: int, parameters: int, side: int) -> None:
    network = build_discriminator(layers, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(2, 3, 256, 256)).shape == (2, 1, side, side)


def test_a_discriminator_is_a_function_of_its_seed() -> None:
    one, same, other = (build_discriminator(1, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_hinge_loss_on_paper() -> None:
    assert hinge(torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])) == 0.5 * (0.25 + 0.5)


def test_the_adaptive_weight_is_the_ratio_of_gradients() -> None:
    weight = torch.tensor([3.0, -1.0], requires_grad=True)
    found = adaptive_weight((6 * weight).sum(), (-2 * weight).sum(), weight)
    assert found == pytest.approx(3.0, rel=1e-3)
    assert not found.requires_grad
    assert adaptive_weight((1e9 * weight).sum(), (0 * weight).sum(), weight) == 1e4


def vgg_and_heads(folder: Path) -> tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random weights in files as torchvision and LPIPS publish theirs."""
    generator = torch.Generator().manual_seed(0)
    numbers = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of VGG-16's convolutions
    vgg, inputs = {}, 3
    for number, width in zip(numbers, [width for widths in WIDTHS for width in widths], strict=True):
        vgg[f"features.{number}.weight"] = torch.randn(width, inputs, 3, 3, generator=generator) * inputs**-0.5 / 3
        vgg[f"features.{number}.bias"] = torch.randn(width, generator=generator) * 0.1
        inputs = width
    vgg["classifier.0.weight"] = torch.zeros(2, 2)
    heads = {
        f"lin{i}.model.1.weight": torch.rand(1, widths[-1], 1, 1, generator=generator)
        for i, widths in enumerate(WIDTHS)
    }
    torch.save(vgg, folder / "vgg16.pth")
    save_file(heads, folder / "lpips.safetensors")
    return f"{folder / 'vgg16.pth'},{folder / 'lpips.safetensors'}", vgg, heads


def test_lpips_is_what_its_paper_says(tmp_path: Path) -> None:
    files, vgg, heads = vgg_and_heads(tmp_path)
    network = Lpips.read(files)
    one, other = torch.cat([picture(), blurred(picture())]), torch.cat([blurred(picture()), picture()])
    found = network(one, other)
    assert found.shape == (2,)
    assert torch.allclose(found[0], found[1])
    assert network(one, one).abs().max() == 0

    def features(x: torch.Tensor) -> list[torch.Tensor]:
        shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[..., None, None]
        x, found = (x - shift) / scale, []
        for number in range(29):
            if f"features.{number}.weight" in vgg:
                x = F.relu(F.conv2d(x, vgg[f"features.{number}.weight"], vgg[f"features.{number}.bias"], padding=1))
            if number in (2, 7, 14, 21, 28):
                found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
            if number in (4, 9, 16, 23):
                x = F.max_pool2d(x, 2)
        return found

    expected = sum(
        (((a - b) ** 2) * heads[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
        for i, (a, b) in enumerate(zip(features(one), features(other), strict=True))
    )
    assert torch.allclose(found, torch.as_tensor(expected), rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_wrong_files_for_lpips_are_named(tmp_path: Path) -> None:
    files, vgg, _ = vgg_and_heads(tmp_path)
    first, second = files.split(",")
    with pytest.raises(LvaeError, match="name two files as VGG,LPIPS"):
        Lpips.read(first)
    with pytest.raises(LvaeError, match=r"lpips.safetensors: has no features\.0\.weight"):
        Lpips.read(f"{second},{first}")
    torch.save(vgg | {"features.2.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(LvaeError, match=r"features\.2\.weight has shape \(64, 3, 3, 3\) instead of \(64, 64, 3, 3\)"):
        Lpips.read(f"{tmp_path / 'other.pth'},{second}")
