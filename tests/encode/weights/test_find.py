"""Autoencoders inside of what trainers save: wrappers, prefixes, copies, and what lies beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lvae.encode.autoencoder import build, load, load_file
from lvae.encode.catalogue.architectures import LdmSpec, describe
from lvae.encode.weights.find import find_autoencoder
from lvae.encode.weights.read import read
from lvae.encode.zoo.convert import convert
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {"kind": "kl", "width": 4, "multipliers": [1, 2], "latent_channels": 4, "blocks": 1, "attention_levels": [1]}
VQ = {"kind": "vq", "width": 4, "multipliers": [1, 2], "latent_channels": 3, "blocks": 1, "codes": 8}
TINY = {"kind": "tiny", "latent_channels": 4, "width": 4}
State = dict[str, Tensor]
RAW, AVERAGED = load(KL, "random:1"), load(KL, "random:2")


def below(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def wrapped_inside(state: State) -> State:
    """As when encoder and decoder are compiled or distributed one by one."""
    return {
        name.replace("encoder.", "encoder._orig_mod.").replace("decoder.", "decoder.module."): t
        for name, t in state.items()
    }


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "model": lambda s: {"model": s, "epoch": 3},
    "ema": lambda s: {"ema": s, "opt": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "state_dict": lambda s: {"state_dict": s, "global_step": 1},
    "generator": lambda s: {"generator": s, "discriminator": {"main.0.weight": torch.zeros(2, 3, 4, 4)}},
    "model in state_dict": lambda s: {"state_dict": {"model": s}},
    "model_ema in model": lambda s: {"model": {"model_ema": s}},
    "module.": lambda s: below("module.", s),
    "_orig_mod.": lambda s: below("_orig_mod.", s),
    "module._orig_mod.": lambda s: {"model": below("module._orig_mod.", s)},
    "first_stage_model.": lambda s: {"state_dict": below("model._orig_mod.first_stage_model.", s)},
    "lightning": lambda s: {"state_dict": below("autoencoder.", s) | {"discriminator.0.weight": torch.zeros(3)}},
    "tokenizer": lambda s: {"state_dict": below("tokenizer.model.", s)},
    "encoder and decoder compiled": wrapped_inside,
    "parts": lambda s: {
        part: {name.removeprefix(f"{part}."): t for name, t in s.items() if name.startswith(f"{part}.")}
        for part in ("encoder", "decoder", "quant_conv", "post_quant_conv")
    },
    "a list": lambda s: [s, {"param_groups": []}],
    "deepspeed": lambda s: {"module": below("vae.", s), "ds_version": "0.1"},
    "ema of accelerate": lambda s: {"ema_model": below("module.", s), "decay": 0.999},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_an_autoencoder_is_found_below_whatever_it_was_saved(name: str, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[name](RAW.state_dict()), tmp_path / "model.pt")
    assert load_file(tmp_path / "model.pt").fingerprint == RAW.fingerprint
    assert load(KL, tmp_path / "model.pt").fingerprint == RAW.fingerprint


COPIES: dict[str, Callable[[State, State], Any]] = {
    "keys": lambda raw, ema: {"model": raw, "ema": ema},
    "wrapped": lambda raw, ema: {"state_dict": below("module.", raw), "state_dict_ema": below("module.", ema)},
    "prefixes": lambda raw, ema: {"state_dict": below("vae.", raw) | below("vae_ema.", ema)},
    "beside": lambda raw, ema: raw | below("ema_model.", ema),
    "capitals": lambda raw, ema: {"G": raw, "G_EMA": ema},
    "ema-pytorch": lambda raw, ema: {"ema": below("online_model.", raw) | below("ema_model.", ema)},
    "a rate in its name": lambda raw, ema: {"model": raw, "ema_0.9999": ema},
}


@pytest.mark.parametrize("name", COPIES)
def test_of_two_copies_the_averaged_one_is_taken_and_said(name: str, tmp_path: Path) -> None:
    torch.save(COPIES[name](RAW.state_dict(), AVERAGED.state_dict()), tmp_path / "model.pt")
    said: list[str] = []
    found = convert(str(tmp_path / "model.pt"), tmp_path / "out.safetensors", say=said.append)
    assert found.fingerprint == AVERAGED.fingerprint
    assert "of 2 autoencoders the one below" in said[0]
    assert "ema" in said[0].split("is taken")[0].lower()


def test_names_that_ldm_gives_its_averages_are_left_aside_and_said() -> None:
    state = RAW.state_dict()
    averages = {f"model_ema.{name.replace('.', '')}": t for name, t in AVERAGED.state_dict().items()}
    found = find_autoencoder({"state_dict": state | averages}, "x")
    assert found.tensors.keys() == state.keys()
    assert found.notes == ("left aside: state_dict.model_ema",)


def test_teachers_losses_and_projections_are_left_aside_and_said(tmp_path: Path) -> None:
    beside = {
        "foundation_model.model.cls_token": torch.zeros(1, 1, 8),
        "linear_proj.weight": torch.zeros(16, 4, 1, 1),
        "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
        "loss.perceptual_loss.net.slice1.0.weight": torch.zeros(64, 3, 3, 3),
        "counter": torch.zeros(()),
    }
    teacher = below("teacher.", AVERAGED.state_dict())
    torch.save({"state_dict": dict(RAW.state_dict()) | beside | teacher}, tmp_path / "vavae.pt")
    contents = read(tmp_path / "vavae.pt")
    assert load_file(tmp_path / "vavae.pt").fingerprint == RAW.fingerprint
    assert contents.notes[0].endswith("the one below state_dict is taken, not below state_dict.teacher")
    for name in ("counter", "foundation_model", "linear_proj", "loss"):
        assert name in contents.notes[1]


def test_counters_of_a_codebook_are_left_aside(tmp_path: Path) -> None:
    network = load(VQ, "random:1")
    beside = {f"quantize.{name}": torch.zeros(8) for name in ("used", "cluster_size", "embed_avg", "codebook_used")}
    save_file(dict(network.state_dict()) | beside, tmp_path / "vq.safetensors")
    assert load_file(tmp_path / "vq.safetensors").fingerprint == network.fingerprint


@pytest.mark.parametrize("name", ["encoder.down.0.attn.0.other.weight", "decoder.more.weight", "quantize.more"])
def test_what_stands_inside_and_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    save_file(dict(RAW.state_dict()) | {name: torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(LvaeError, match="is not expected"):
        load_file(tmp_path / "model.safetensors")


def test_two_sets_under_wrapped_names_are_refused(tmp_path: Path) -> None:
    save_file(below("module.", RAW.state_dict()) | AVERAGED.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(LvaeError, match="is there twice, under two names"):
        load_file(tmp_path / "model.safetensors")


SPELLINGS = {
    "to_q": {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"},
    "to_out": {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out"},
    "early": {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn", "norm": "group_norm"},
    "norm only": {"norm": "group_norm"},
    "half": {"q": "to_q", "proj_out": "proj_attn"},
}


@pytest.mark.parametrize("sides", [2, 3, 4])
@pytest.mark.parametrize("where", [".attn_1.", ".attn.", ".attn"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_attention_is_known_in_some_blocks_or_all(name: str, where: str, sides: int) -> None:
    state: State = {}
    for key, tensor in RAW.state_dict().items():
        place, _, rest = key.rpartition(".attn")
        number, _, layer = rest.partition(".") if not rest.startswith(".") else rest[1:].partition(".")
        layer, _, leaf = layer.rpartition(".")
        if place and where in key:
            separator = "." if rest.startswith(".") else ""
            key = f"{place}.attn{separator}{number}.{SPELLINGS[name].get(layer, layer)}.{leaf}"
            tensor = tensor.reshape(tensor.shape[:sides]) if tensor.ndim == 4 else tensor
        state[key] = tensor
    other = build(KL)
    other.load_state(state)
    assert other.fingerprint == RAW.fingerprint


def test_a_decoder_may_attend_at_other_levels_than_its_encoder(tmp_path: Path) -> None:
    """As in MAR's KL-16, whose weights lie below `model`."""
    spec = LdmSpec("kl", 4, (1, 2), 4, blocks=1, attention_levels=(1,), decoder_attention_levels=())
    network = load(spec, "random:3")
    assert not any("decoder.up.1.attn" in name for name in network.state_dict())
    torch.save({"model": network.state_dict()}, tmp_path / "kl16.ckpt")
    found = load_file(tmp_path / "kl16.ckpt")
    assert found.fingerprint == network.fingerprint
    assert found.architecture == describe(spec)
    assert found.architecture["decoder_attention_levels"] == []
    assert load(found.architecture, tmp_path / "kl16.ckpt").fingerprint == network.fingerprint
    same = LdmSpec("kl", 4, (1, 2), 4, blocks=1, attention_levels=(1,), decoder_attention_levels=(1,))
    assert same == LdmSpec("kl", 4, (1, 2), 4, blocks=1, attention_levels=(1,))
    assert "decoder_attention_levels" not in describe(same)  # descriptions of before stay what they were
    with pytest.raises(LvaeError, match=r"decoder_attention_levels must be a whole number from 0 to 1"):
        LdmSpec("kl", 4, (1, 2), 4, decoder_attention_levels=(2,))


def test_what_encoder_and_decoder_do_not_share_and_is_not_supported_is_named() -> None:
    state = RAW.state_dict()

    def refusal(changed: State) -> str:
        from lvae.encode.catalogue.recognize import recognize

        with pytest.raises(LvaeError) as error:
            recognize(changed, "x.pt")
        return str(error.value)

    one_sided = {name: t for name, t in state.items() if not name.startswith("decoder.mid.attn_1.")}
    assert "attention in the middle of only one of encoder and decoder is not supported" in refusal(one_sided)
    deeper = state | {"decoder.up.0.block.2.conv1.weight": state["decoder.up.0.block.1.conv1.weight"]}
    assert "a decoder of 3 blocks a level is not supported, only 2" in refusal(deeper)
    wider = state | {"decoder.up.0.block.0.conv1.weight": torch.zeros(16, 8, 3, 3)}
    assert "a decoder of [16, 8] channels to an encoder of [4, 8] is not supported" in refusal(wider)
    assert "quant_conv.weight is missing" in refusal({n: t for n, t in state.items() if "quant_conv" not in n})


def test_a_network_that_was_saved_whole_is_read_without_its_classes(tmp_path: Path) -> None:
    torch.save({"vae": RAW, "optimizer": nn.Linear(1, 1)}, tmp_path / "model.pt")
    assert load_file(tmp_path / "model.pt").fingerprint == RAW.fingerprint


def test_without_any_the_first_layer_is_named(tmp_path: Path) -> None:
    torch.save({"model": {"blocks.0.weight": torch.zeros(3)}}, tmp_path / "dit.pt")
    with pytest.raises(LvaeError, match=r"holds no image autoencoder: encoder\.conv_in\.weight of shape"):
        load_file(tmp_path / "dit.pt")
