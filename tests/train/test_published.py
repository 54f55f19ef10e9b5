"""Published weights: state dicts and files, in and out, and what is said about files that do not fit."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import PRESETS
from lvae.train.published import load_published
from lvae.train.published_weights.architecture import config_of
from tests.train.model_examples import CONDITIONAL, EXAMPLES, PLAIN, UPSAMPLER, batch, lively

torch.set_num_threads(1)


def published(model: HierarchicalVAE) -> dict[str, Tensor]:
    """The state dict as published code has it: without vectors."""
    return {name: t for name, t in model.state_dict().items() if not name.endswith("singular_vectors")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_model_comes_back_from_its_state_dict(name: str) -> None:
    config = replace(EXAMPLES[name], attention="published")
    model, (x, labels) = lively(config), batch(config)
    loaded = load_published(published(model), config)
    assert loaded.config == config
    for found, expected in zip(loaded(x, labels)[:3], model(x, labels)[:3], strict=True):
        assert found.equal(expected)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "upsampler"])
def test_the_architecture_is_found_by_the_shapes(name: str) -> None:
    config = replace(EXAMPLES[name], attention="published")
    model, (x, labels) = lively(config), batch(config)
    loaded = load_published(published(model))
    assert loaded.config.attention == "published"
    assert loaded(x, labels).mean.equal(model(x, labels).mean)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recognized(name: str) -> None:
    with torch.device("meta"):
        model = HierarchicalVAE(PRESETS[name].model)
    shapes = {key: tuple(tensor.shape) for key, tensor in published(model).items()}
    assert config_of(shapes, "a file") == replace(PRESETS[name].model, attention="published")


def test_a_given_config_is_read_with_published_attention() -> None:
    assert load_published(published(lively(PLAIN)), PLAIN).config == replace(PLAIN, attention="published")


@pytest.mark.parametrize("suffix", ["", ".conv"])
def test_vectors_are_taken_when_present_and_drawn_otherwise(suffix: str) -> None:
    model = lively(CONDITIONAL)
    name = "layer_list.1.layer_list.0.prior_block.dense2"
    vector = torch.arange(1.0, 1 + len(model.get_parameter(f"{name}.conv.weight")))[None]
    loaded = load_published({**published(model), f"{name}{suffix}.singular_vectors": vector}, CONDITIONAL)
    assert loaded.get_buffer(f"{name}.singular_vectors").equal(vector)
    others = [b for key, b in loaded.named_buffers() if key != f"{name}.singular_vectors"]
    assert all(b.isfinite().all() and (b != 0).all() for b in others)
    assert loaded.spectral().isfinite()


@pytest.mark.parametrize("kind", ["pt", "legacy", "safetensors"])
def test_files_beside_an_autoencoder(kind: str, tmp_path: Path) -> None:
    model, (x, labels) = lively(replace(CONDITIONAL, attention="published")), batch(CONDITIONAL)
    state = {f"vae.{name}": t for name, t in published(model).items()} | {"dae.loss.logvar": torch.zeros(())}
    path = tmp_path / "inet_pipeline.pt"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "pt")
    assert load_published(path)(x, labels).mean.equal(model(x, labels).mean)
    assert load_published(str(path)).config.classes == 5
    assert load_published({"state_dict": state})(x, labels).mean.equal(model(x, labels).mean)


def test_half_precision_is_read_as_float32() -> None:
    state = {name: tensor.half() for name, tensor in published(lively(PLAIN)).items()}
    assert {parameter.dtype for parameter in load_published(state, PLAIN).parameters()} == {torch.float32}


def test_the_first_difference_is_named_with_both_shapes() -> None:
    state = published(lively(PLAIN))
    name = "encoder.encoder_levels.1.layer_list.0.conv1.weight"
    with pytest.raises(LvaeError, match=rf"{name} has shape \(12, 12, 1, 1\), expected is \(12, 12, 3, 3\)"):
        load_published({**state, name: torch.zeros(12, 12, 1, 1)}, PLAIN)
    missing = {key: tensor for key, tensor in state.items() if key != name}
    with pytest.raises(LvaeError, match=rf"{name} of shape \(12, 12, 3, 3\) is missing"):
        load_published(missing, PLAIN)
    with pytest.raises(LvaeError, match=r"encoder.more.weight of shape \(1,\) is not expected"):
        load_published({**state, "encoder.more.weight": torch.zeros(1)}, PLAIN)
    with pytest.raises(LvaeError, match="has shape"):
        load_published(state, replace(PLAIN, width=16))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "layer_list"),
        ({"encoder.conv_in.weight": torch.zeros(8, 3, 3, 3)}, "not the weights of a published VAE"),
        (
            {"layer_list.0.layer_list.0.zproj.weight": torch.zeros(3)},
            "encoder.encoder_levels.0.layer_list.0 is missing",
        ),
        ({"layer_list.99999999.layer_list.0.zproj.weight": torch.zeros(3)}, "layer_list.0 is missing"),
        ({"layer_list.9999.layer_list.0.zproj.weight": torch.zeros(3)}, "is missing"),
        ({"epoch": 3}, "'epoch' is a int, not a tensor"),
    ],
)
def test_other_state_dicts_are_refused_in_one_sentence(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(LvaeError, match=message) as caught:
        load_published(state)
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused() -> None:
    state = published(lively(PLAIN))
    with pytest.raises(LvaeError, match=r"outproj.bias holds numbers that are not finite"):
        load_published({**state, "outproj.bias": torch.full((8,), torch.inf)}, PLAIN)


def test_an_upsamplers_resolution_must_be_told() -> None:
    with pytest.raises(LvaeError, match="do not tell its resolution"):
        load_published(published(lively(UPSAMPLER)))


class Hostile:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (self.mark,)


def test_a_hostile_file_runs_nothing_and_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    for number, write in enumerate((torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))):
        path = tmp_path / f"{number}.pt"
        write({"vae.outproj.weight": Hostile(mark)}, path)
        with pytest.raises(LvaeError, match=r"could run code.*Nothing of it was run") as caught:
            load_published(path)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("length", [0, 5, 100, 5000])
def test_a_truncated_file_is_refused(kind: str, length: int, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    state = published(lively(PLAIN))
    if kind == "pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LvaeError, match=str(path)) as caught:
        load_published(path)
    assert "\n" not in str(caught.value)


def test_files_without_tensors_by_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(torch.zeros(3), path)
    with pytest.raises(LvaeError, match="a lone tensor instead of tensors by name"):
        load_published(path)
    with pytest.raises(LvaeError, match="no such file"):
        load_published(tmp_path / "nowhere.pt")


def test_the_number_of_heads_has_no_effect(config: ModelConfig = CONDITIONAL) -> None:
    state, (x, labels) = published(lively(config)), batch(config)
    first = load_published(state, config)
    second = load_published(state, replace(config, heads=(0, 1, 2, 4)))
    assert first(x, labels).mean.equal(second(x, labels).mean)
