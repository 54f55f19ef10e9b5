"""The networks of Rombach et al. against diffusers' (an independent implementation) and against figures of the zoo."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lvae.encode.autoencoder import LdmSpec, build, load, multiply_adds
from lvae.encode.networks import ldm
from lvae.encode.networks.base import Autoencoder
from lvae.encode.networks.ldm import Codebook, VQAutoencoder
from lvae.encode.weights.names import to_diffusers
from lvae.manifests.errors import LvaeError

diffusers = pytest.importorskip("diffusers")
torch.set_num_threads(1)

# Parameters (codebook included) and tensors of the published files, without what lies under `loss.`: model zoo of
# Rombach et al., counted from the files' architecture with their code.
PUBLISHED = {
    "kl-f4": (55_312_063, 204),
    "kl-f8": (83_653_863, 248),
    "kl-f16": (69_610_963, 342),
    "kl-f32": (103_880_131, 436),
    "vq-f4": (55_322_782, 205),
    "vq-f4-noattn": (53_219_486, 185),
    "vq-f8": (67_717_295, 299),
    "vq-f8-n256": (67_652_783, 299),
    "vq-f16": (69_593_371, 343),
}
# Giga multiply-adds to encode 256 x 256, counted on the original code
GIGA_MULTIPLY_ADDS = {
    "kl-f4": 173,
    "kl-f8": 136,
    "kl-f16": 69,
    "kl-f32": 68,
    "vq-f4": 173,
    "vq-f4-noattn": 151,
    "vq-f8": 113,
    "vq-f16": 69,
}
# Largest difference over largest deviation from the channel's mean. float32 rounds otherwise in another order of the
# same operations: up to 1.4e-5 after some 60 layers (measured, 64 px, AVX2). A wrong epsilon gives 4e-3 on flat grey.
TOLERANCE = 1e-4
SMALL_KL = {
    "kind": "kl",
    "width": 32,
    "multipliers": [1, 2],
    "latent_channels": 4,
    "blocks": 1,
    "attention_levels": [1],
}
SMALL_VQ = {"kind": "vq", "width": 8, "multipliers": [1, 2], "latent_channels": 3, "blocks": 1, "codes": 50}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The mean of a channel is taken out of the scale: a flat picture must not hide an error behind its level."""
    deviation = expected - expected.mean((2, 3), keepdim=True)
    return float((found - expected).abs().max() / deviation.abs().max())


def pictures() -> Tensor:
    """Uniform noise, and the same with an amplitude of 1e-3 around grey: (2, 3, 64, 64)."""
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.cat([noise, 1e-3 * noise])


def twin(autoencoder: Autoencoder) -> Any:
    """diffusers' model of the same architecture and weights."""
    a = autoencoder.architecture
    levels = range(len(a["multipliers"]))
    attends = [i in a["attention_levels"] for i in levels]
    shared = {
        "down_block_types": tuple("AttnDownEncoderBlock2D" if yes else "DownEncoderBlock2D" for yes in attends),
        "up_block_types": tuple("AttnUpDecoderBlock2D" if yes else "UpDecoderBlock2D" for yes in reversed(attends)),
        "block_out_channels": tuple(a["width"] * m for m in a["multipliers"]),
        "layers_per_block": a["blocks"],
        "latent_channels": a["latent_channels"],
        "mid_block_add_attention": a["middle_attention"],
    }
    with torch.device("meta"):
        model = (
            diffusers.AutoencoderKL(**shared)
            if a["kind"] == "kl"
            else diffusers.VQModel(num_vq_embeddings=a["codes"], vq_embed_dim=a["latent_channels"], **shared)
        )
    model.load_state_dict(to_diffusers(autoencoder.state_dict(), a), assign=True)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("kl")])
def test_kl_outputs_equal_those_of_diffusers(name: str) -> None:
    ours = load(name, "random:1")
    theirs = twin(ours)
    for image in pictures().split(1):
        mean, log_variance = ours.moments(image)
        expected = theirs.encode(image).latent_dist
        assert torch.equal(ours.encode(image), mean)
        assert relative_error(mean, expected.mean) < TOLERANCE
        assert relative_error(log_variance, expected.logvar) < TOLERANCE
        assert relative_error(ours.decode(mean), theirs.decode(mean).sample) < TOLERANCE


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("vq")])
def test_vq_outputs_equal_those_of_diffusers(name: str) -> None:
    ours = load(name, "random:1")
    theirs = twin(ours)
    assert isinstance(ours, VQAutoencoder)
    for image in pictures().split(1):
        latents = ours.encode(image)
        assert relative_error(latents, theirs.encode(image).latents) < TOLERANCE
        indices = theirs.quantize(latents)[2][2]
        assert torch.equal(ours.indices(latents).flatten(), indices.flatten())
        assert relative_error(ours.decode(latents), theirs.decode(latents).sample) < TOLERANCE


def test_a_nearly_flat_picture_shows_a_wrong_epsilon() -> None:
    """Why the pictures above include one: on noise, torch's default epsilon stays within the tolerance."""
    network = load("kl-f8", "random:1")
    noise, flat = pictures().split(1)
    expected = network.encode(noise), network.encode(flat)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5
    assert relative_error(network.encode(noise), expected[0]) < TOLERANCE
    assert relative_error(network.encode(flat), expected[1]) > 10 * TOLERANCE


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_exactly_the_published_parameters(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert (count, len(network.state_dict())) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "giga"), GIGA_MULTIPLY_ADDS.items())
def test_multiply_adds_of_published_networks(name: str, giga: int) -> None:
    with torch.device("meta"):
        assert round(multiply_adds(build(name), 256) / 1e9) == giga


def test_multiply_adds_counted_by_hand() -> None:
    spec = {"kind": "kl", "width": 2, "multipliers": [1], "latent_channels": 1, "blocks": 1}
    block = 2 * (2 * 2 * 9)  # two 3 x 3 convolutions, 2 -> 2 channels
    per_position = 3 * 2 * 9 + 3 * block + 4 * 2 * 2 + 2 * 2 * 9 + 2 * 2  # input, blocks, attention, output, quant_conv
    attention = 2 * 16 * 16 * 2  # queries times keys, weights times values; 16 positions, 2 channels
    assert multiply_adds(build(spec), 4) == 16 * per_position + attention


def test_names_and_shapes_are_those_of_published_files() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in build("vq-f8").state_dict().items()}
    assert shapes["encoder.conv_in.weight"] == (128, 3, 3, 3)
    assert shapes["encoder.down.1.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert shapes["encoder.down.3.attn.1.proj_out.weight"] == (512, 512, 1, 1)
    assert shapes["encoder.down.2.downsample.conv.weight"] == (256, 256, 3, 3)
    assert shapes["encoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
    assert shapes["encoder.conv_out.weight"] == (4, 512, 3, 3)
    assert shapes["decoder.conv_in.weight"] == (512, 4, 3, 3)
    assert shapes["decoder.up.3.attn.2.norm.weight"] == (512,)
    assert shapes["decoder.up.1.upsample.conv.weight"] == (256, 256, 3, 3)
    assert shapes["decoder.up.0.block.2.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["quantize.embedding.weight"] == (16384, 4)
    assert "encoder.down.3.downsample.conv.weight" not in shapes
    assert "decoder.up.0.upsample.conv.weight" not in shapes
    assert "quantize.embedding.bias" not in shapes


def test_gradients_equal_those_of_diffusers() -> None:
    """Working in place must not disturb training; every parameter gets a gradient."""
    ours = build(SMALL_KL)
    theirs = twin(ours)
    image = pictures()[:1]
    for model in (ours, theirs):
        model.requires_grad_(True)
    mean, log_variance = ours.moments(image)
    (ours.decode(mean).square().mean() + log_variance.mean()).backward()
    expected = theirs.encode(image).latent_dist
    (theirs.decode(expected.mean).sample.square().mean() + expected.logvar.mean()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in to_diffusers({n: p.grad for n, p in ours.named_parameters()}, ours.architecture).items():  # type: ignore[misc]
        assert torch.allclose(gradient, gradients[name], rtol=1e-3, atol=1e-5 * largest), name


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Bit for bit: otherwise a dataset would depend on how rows fall into batches."""
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for spec in (SMALL_KL, SMALL_VQ):
        network = build(spec)
        latents = network.encode(images)
        decoded = network.decode(latents)
        for i in range(3):
            assert torch.equal(network.encode(images[i : i + 1]), latents[i : i + 1])
            assert torch.equal(network.decode(latents[i : i + 1]), decoded[i : i + 1])


def test_training_mode_takes_the_batch_whole() -> None:
    """The same numbers but for the kernels' rounding (measured 1e-6)."""
    network = build(SMALL_KL)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = network.encode(images)
    network.train()
    assert len(network.one_by_one(images)) == 1
    assert torch.allclose(network.encode(images), expected, atol=1e-5)


def test_an_empty_batch_gives_an_empty_batch() -> None:
    network = build(SMALL_VQ)
    assert network.encode(torch.zeros(0, 3, 16, 16)).shape == (0, 3, 8, 8)
    assert network.decode(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 16, 16)


def test_inputs_are_left_alone() -> None:
    network = build(SMALL_KL)
    images = pictures()
    copy = images.clone()
    latents = network.encode(images)
    latents_copy = latents.clone()
    network.decode(latents)
    assert torch.equal(images, copy)
    assert torch.equal(latents, latents_copy)


def test_sizes_are_divided_with_the_remainder_dropped() -> None:
    network = build({"kind": "kl", "width": 8, "multipliers": [1, 1, 1, 1], "latent_channels": 4, "blocks": 1})
    latents = network.encode(torch.zeros(1, 3, 70, 83))
    assert latents.shape == (1, 4, 8, 10)
    assert network.decode(latents).shape == (1, 3, 64, 80)


def test_images_smaller_than_the_downsampling_factor_are_refused() -> None:
    network = build({"kind": "vq", "width": 8, "multipliers": [1, 1, 1], "latent_channels": 3, "codes": 5})
    with pytest.raises(LvaeError, match="3x8 is smaller than the downsampling factor 4"):
        network.encode(torch.zeros(1, 3, 3, 8))


def test_log_variance_is_clamped() -> None:
    network = build(SMALL_KL)
    network.state_dict()["quant_conv.bias"][4:] = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0])
    log_variance = network.moments(pictures())[1]
    assert [float(channel) for channel in log_variance.amax((0, 2, 3))] == [20.0, -30.0, 20.0, -30.0]


def test_vq_autoencoders_have_no_moments() -> None:
    with pytest.raises(LvaeError, match="only a KL autoencoder has moments"):
        build(SMALL_VQ).moments(pictures())


def test_decoding_quantizes_to_the_nearest_code() -> None:
    network = build(SMALL_VQ)
    assert isinstance(network, VQAutoencoder)
    codes = network.quantize.embedding.weight[torch.tensor([[[3, 7], [0, 49]]])].permute(0, 3, 1, 2)
    assert network.indices(codes + 1e-3).tolist() == [[[3, 7], [0, 49]]]
    assert torch.equal(network.decode(codes + 1e-3), network.decode(codes.contiguous()))


def test_of_equal_codes_the_first_is_taken() -> None:
    book = Codebook(4, 2).requires_grad_(False)
    book.embedding.weight.copy_(torch.tensor([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]))
    assert book.indices(torch.zeros(1, 2, 2, 2)).tolist() == [[[1, 1], [1, 1]]]


def test_chunks_of_positions_do_not_change_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(SMALL_VQ)
    assert isinstance(network, VQAutoencoder)
    latents = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(2))
    expected = torch.cdist(
        latents.flatten(2).transpose(1, 2).double(), network.quantize.embedding.weight.double()[None]
    )
    whole = network.indices(latents)
    monkeypatch.setattr(ldm, "DISTANCES_AT_ONCE", 500)  # ten positions of fifty codes
    assert torch.equal(network.indices(latents), whole)
    assert torch.equal(whole.flatten(1), expected.argmin(2))


@pytest.mark.parametrize("width", [1, 8, 12, 48])
def test_widths_that_32_does_not_divide_get_fewer_groups(width: int) -> None:
    network = build(LdmSpec("kl", width, (1, 2), 2, blocks=1))
    assert network.decode(network.encode(pictures())).isfinite().all()
    groups = {m.num_channels: m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {w: {1: 1, 2: 2, 8: 8, 16: 16, 12: 4, 24: 8, 48: 16, 96: 32}[w] for w in (width, 2 * width)}
