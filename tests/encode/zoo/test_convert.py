"""Converting any file of weights: names, descriptions, and what is never overwritten."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file as load_tensors

from lvae.commands.autoencoder import COMMANDS, autoencoder
from lvae.encode.autoencoder import build, load, load_file
from lvae.encode.catalogue.architectures import KNOWN, LdmSpec, parse_spec
from lvae.encode.networks.base import Autoencoder
from lvae.encode.weights.folder import describe_for_diffusers
from lvae.encode.weights.names import from_diffusers, to_diffusers
from lvae.encode.zoo.convert import convert
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {"kind": "kl", "width": 32, "multipliers": [1, 2], "latent_channels": 4, "blocks": 1, "attention_levels": [0]}
VQ = {"kind": "vq", "width": 32, "multipliers": [1, 2], "latent_channels": 3, "middle_attention": False, "codes": 9}
TINY = {"kind": "tiny", "latent_channels": 16, "width": 8}
EARLY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
PUBLISHED = [name for name, spec in KNOWN.items() if isinstance(spec, LdmSpec)]


def checkpoint(spec: Any, path: Path, **others: torch.Tensor) -> Autoencoder:
    network = load(spec, "random:3")
    torch.save({"state_dict": dict(network.state_dict()) | others, "epoch": 1}, path)
    return network


def diffusers_twin(architecture: Any, config: dict[str, Any]) -> Any:
    diffusers = pytest.importorskip("diffusers")
    given = {name: value for name, value in config.items() if not name.startswith("_")}
    return getattr(diffusers, config["_class_name"])(**given).eval()


@pytest.mark.parametrize("name", [*PUBLISHED, "taesd", "taesd3"])
def test_every_published_model_has_diffusers_names_both_ways(name: str) -> None:
    with torch.device("meta"):
        state = build(name).state_dict()
        twin = diffusers_twin(name, describe_for_diffusers(parse_spec(name), {}))
    theirs = to_diffusers(state, build_architecture(name))
    wanted = {key: tuple(tensor.shape) for key, tensor in twin.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in theirs.items()} == wanted
    ours = {key: tuple(tensor.shape) for key, tensor in state.items()}
    assert {key: tuple(tensor.shape) for key, tensor in from_diffusers(twin.state_dict()).items()} == ours
    early = {}
    for key, tensor in theirs.items():
        for new, old in EARLY.items():
            key = key.replace(f".{new}.", f".{old}.")
        early[key] = tensor
    assert {key: tuple(tensor.shape) for key, tensor in from_diffusers(early).items()} == ours


def build_architecture(name: str) -> dict[str, Any]:
    with torch.device("meta"):
        return build(name).architecture


@pytest.mark.parametrize("spec", [KL, VQ, TINY], ids=["kl", "vq", "tiny"])
def test_a_checkpoint_becomes_a_canonical_file_and_its_description(spec: Any, tmp_path: Path) -> None:
    network = checkpoint(spec, tmp_path / "model.ckpt", scale_factor=torch.tensor(0.25))
    conversion = convert(str(tmp_path / "model.ckpt"), tmp_path / "out" / "model.safetensors")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.safetensors"]
    assert load_tensors(tmp_path / "out" / "model.safetensors").keys() == network.state_dict().keys()
    assert load_file(tmp_path / "out" / "model.safetensors").fingerprint == network.fingerprint
    description = json.loads((tmp_path / "out" / "model.json").read_text())
    assert description["format"] == "latent-vae-autoencoder"
    assert build(description["architecture"]).architecture == network.architecture
    assert description["fingerprint"] == conversion.fingerprint == network.fingerprint
    assert description["scale"] == {"scale_factor": 0.25}
    assert description["tensors"] == len(network.state_dict())
    source = description["sources"][0]
    assert source["path"] == "model.ckpt"
    assert source["bytes"] == (tmp_path / "model.ckpt").stat().st_size
    assert str(tmp_path) not in json.dumps(description)


@pytest.mark.parametrize("spec", [KL, VQ, TINY], ids=["kl", "vq", "tiny"])
def test_a_folder_for_diffusers_gives_the_same_pictures_there(spec: Any, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    network = checkpoint(spec, tmp_path / "model.ckpt")
    out = tmp_path / "folder"
    convert(str(tmp_path / "model.ckpt"), out, layout="diffusers")
    config = json.loads((out / "config.json").read_text())
    theirs = getattr(diffusers, config["_class_name"]).from_pretrained(out).eval()
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        encoded = theirs.encode(image)
        latents = encoded.latent_dist.mean if spec is KL else encoded.latents
        assert torch.allclose(network.encode(image), latents, rtol=1e-4, atol=1e-5)  # rounding in another order
        assert torch.allclose(network.decode(latents), theirs.decode(latents).sample, rtol=1e-4, atol=1e-4)
    assert load_file(out).fingerprint == network.fingerprint
    assert json.loads((tmp_path / "folder.json").read_text())["layout"] == "diffusers"


def test_scales_survive_from_folder_to_folder(tmp_path: Path) -> None:
    checkpoint(KL, tmp_path / "model.ckpt", scale_factor=torch.tensor(0.5))
    assert convert(str(tmp_path / "model.ckpt"), tmp_path / "a", layout="diffusers").scale == {"scale_factor": 0.5}
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["scaling_factor"] == 0.5
    (tmp_path / "a" / "config.json").write_text(
        json.dumps(config | {"shift_factor": 0.1, "latents_mean": [1, 2, 3, 4.5]})
    )
    scale = {"scaling_factor": 0.5, "shift_factor": 0.1, "latents_mean": [1, 2, 3, 4.5]}
    assert convert(str(tmp_path / "a"), tmp_path / "b", layout="diffusers").scale == scale
    assert convert(str(tmp_path / "b"), tmp_path / "c.safetensors").scale == scale


def test_channels_that_diffusers_cannot_describe_are_refused() -> None:
    with pytest.raises(LvaeError, match=r"cannot describe channels \[8, 32\]"):
        describe_for_diffusers(LdmSpec("kl", 8, (1, 4), 3), {})


def test_converting_again_changes_nothing_and_others_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    checkpoint(KL, source)
    first = convert(str(source), out)
    before = out.stat().st_mtime_ns, (tmp_path / "model.json").stat().st_mtime_ns
    assert convert(str(source), out) == first
    assert (out.stat().st_mtime_ns, (tmp_path / "model.json").stat().st_mtime_ns) == before
    torch.save(load(KL, "random:4").state_dict(), source)
    kept = out.read_bytes()
    with pytest.raises(LvaeError, match=r"model\.safetensors: exists and differs"):
        convert(str(source), out)
    assert out.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "model.json", "model.safetensors"]


def test_a_demanded_architecture_is_checked_and_nothing_is_written(tmp_path: Path) -> None:
    checkpoint(KL, tmp_path / "model.ckpt")
    assert convert(str(tmp_path / "model.ckpt"), tmp_path / "a.safetensors", json.dumps(KL)).name == "custom"
    with pytest.raises(LvaeError, match=r"these are weights of a kl autoencoder of 32, 64 channels .*, not kl-f8\."):
        convert(str(tmp_path / "model.ckpt"), tmp_path / "b.safetensors", "kl-f8")
    with pytest.raises(LvaeError, match="neither a JSON file nor the name of an autoencoder"):
        convert(str(tmp_path / "model.ckpt"), tmp_path / "b.safetensors", "kl-f9")
    with pytest.raises(LvaeError, match=r"must end in \.safetensors"):
        convert(str(tmp_path / "model.ckpt"), tmp_path / "b.ckpt")
    assert not list(tmp_path.glob("b.*"))


def test_the_command_prints_what_it_found(tmp_path: Path) -> None:
    network = checkpoint(KL, tmp_path / "model.ckpt", scale_factor=torch.tensor(0.5))
    arguments = ["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "out.safetensors")]
    result = CliRunner().invoke(autoencoder, arguments, catch_exceptions=False)
    assert result.output == (
        f"{tmp_path}/out.safetensors: a kl autoencoder of 32, 64 channels with 4 latent channels, "
        f"{len(network.state_dict())} tensors, {sum(t.numel() for t in network.state_dict().values())} parameters\n"
        f"fingerprint {network.fingerprint}\nscale_factor 0.5 (recorded, not applied)\n"
    )
    result = CliRunner().invoke(autoencoder, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(result.output) == json.loads((tmp_path / "out.json").read_text())
    assert (autoencoder,) == COMMANDS


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from lvae.commands.autoencoder import autoencoder\n"
        "autoencoder(['convert', '--help'], standalone_mode=False); assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "--layout [compvis|diffusers]" in run.stdout
