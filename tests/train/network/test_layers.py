"""Spectral norm, attention and initial weights."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lvae.train.model import HierarchicalVAE
from lvae.train.network.layers import (
    Attention,
    Convolution,
    Dense,
    QueryKeyNorm,
    RegularizedConvolution,
    apply,
    power_iteration,
    reduce_image,
)
from tests.train.model_examples import CONDITIONAL

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


@pytest.mark.parametrize("kernel", [1, 3])
def test_sigma_converges_to_the_largest_singular_value(kernel: int) -> None:
    layer = RegularizedConvolution(7, 5, kernel, 1.0)
    layer.conv.initialize(generator())
    layer.initialize(generator(1))
    matrices, vectors = layer.matrix.detach()[None], layer.singular_vectors[None]
    for _ in range(200):
        sigma, vectors = power_iteration(matrices, vectors)
    hwio = layer.conv.weight.detach().permute(2, 3, 1, 0).reshape(-1, 5)  # as the published code flattens it
    np.testing.assert_allclose(sigma, np.linalg.svd(hwio, compute_uv=False)[:1], rtol=1e-5)


def test_sigma_of_several_layers_is_that_of_each() -> None:
    matrices, vectors = normal(4, 6, 9), normal(4, 1, 6, seed=1)
    together = power_iteration(matrices, vectors)
    for index in range(4):
        alone = power_iteration(matrices[index : index + 1], vectors[index : index + 1])
        torch.testing.assert_close(together[0][index], alone[0][0])
        torch.testing.assert_close(together[1][index], alone[1][0])


def test_gradient_of_sigma_flows_through_every_use_of_the_matrix() -> None:
    matrices, vectors = normal(2, 3, 4).double().requires_grad_(), normal(2, 1, 3, seed=1).double()
    assert torch.autograd.gradcheck(lambda m: power_iteration(m, vectors)[0], (matrices,))


def test_a_layer_of_zeros_has_sigma_zero_and_finite_gradients() -> None:
    matrices = torch.zeros(1, 3, 4, requires_grad=True)
    sigma, moved = power_iteration(matrices, normal(1, 1, 3))
    sigma.sum().backward()  # type: ignore[no-untyped-call]
    assert sigma == 0
    assert matrices.grad is not None
    assert matrices.grad.isfinite().all()
    assert moved.isfinite().all()


def attention(channels: int, heads: int, kind: Literal["softmax", "published"]) -> Attention:
    layer = Attention(channels, heads, kind)
    for index, parameter in enumerate(layer.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=generator(index))
    return layer


def naive(layer: Attention, x: Tensor) -> Tensor:
    """Position by position, head by head, in float64."""
    tokens = x.double().flatten(2).transpose(1, 2)
    c = tokens.shape[2]
    projection = layer.qproj if layer.qproj is not None else layer.qkvproj
    assert projection is not None
    projected = tokens @ projection.weight.double().T + projection.bias.double()
    q, k, v = (projected, tokens, tokens) if layer.heads == 1 else projected.split(c, dim=2)
    n = c // layer.heads
    y = torch.zeros_like(tokens)
    for image in range(len(x)):
        for head in range(layer.heads):
            at = slice(head * n, head * n + n)
            for position in range(tokens.shape[1]):
                scores = k[image, :, at] @ q[image, position, at] / math.sqrt(n)
                weights = torch.exp(scores - scores.max())
                y[image, position, at] = (weights / weights.sum()) @ v[image, :, at]
    result = tokens + y @ layer.outproj.weight.double().T + layer.outproj.bias.double()
    return result.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_a_naive_one(heads: int) -> None:
    layer, x = attention(8, heads, "softmax"), normal(2, 8, 3, 5)
    torch.testing.assert_close(layer(x).double(), naive(layer, x), rtol=1e-5, atol=1e-5)


def test_one_head_is_the_same_attention_in_published_weights() -> None:
    layer, x = attention(8, 1, "published"), normal(2, 8, 3, 5)
    torch.testing.assert_close(layer(x).double(), naive(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
def test_scores_of_normalized_attention_do_not_grow_with_the_queries(heads: int) -> None:
    layer, x = Attention(8, heads, "normalized"), normal(2, 8, 3, 5)
    for module in layer.modules():
        if isinstance(module, Dense | QueryKeyNorm):
            module.initialize(generator())
    assert layer.norm is not None
    assert (layer.norm.scale == 1).all()
    nn.init.normal_(layer.outproj.weight, generator=generator(1))
    before, projection = layer(x), layer.qproj or layer.qkvproj
    assert projection is not None
    with torch.no_grad():
        projection.weight[:8] *= 100  # the queries
    torch.testing.assert_close(layer(x), before, rtol=1e-3, atol=1e-4)


def test_published_attention_of_several_heads_maps_every_position_by_itself() -> None:
    layer, x = attention(8, 2, "published"), normal(1, 8, 4, 4)
    changed = x.clone()
    changed[:, :, 0, 0] += 1
    difference = (layer(changed) - layer(x)).abs().amax(1)[0]
    assert difference[0, 0] > 0
    assert (difference.flatten()[1:] == 0).all()


def test_published_attention_does_not_depend_on_the_number_of_heads() -> None:
    x = normal(1, 8, 4, 4)
    assert attention(8, 2, "published")(x).equal(attention(8, 4, "published")(x))


def test_published_attention_never_trains_its_keys_and_values() -> None:
    layer = attention(8, 2, "published")
    layer(normal(1, 8, 4, 4)).square().sum().backward()
    assert layer.qkvproj is not None
    assert layer.qkvproj.weight.grad is not None
    assert (layer.qkvproj.weight.grad[8:] == 0).all()
    assert (layer.qkvproj.weight.grad[:8] != 0).any(1).all()


def test_weights_begin_as_in_the_published_training_code() -> None:
    layer = Convolution(40, 50, 3, scale=0.5)
    layer.initialize(generator())
    bound = 0.5 * math.sqrt(6 / (90 * 9))
    assert 0.999 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert layer.bias is not None
    assert (layer.bias == 0).all()

    model = HierarchicalVAE(CONDITIONAL)
    assert model.initial_x is not None
    assert model.embed is not None
    assert (model.initial_x == 0).all()
    for name, parameter in model.named_parameters():
        if name.endswith((".bias", ".outproj.weight")):
            assert (parameter == 0).all(), name
        elif name.endswith("qkvproj.weight"):
            limit = 2 / math.sqrt(parameter.shape[1]) / 0.8796
            assert 0.8 * limit < float(parameter.detach().abs().max()) <= limit
            assert float(parameter.detach().std()) == pytest.approx(parameter.shape[1] ** -0.5, rel=0.1)
        elif "prior_block.dense2" in name:
            assert 0 < float(parameter.detach().abs().max()) < 1e-9
    assert float(model.embed.weight.detach().std()) == pytest.approx(24**-0.5, rel=0.2)


def test_what_is_computed_again_has_the_same_values_and_gradients() -> None:
    layer = attention(8, 2, "softmax")
    gradients = []
    for recompute in (False, True):
        x = normal(1, 8, 4, 4).requires_grad_()
        y = apply(layer, (x,), recompute)
        y.square().sum().backward()  # type: ignore[no-untyped-call]
        gradients.append((y.detach(), x.grad))
    assert gradients[0][0].equal(gradients[1][0])
    assert gradients[0][1] is not None
    assert gradients[1][1] is not None
    assert gradients[0][1].equal(gradients[1][1])


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("layer_list.1.layer_list.0.zproj", 8**-0.5),  # 8 groups
        ("layer_list.1.layer_list.0.shared_block.dense2", 8**-0.5),
        ("layer_list.3.layer_list.0.shared_block.conv2", 8**-0.5),
        ("encoder.encoder_levels.1.layer_list.0.dense2", 12**-0.5),  # 12 encoder blocks
        ("encoder.encoder_levels.0.layer_list.0.conv2", 12**-0.5),
        ("layer_list.1.layer_list.0.posterior_block.dense2.conv", 1),
        ("layer_list.1.layer_list.0.prior_block.dense2.conv", 1e-10),
        ("layer_list.3.layer_list.0.prior_block.conv2.conv", 1e-10),
        ("layer_list.1.layer_list.0.shared_block.conv2", 1),
        ("layer_list.1.layer_list.0.actsproj", 1),
        ("encoder.in_proj", 1),
        ("outproj", 1),
    ],
)
def test_residual_branches_begin_scaled_by_depth(name: str, scale: float) -> None:
    model = HierarchicalVAE(replace(CONDITIONAL, encoder_blocks=(2, 2, 4, 4)))
    weight = model.get_parameter(f"{name}.weight").detach()
    fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
    bound = scale * math.sqrt(6 / fans)
    assert 0.9 * bound < float(weight.abs().max()) <= bound * (1 + 1e-6)


@pytest.mark.parametrize(("size", "side"), [(16, 8), (16, 2), (256, 32)])
def test_a_fixed_matrix_reduces_images_as_interpolation_does(size: int, side: int) -> None:
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
    assert torch.allclose(reduce_image(x, side), wanted, atol=1e-5)
