"""Folders of weights: variants, shards, the hub's cache, downloads."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lvae.encode.autoencoder import load, load_file
from lvae.encode.weights.names import to_diffusers
from lvae.encode.weights.read import read
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {"kind": "kl", "width": 32, "multipliers": [1, 2], "latent_channels": 4, "blocks": 1}
NETWORK = load(KL, "random:1")
STATE = {name: t.contiguous() for name, t in to_diffusers(NETWORK.state_dict(), KL).items()}


def diffusers_folder(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    for name in names:
        save_file(STATE, folder / name)
    return folder


def shards(folder: Path, names: list[str]) -> None:
    keys = sorted(STATE)
    for number, name in enumerate(names):
        save_file({key: STATE[key] for key in keys[number :: len(names)]}, folder / name)


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema", "fp32"])
def test_a_variant_is_taken_where_there_is_no_other_and_said(variant: str, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path, f"diffusion_pytorch_model.{variant}.safetensors")
    assert load_file(folder).fingerprint == NETWORK.fingerprint
    assert f"the variant {variant} is taken" in read(folder).notes[0]
    diffusers_folder(tmp_path, "diffusion_pytorch_model.safetensors")
    assert read(folder).notes == ()


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_weights_in_several_files_are_read_together(variant: str, tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "vae")
    names = [f"diffusion_pytorch_model{variant}-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    shards(folder, names)
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    assert load_file(tmp_path).fingerprint == NETWORK.fingerprint
    assert [path.name for path in read(tmp_path).files] == names
    (folder / names[1]).unlink()
    with pytest.raises(LvaeError, match=r"has 2 of the 3 files that .*-00001-of-00003\.safetensors is one of"):
        load_file(tmp_path)


def test_shards_without_a_config_are_read_together(tmp_path: Path) -> None:
    shards(tmp_path, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    assert load_file(tmp_path).fingerprint == NETWORK.fingerprint


@pytest.mark.parametrize("given", ["", "snapshots", "snapshots/abc"])
def test_a_model_in_the_hubs_cache_is_read(given: str, tmp_path: Path) -> None:
    model = tmp_path / "models--ORG--NAME"
    diffusers_folder(model / "snapshots" / "abc" / "vae")
    (model / "blobs").mkdir()
    save_file(STATE, model / "blobs" / "0123")
    (model / "snapshots/abc/vae/diffusion_pytorch_model.safetensors").symlink_to("../../../blobs/0123")
    assert load_file(model / given).fingerprint == NETWORK.fingerprint
    (model / "snapshots" / "old").mkdir()
    if given != "snapshots/abc":
        with pytest.raises(LvaeError, match=r"has 2 revisions and no refs/main that names one\. Give one of them"):
            load_file(model / given)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    assert load_file(model / given).fingerprint == NETWORK.fingerprint


@pytest.mark.parametrize(
    "name", ["a.safetensors?download=true", "a.SAFETENSORS", "a.ckpt.1", "a (1).ckpt", "a.pth.tar"]
)
def test_downloads_with_odd_endings_are_found(name: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / name)
    assert load_file(tmp_path).fingerprint == NETWORK.fingerprint


@pytest.mark.parametrize("name", ["a.safetensors.part", "a.ckpt.crdownload", "0123.incomplete"])
def test_downloads_that_are_not_finished_are_called_so(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(LvaeError, match="a download that is not finished"):
        load_file(tmp_path)
    diffusers_folder(tmp_path)
    with pytest.raises(LvaeError, match="a download that is not finished"):
        load_file(tmp_path)
