"""Files of weights: layouts, strictness, and files that are none."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from lvae.encode.autoencoder import LdmSpec, build, load
from lvae.encode.networks.base import Autoencoder, save_safetensors
from lvae.encode.weights.names import from_diffusers, to_diffusers
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {
    "kind": "kl",
    "width": 32,
    "multipliers": [1, 2, 2],
    "latent_channels": 4,
    "blocks": 1,
    "attention_levels": [1, 2],
}
VQ = {"kind": "vq", "width": 32, "multipliers": [1, 2], "latent_channels": 3, "blocks": 1, "codes": 16}


def kl() -> Autoencoder:
    return load(KL, "random:5")


def refusal(spec: Any, path: Path) -> str:
    """The message, which is one line and begins with the path."""
    with pytest.raises(LvaeError) as error:
        load(spec, path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def diffusers_kl(**changes: Any) -> Any:
    """diffusers' model of the architecture KL with its own random weights."""
    diffusers = pytest.importorskip("diffusers")
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 1,
    }
    return diffusers.AutoencoderKL(**(settings | changes)).eval().requires_grad_(False)


@st.composite
def specs(draw: st.DrawFn) -> LdmSpec:
    multipliers = tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=4)))
    levels = draw(st.sets(st.integers(0, len(multipliers) - 1)))
    blocks, middle = draw(st.integers(1, 2)), draw(st.booleans())
    shared = (draw(st.integers(1, 4)), multipliers, draw(st.integers(1, 3)), blocks, tuple(sorted(levels)), middle)
    return draw(st.sampled_from([LdmSpec("kl", *shared), LdmSpec("vq", *shared, codes=5)]))


@given(spec=specs())
@settings(max_examples=30, deadline=None)
def test_names_survive_the_way_to_diffusers_and_back(spec: LdmSpec) -> None:
    network = build(spec)
    state = network.state_dict()
    theirs = to_diffusers(state, network.architecture)
    assert len(theirs) == len(state)
    assert all(tensor.ndim == 2 for name, tensor in theirs.items() if name.endswith("to_q.weight"))
    back = from_diffusers(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert from_diffusers(state).keys() == state.keys()


def test_a_saved_file_loads_with_the_same_fingerprint_and_equal_bytes(tmp_path: Path) -> None:
    for spec in (KL, VQ, {"kind": "tiny", "latent_channels": 4, "width": 8}):
        network = load(spec, "random:5")
        data = save_safetensors(network)
        path = tmp_path / "weights.safetensors"
        path.write_bytes(data)
        again = load(spec, str(path))
        assert again.fingerprint == network.fingerprint
        assert save_safetensors(again) == data
        path.unlink()
        assert again.fingerprint == network.fingerprint  # nothing is mapped any more


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae.", "dae."])
def test_a_first_stage_is_found_inside_bigger_checkpoints(prefix: str, tmp_path: Path) -> None:
    network = kl()
    state = {prefix + name: tensor.clone() for name, tensor in network.state_dict().items()}
    state |= {f"{prefix}loss.logvar": torch.zeros(()), f"{prefix}loss.discriminator.main.0.weight": torch.zeros(3)}
    state |= {f"{prefix}model_ema.decay": torch.zeros(()), f"{prefix}quantize.used": torch.zeros(3, dtype=torch.int64)}
    if prefix:
        state |= {"model.diffusion_model.out.weight": torch.zeros(2), "betas": torch.zeros(5)}
    if prefix == "dae.":  # the paper's pipelines: `vae.` is the hierarchical VAE
        state["vae.encoder.conv_in.weight"] = torch.zeros(8, 4, 3, 3)
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    assert load(KL, path).fingerprint == network.fingerprint


def test_attention_matrices_are_taken_with_and_without_trailing_ones() -> None:
    network = kl()
    state = network.state_dict()
    flat = {name: tensor.flatten(1) if ".q." in name and tensor.ndim == 4 else tensor for name, tensor in state.items()}
    square = {
        name: tensor[:, :, None, None] if name.endswith("to_k.weight") else tensor
        for name, tensor in to_diffusers(state, KL).items()
    }
    for form in (flat, square):
        other = build(KL)
        other.load_state(form)
        assert other.fingerprint == network.fingerprint


def test_early_names_of_attention_are_known() -> None:
    network = kl()
    early = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state: dict[str, Tensor] = {}
    for name, tensor in to_diffusers(network.state_dict(), KL).items():
        for new, old in early.items():
            name = name.replace(f".{new}.", f".{old}.")
        state[name] = tensor
    assert any(".proj_attn." in name for name in state)
    other = build(KL)
    other.load_state(state)
    assert other.fingerprint == network.fingerprint


@pytest.mark.parametrize("subfolder", ["", "vae"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_folders_written_by_diffusers_load(subfolder: str, variant: str | None, tmp_path: Path) -> None:
    model = diffusers_kl()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (model.half() if variant else model).save_pretrained(tmp_path / subfolder, variant=variant)
    ours = load(KL, tmp_path)
    expected = model.float().encode(image).latent_dist.mean
    assert torch.allclose(ours.encode(image), expected, rtol=1e-4, atol=1e-6)  # rounding in another order


def test_folders_of_vq_and_tiny_models_load(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vq = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        num_vq_embeddings=16,
    ).eval()
    vq.save_pretrained(tmp_path / "pipeline" / "vqvae")
    expected = vq.encode(image).latents
    assert torch.allclose(load(VQ, tmp_path / "pipeline").encode(image), expected, rtol=1e-4, atol=1e-6)
    tiny = diffusers.AutoencoderTiny().eval()
    tiny.save_pretrained(tmp_path / "tiny")
    assert torch.allclose(load("taesd", tmp_path / "tiny").encode(image), tiny.encode(image).latents, rtol=1e-6)


def test_a_folder_with_the_two_files_of_taesd_loads(tmp_path: Path) -> None:
    network = load("taesd", "random:1")
    files: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for name, tensor in network.state_dict().items():
        part, _, number, rest = name.split(".", 3)
        files[part][f"{int(number) + (part == 'decoder')}.{rest}"] = tensor
    for part, state in files.items():
        save_file(state, tmp_path / f"taesd_{part}.safetensors")
    assert load("taesd", tmp_path).fingerprint == network.fingerprint


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save_safetensors(kl()))
    assert refusal(KL | {"latent_channels": 3}, path) == (
        f"{path}: decoder.conv_in.weight has shape (64, 4, 3, 3), but the autoencoder described needs (64, 3, 3, 3): "
        "these are weights of another architecture."
    )
    assert "decoder.mid.attn_1.k.bias (64,) is not expected by" in refusal(KL | {"middle_attention": False}, path)
    assert "decoder.up.0.attn.0.k.bias is missing, which" in refusal(KL | {"attention_levels": [0, 1, 2]}, path)
    assert (
        "decoder.conv_in.weight has shape (64, 4, 3, 3), but the autoencoder described needs (64, 3, 3, 3)"
        in refusal(VQ, path)
    )
    assert "is not expected by taesd" in refusal("taesd", path)


def test_a_published_architecture_under_another_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = build("vq-f4").state_dict()
    save_file({name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in state.items()}, path)
    assert refusal("kl-f8", path) == (
        f"{path}: decoder.conv_in.weight has shape (512, 3, 3, 3), but kl-f8 needs (512, 4, 3, 3): these are weights "
        "of vq-f4, not kl-f8."
    )
    assert refusal("kl-f4", path).endswith("these are weights of vq-f4, not kl-f4.")
    assert refusal("taesd", path).endswith("these are weights of vq-f4, not taesd.")
    assert refusal(KL, path).endswith("these are weights of vq-f4, not the autoencoder described.")
    path.write_bytes(save_safetensors(kl()))
    assert refusal("kl-f8", path).endswith(
        "these are weights of a kl autoencoder of 32, 64, 64 channels with 4 latent channels, not kl-f8."
    )


def test_names_from_a_file_stay_on_one_line() -> None:
    state = kl().state_dict()
    with pytest.raises(LvaeError) as error:
        build(KL).load_state(state | {"encoder.a\nb" * 500: torch.zeros(1)})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "encoder.conv_out.bias", "post_quant_conv.weight"])
def test_a_missing_tensor_is_named(name: str) -> None:
    state = kl().state_dict()
    del state[name]
    with pytest.raises(LvaeError, match=rf"{name}.* is missing"):
        build(KL).load_state(state)


def test_unknown_and_doubled_tensors_are_refused() -> None:
    state = kl().state_dict()
    with pytest.raises(LvaeError, match=r"encoder\.else \(1,\) is not expected"):
        build(KL).load_state(state | {"encoder.else": torch.zeros(1)})
    doubled = state | {"encoder.conv_norm_out.weight": torch.zeros(64)}
    with pytest.raises(LvaeError, match=r"encoder\.norm_out\.weight is there twice"):
        build(KL).load_state(doubled)


def test_numbers_other_than_floating_point_are_refused() -> None:
    state = {name: tensor.to(torch.int32) for name, tensor in kl().state_dict().items()}
    with pytest.raises(LvaeError, match=r"decoder\.conv_in\.bias holds torch\.int32"):
        build(KL).load_state(state)


def safetensors_bytes(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


HUGE = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
HOSTILE = {
    "empty": (b"", "is empty"),
    "one byte": (b"\x80", "(1 bytes)"),
    "garbage": (b"garbage that is no file of weights at all", "not a .safetensors file"),
    "page": (b"\n<!DOCTYPE html><html><title>404</title>", "an HTML page (40 bytes) instead of weights"),
    "page with a byte order mark": (b"\xef\xbb\xbf<html>", "an HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Run 'git lfs pull'"),
    "legacy pickle": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "an incomplete download"),
    "other pickle": (b"\x80\x04K\x01.", "a pickled int instead of tensors by name"),
    "zip": (b"PK\x03\x04" + bytes(60), "an incomplete download or damaged (64 bytes"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "a packed archive"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(300), "a packed archive"),
    "long header": ((10**12).to_bytes(8, "little") + b"{}", "incomplete download"),
    "endless header": (safetensors_bytes(b"{" + b" " * (16 << 20) + b"}"), "not a .safetensors file"),
    "no json": (safetensors_bytes(b"{not json}"), "damaged or incomplete"),
    "line feed in a name": (
        safetensors_bytes({"a\nb": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}, bytes(4)),
        "holds no image autoencoder",
    ),
    "no utf-8": (safetensors_bytes(b"{\xff\xfe}"), "damaged or incomplete"),
    "huge tensor": (safetensors_bytes({"a": HUGE}, bytes(4)), "damaged or incomplete"),
    "overlap": (
        safetensors_bytes({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
        "damaged or incomplete",
    ),
    "unknown dtype": (
        safetensors_bytes({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "damaged or incomplete",
    ),
    "no tensors": (safetensors_bytes({}), "holds no image autoencoder"),
    "another model": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        "encoder.conv_in.weight of shape (width, 3, 3, 3) is missing",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    content, expected = HOSTILE[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert expected in refusal(KL, path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    data = save_safetensors(kl())
    path = tmp_path / "model.safetensors"
    path.write_bytes(data[: max(9, int(share * len(data)))])
    assert "incomplete" in refusal(KL, path)


def test_files_that_are_not_there_or_no_files(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(KL, tmp_path / "missing.safetensors")
    with pytest.raises(LvaeError, match=r"encoder\.pth: no such file\."):
        load("taesd", f"{tmp_path}/encoder.pth,{tmp_path}/decoder.pth")
    assert "not a regular file" in refusal(KL, Path("/dev/null"))


def test_folders_without_weights_are_refused(tmp_path: Path) -> None:
    assert "has no config.json, nor do vae/ and vqvae/ in it" in refusal(KL, tmp_path)
    diffusers_kl().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    assert "has no diffusion_pytorch_model.safetensors (or .bin)" in refusal(KL, tmp_path)
    for content in (b"", b"<html>", b"[]", b"[" * 100_000):
        (tmp_path / "config.json").write_bytes(content)
        assert "config.json: not a JSON object" in refusal(KL, tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"_class_name": "VQModel"}, "describes 'VQModel', not 'AutoencoderKL'"),
        ({"_class_name": "UNet2DModel"}, "describes 'UNet2DModel', not 'AutoencoderKL'"),
        ({"_class_name": None}, "describes 'None', not 'AutoencoderKL'"),
        ({"_class_name": ["a"]}, "not 'AutoencoderKL'"),
        ({"act_fn": "relu"}, "act_fn is 'relu', where only 'silu' is supported"),
        ({"use_quant_conv": False}, "use_quant_conv is False"),
        ({"norm_num_groups": 16}, "norm_num_groups is 16, but 32 channels are normalized in 32 groups here"),
    ],
)
def test_a_configuration_that_differs_is_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    diffusers_kl().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    assert expected in refusal(KL, folder)


def test_old_configurations_with_few_fields_are_accepted(tmp_path: Path) -> None:
    diffusers_kl().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    assert load(KL, tmp_path).name == "custom"


def test_the_full_precision_file_is_preferred(tmp_path: Path) -> None:
    model = diffusers_kl()
    model.save_pretrained(tmp_path)
    expected = load(KL, tmp_path).fingerprint
    shutil.copy(tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "kept")
    model.half().save_pretrained(tmp_path, variant="fp16")
    shutil.move(tmp_path / "kept", tmp_path / "diffusion_pytorch_model.safetensors")
    assert load(KL, tmp_path).fingerprint == expected
