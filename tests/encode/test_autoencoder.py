"""Naming, describing, building and loading autoencoders."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lvae.encode.autoencoder import KNOWN, build, load
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {
    "kind": "kl",
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention_levels": [1],
    "middle_attention": True,
    "latent_channels": 4,
    "codes": 0,
}


def message(error: pytest.ExceptionInfo[LvaeError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize("name", KNOWN)
def test_known_names_build_without_memory_and_describe_themselves(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
        again = build(json.loads(json.dumps(network.architecture)))
    assert network.name == again.name == name
    assert network.architecture == again.architecture
    assert all(parameter.is_meta for parameter in network.parameters())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "factor", "channels"),
    [
        ("kl-f4", 4, 3),
        ("kl-f8", 8, 4),
        ("kl-f16", 16, 16),
        ("kl-f32", 32, 64),
        ("vq-f4", 4, 3),
        ("vq-f8-n256", 8, 4),
        ("vq-f16", 16, 8),
        ("taesd", 8, 4),
        ("taesd3", 8, 16),
        ("pixels", 1, 3),
        ("pixels-f8", 8, 3),
    ],
)
def test_factor_and_channels_of_known_names(name: str, factor: int, channels: int) -> None:
    with torch.device("meta"):
        network = build(name)
    assert (network.downsampling_factor, network.latent_channels) == (factor, channels)


def test_a_description_comes_as_mapping_json_text_or_file(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(KL))
    for description in (KL, json.dumps(KL), path, str(path)):
        network = build(description)
        assert (network.name, network.architecture) == ("custom", KL)
        assert network.encode(torch.zeros(2, 3, 16, 8)).shape == (2, 4, 8, 4)


def test_left_out_fields_have_the_documented_defaults() -> None:
    network = build({"kind": "kl", "width": 8, "multipliers": [1], "latent_channels": 2})
    assert network.architecture == {
        "kind": "kl",
        "width": 8,
        "multipliers": [1],
        "latent_channels": 2,
        "blocks": 2,
        "attention_levels": [],
        "middle_attention": True,
        "codes": 0,
    }
    assert build({"kind": "tiny", "latent_channels": 4}).name == "taesd"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "vae"}, "kind must be one of kl, vq, tiny, upsampler, pixels, not 'vae'"),
        ({"kind": None}, "kind must be one of"),
        ({"depth": 3}, "unknown field 'depth'"),
        ({"width": 0}, "width must be a whole number from 1"),
        ({"width": "128"}, "width must be a whole number from 1 to 8192, not '128'"),
        ({"width": True}, "width must be a whole number"),
        ({"width": 8.0}, "width must be a whole number"),
        ({"width": 10**30}, "width must be a whole number"),
        ({"multipliers": []}, "multipliers must have 1 to 8 entries"),
        ({"multipliers": [1] * 9, "attention_levels": []}, "multipliers must have 1 to 8 entries"),
        ({"multipliers": 4}, "multipliers must be a list of whole numbers, not 4"),
        ({"multipliers": [1, -2]}, "every entry of multipliers must be a whole number"),
        ({"multipliers": [1, 5000]}, "multipliers times width must not exceed"),
        ({"blocks": 0}, "blocks must be a whole number"),
        ({"attention_levels": [2]}, "every entry of attention_levels must be a whole number from 0 to 1, not 2"),
        ({"attention_levels": [1, 0]}, "attention_levels must ascend"),
        ({"attention_levels": [1, 1]}, "attention_levels must ascend"),
        ({"middle_attention": 1}, "middle_attention must be true or false"),
        ({"latent_channels": 0}, "latent_channels must be"),
        ({"codes": 8}, r"codes \(of a kl autoencoder\) must be 0, not 8"),
        ({"kind": "vq"}, r"codes \(of a vq autoencoder\) must be a whole number from 1"),
    ],
)
def test_nonsense_in_a_description_is_refused_by_field(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(LvaeError, match=expected) as error:
        build(KL | changes)
    message(error)


@pytest.mark.parametrize("field", ["kind", "width", "multipliers", "latent_channels"])
def test_missing_fields_are_named(field: str) -> None:
    with pytest.raises(LvaeError, match=field):
        build({name: value for name, value in KL.items() if name != field})


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"kind": "pixels"}, "the field factor is missing"),
        ({"kind": "pixels", "factor": 3}, "factor must be 1, 2, 4 or 8, not 3"),
        ({"kind": "tiny"}, "the field latent_channels is missing"),
        ({"kind": "tiny", "latent_channels": 4, "codes": 5}, "unknown field 'codes'; a tiny autoencoder has blocks"),
        ("kl-f9", "'kl-f9': neither a JSON file nor the name of an autoencoder. Did you mean kl-f"),
        ('{"kind": "kl",', "not a JSON object"),
        ("{" * 5000, "not a JSON object"),
    ],
)
def test_other_descriptions_that_are_refused(description: Any, expected: str) -> None:
    with pytest.raises(LvaeError, match=expected) as error:
        build(description)
    message(error)


def test_a_file_that_is_no_description_is_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    for content in (b"[1, 2]", b"\xff\xfe\x00", b"", b'"kl"', b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(LvaeError, match=r"small\.json: not a JSON object"):
            build(path)
    path.write_text(json.dumps(KL | {"width": -1}))
    with pytest.raises(LvaeError, match=r"small\.json: width must be"):
        build(str(path))


def test_random_weights_depend_on_their_seed_alone() -> None:
    torch.manual_seed(1)
    first = load(KL, "random:7")
    torch.manual_seed(2)
    assert load(KL, "random:7").fingerprint == first.fingerprint
    assert load(KL, "random:8").fingerprint != first.fingerprint
    assert build(KL).fingerprint == build(KL).fingerprint


def test_another_process_draws_the_same_weights() -> None:
    code = f"from lvae.encode.autoencoder import load; print(load({KL!r}, 'random:7').fingerprint)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == load(KL, "random:7").fingerprint


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    build(KL)
    build({"kind": "vq", "width": 8, "multipliers": [1], "latent_channels": 2, "codes": 4})
    load(KL, "random:7")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_random_weights_are_scaled_as_torch_does() -> None:
    network = load("taesd", "random:0")
    weight = network.state_dict()["encoder.layers.3.conv.0.weight"]
    bound = (64 * 9) ** -0.5
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    assert abs(float(weight.mean())) < 4 * bound / 3**0.5 / weight.numel() ** 0.5  # four standard errors


@pytest.mark.parametrize(
    "weights", ["random:", "random:x", "random:-1", "random:1.5", "random:٣", "random:" + "9" * 30]
)
def test_seeds_must_be_whole_numbers(weights: str) -> None:
    with pytest.raises(LvaeError, match="SEED must be a whole number") as error:
        load(KL, weights)
    message(error)


def test_a_network_needs_weights() -> None:
    with pytest.raises(LvaeError, match=r"kl-f8: needs weights\. Fetch them with 'lvae autoencoder fetch kl-f8', or"):
        load("kl-f8", None)


def test_the_fingerprint_is_the_documented_recipe() -> None:
    network = build(KL)
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0" + ",".join(str(n) for n in tensor.shape).encode() + b"\0")
        digest.update(tensor.numpy().astype("<f4").tobytes())
    assert network.fingerprint == digest.hexdigest()


def test_the_fingerprint_notices_one_value() -> None:
    network = build(KL)
    before = network.fingerprint
    network.state_dict()["decoder.up.0.block.0.conv1.weight"][0, 0, 0, 0] += 1e-3
    assert network.fingerprint != before


def test_the_fingerprint_does_not_depend_on_the_precision_of_the_file() -> None:
    half = {name: tensor.half() for name, tensor in build(KL).state_dict().items()}
    prints = set()
    for dtype in (torch.float16, torch.float32, torch.float64):
        network = build(KL)
        network.load_state({name: tensor.to(dtype) for name, tensor in half.items()})
        assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())
        prints.add(network.fingerprint)
    assert len(prints) == 1


def test_stored_state_is_contiguous_float32_in_sorted_order() -> None:
    network = build(KL).to(memory_format=torch.channels_last).half()  # type: ignore[call-overload]
    state = network.state_for_storage()
    assert list(state) == sorted(network.state_dict())
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in state.values())


def test_a_network_on_the_meta_device_can_take_weights() -> None:
    with torch.device("meta"):
        network = build(KL)
    expected = load(KL, "random:3")
    network.load_state(expected.state_dict())
    assert network.fingerprint == expected.fingerprint
    for ready in (network, expected, build(KL)):
        assert not ready.training
        assert not any(parameter.requires_grad for parameter in ready.parameters())


def test_refused_weights_leave_the_network_as_it_was() -> None:
    network = build(KL)
    before = network.fingerprint
    state = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    state["quant_conv.weight"] = torch.full((8, 8, 1, 1), float("nan"))
    with pytest.raises(LvaeError, match=r"quant_conv\.weight holds numbers that are not finite"):
        network.load_state(state)
    assert network.fingerprint == before


def test_images_must_be_colour() -> None:
    with pytest.raises(ValueError, match="must be"):
        build(KL).encode(torch.zeros(1, 1, 16, 16))
