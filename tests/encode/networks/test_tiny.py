"""The TAESD layout against diffusers' AutoencoderTiny."""

import pytest
import torch

from lvae.encode.autoencoder import build, load, multiply_adds
from lvae.encode.weights.names import join_taesd

diffusers = pytest.importorskip("diffusers")
torch.set_num_threads(1)


def pictures() -> torch.Tensor:
    """Uniform noise, and the same with an amplitude of 1e-3 around grey: (2, 3, 64, 64)."""
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.cat([noise, 1e-3 * noise])


@pytest.mark.parametrize("name", ["taesd", "taesd3"])
def test_outputs_equal_those_of_diffusers(name: str) -> None:
    ours = load(name, "random:1")
    theirs = diffusers.AutoencoderTiny(latent_channels=ours.latent_channels).eval().requires_grad_(False)
    theirs.load_state_dict(ours.state_dict())
    latents, expected = ours.encode(pictures()), theirs.encode(pictures()).latents
    # The same operations in the same order: measured difference 0; 1e-6 leaves room for another kernel.
    assert torch.allclose(latents, expected, rtol=1e-6, atol=1e-6)
    assert torch.allclose(ours.decode(5 * latents), theirs.decode(5 * latents).sample, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "encoder", "decoder"), [("taesd", 1222532, 1222531), ("taesd3", 1229456, 1229443)])
def test_networks_have_exactly_the_published_parameters(name: str, encoder: int, decoder: int) -> None:
    with torch.device("meta"):
        network = build(name)
    counts = {"encoder": 0, "decoder": 0}
    for parameter_name, parameter in network.named_parameters():
        counts[parameter_name.split(".")[0]] += parameter.numel()
    assert counts == {"encoder": encoder, "decoder": decoder}
    assert len(network.state_dict()) == 134


def test_multiply_adds() -> None:
    with torch.device("meta"):
        assert round(multiply_adds(build("taesd"), 256) / 1e9) == 15


def test_the_two_published_files_load() -> None:
    """Layer numbers as TAESD's files have them: the decoder's first layer with tensors is 1."""
    expected = load("taesd", "random:2")
    state = expected.state_dict()
    encoder = {name.removeprefix("encoder.layers."): t for name, t in state.items() if name.startswith("encoder.")}
    decoder = {}
    for name, tensor in state.items():
        if name.startswith("decoder."):
            number, rest = name.removeprefix("decoder.layers.").split(".", 1)
            decoder[f"{int(number) + 1}.{rest}"] = tensor
    assert {int(name.split(".")[0]) for name in encoder} == set(range(15))
    assert {int(name.split(".")[0]) for name in decoder} == {1, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19}
    joined = join_taesd(encoder, decoder)
    for prefix in ("", "taesd_"):
        network = build("taesd")
        network.load_state({prefix + name: tensor for name, tensor in joined.items()})
        assert network.fingerprint == expected.fingerprint


def test_latents_beyond_three_are_squeezed() -> None:
    network = build("taesd")
    far = torch.full((1, 4, 2, 2), 100.0)
    assert torch.equal(network.decode(far), network.decode(2 * far))


def test_sizes_that_eight_does_not_divide_are_rounded_up() -> None:
    network = build({"kind": "tiny", "latent_channels": 2, "width": 4, "blocks": 1})
    latents = network.encode(torch.zeros(1, 3, 70, 83))
    assert latents.shape == (1, 2, 9, 11)
    assert network.decode(latents).shape == (1, 3, 72, 88)


def test_an_image_does_not_depend_on_its_batch_and_is_left_alone() -> None:
    network = build("taesd")
    images = pictures()
    copy = images.clone()
    latents = network.encode(images)
    assert torch.equal(network.encode(images[1:]), latents[1:])
    assert torch.equal(images, copy)


def test_every_parameter_gets_a_gradient() -> None:
    network = build({"kind": "tiny", "latent_channels": 4, "width": 16, "blocks": 1}).requires_grad_(True)
    network.decode(network.encode(pictures())).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
