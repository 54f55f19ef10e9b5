"""Winograd's convolutions against the direct ones, one by one and in whole networks."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lvae.encode.autoencoder import load
from lvae.encode.feeding.encoder import Encoder
from lvae.encode.networks.winograd import WinogradConvolution, transforms, use_winograd
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings

torch.set_num_threads(1)

WIDE = {"kind": "kl", "width": 96, "multipliers": [1, 2], "latent_channels": 4, "blocks": 1}


def convolution(inputs: int, outputs: int, seed: int = 0, bias: bool = True) -> nn.Conv2d:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / inputs**0.5)
    return made


def test_transforms_give_the_products_with_sliding_windows() -> None:
    inputs, kernels, outputs = transforms()
    random = np.random.default_rng(0)
    signal, kernel = torch.from_numpy(random.standard_normal(6)), torch.from_numpy(random.standard_normal(3))
    found = outputs @ ((kernels @ kernel) * (inputs @ signal))
    assert torch.allclose(found, signal.unfold(0, 3, 1) @ kernel, rtol=1e-13, atol=1e-13)


@given(
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    channels_last=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_size_gives_what_the_direct_convolution_gives(
    side: tuple[int, int], channels: tuple[int, int], bias: bool, channels_last: bool
) -> None:
    direct = convolution(*channels, bias=bias)
    x = torch.randn(1, channels[0], *side, generator=torch.Generator().manual_seed(1))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    found = WinogradConvolution(direct)(x)
    exact = F.conv2d(x.double(), direct.weight.double(), direct.bias.double() if bias else None, padding=1)
    assert found.shape == exact.shape
    assert found.stride(1) == 1
    # rounding of about 40 float32 operations on numbers up to 10
    assert torch.allclose(found.double(), exact, rtol=0, atol=1e-4)
    assert torch.equal(x, before)


def test_wide_layers_err_about_as_little_as_direct_ones() -> None:
    """Measured: 1.4e-6 of the output's deviation, where the direct convolution has 2.4e-7."""
    direct = convolution(256, 128)
    x = torch.randn(1, 256, 32, 32, generator=torch.Generator().manual_seed(1))
    exact = F.conv2d(x.double(), direct.weight.double(), direct.bias.double(), padding=1)  # type: ignore[union-attr]
    error = (WinogradConvolution(direct)(x).double() - exact).std() / exact.std()
    assert error < 2.5e-6


def test_only_wide_3_by_3_convolutions_are_replaced() -> None:
    network = load(WIDE, "random:0")
    use_winograd(network)
    replaced = {name for name, module in network.named_modules() if isinstance(module, WinogradConvolution)}
    assert "encoder.down.1.block.0.conv2" in replaced
    assert "decoder.up.1.upsample.conv" in replaced
    kept = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert {"encoder.conv_in", "encoder.down.0.downsample.conv", "encoder.mid.attn_1.q", "quant_conv"} <= kept


def encoding(precision: Any, batch: int = 4) -> Encoding:
    settings = AutoencoderRecord("custom", WIDE, "0" * 64, 2, 4, "mode")
    return Encoding(ImageSettings(64, "adm", "box+bicubic", False, (-1.0, 1.0)), settings, 0, batch, precision, 1)


def pictures() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Noise, and a nearly flat grey, on which errors show that noise hides: (2, 64, 64, 3)."""
    random = np.random.default_rng(0)
    return np.stack([random.integers(0, 256, (64, 64, 3)), random.integers(127, 129, (64, 64, 3))]).astype(np.uint8)


def test_latents_are_those_of_the_plain_network() -> None:
    plain = Encoder(encoding("float32"), load(WIDE, "random:1")).encode(pictures(), ["a", "b"])
    fast = Encoder(encoding("winograd"), load(WIDE, "random:1")).encode(pictures(), ["a", "b"])
    for found, expected in zip(fast, plain, strict=True):
        deviation = np.abs(expected - expected.mean((-1, -2), keepdims=True)).max()
        # As of the comparison with diffusers (test_ldm.py): measured 5e-6
        assert 0 < np.abs(found - expected).max() < 1e-4 * deviation


def test_latents_do_not_depend_on_the_batch() -> None:
    encoder = Encoder(encoding("winograd"), load(WIDE, "random:1"))
    both = encoder.encode(pictures(), ["a", "b"])
    assert np.array_equal(encoder.encode(pictures()[1:], ["b"]), both[1:])


def test_a_gpu_has_no_use_for_it() -> None:
    with pytest.raises(LvaeError, match="Choose tf32 or bfloat16 on a GPU"):
        Encoder(encoding("winograd"), load(WIDE, "random:1"), "cuda")
