"""Files that torch.save wrote: every wrapping users meet, read without the packages whose objects lie inside."""

import pickle
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lvae.encode.autoencoder import load, load_file
from lvae.encode.networks.base import Autoencoder
from lvae.encode.weights.read import read
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {"kind": "kl", "width": 8, "multipliers": [1, 2], "latent_channels": 4, "blocks": 1, "attention_levels": [1]}
FORMATS = pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
STAND_INS = {
    "pytorch_lightning.callbacks.model_checkpoint": ("ModelCheckpoint",),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode",),
}


def kl() -> Autoencoder:
    return load(KL, "random:5")


def save(value: object, path: Path, new_format: bool = True, **options: Any) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=new_format, **options)
    return path


@contextmanager
def stand_ins() -> Iterator[dict[str, type]]:
    """Classes under the names of packages that are not installed; gone again before anything is read."""
    before = dict(sys.modules)
    classes = {}
    try:
        for name, members in STAND_INS.items():
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
            for member in members:
                classes[member] = type(member, (), {"__module__": name, "__qualname__": member})
                setattr(sys.modules[name], member, classes[member])
        yield classes
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def lightning_checkpoint(state: dict[str, Tensor], classes: dict[str, type]) -> dict[str, Any]:
    config, node, metadata = (classes[name]() for name in ("DictConfig", "AnyNode", "ContainerMetadata"))
    metadata.__dict__.update(ref_type=Any, object_type=dict, optional=True, key=None)
    node.__dict__.update(_val=1e-6, _metadata=metadata)
    config.__dict__.update(_content={"lr": node, "ddconfig": classes["ListConfig"]()}, _metadata=metadata, _parent=None)
    callback = {"best_model_score": torch.tensor(0.1), "monitor": "val/rec_loss", "wait": np.int64(3)}
    return {
        "epoch": 12,
        "global_step": np.int64(246803),
        "pytorch-lightning_version": "1.4.2",
        "state_dict": OrderedDict(state),
        "callbacks": {classes["ModelCheckpoint"]: callback | {"last": np.float64(0.5), "history": np.arange(4)}},
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [defaultdict(list, {"a": [1]}), {1, 2}, frozenset((3,)), 2**70, -5, 1.5, b"bytes", 1j],
        "hyper_parameters": config,
    }


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_lightning_checkpoints_load_without_lightning(new_format: bool, protocol: int, tmp_path: Path) -> None:
    network = kl()
    state = dict(network.state_dict()) | {
        "loss.logvar": torch.zeros(()),
        "loss.discriminator.main.0.bias": torch.ones(4),
    }
    with stand_ins() as classes:
        path = save(lightning_checkpoint(state, classes), tmp_path / "model.ckpt", new_format, pickle_protocol=protocol)
    loaded = load_file(path)
    assert loaded.fingerprint == network.fingerprint
    assert not {"pytorch_lightning", "omegaconf"} & set(sys.modules)
    assert load(KL, path).fingerprint == network.fingerprint


@FORMATS
def test_bare_state_dicts_and_parameters_load(new_format: bool, tmp_path: Path) -> None:
    network = kl()
    bare = OrderedDict(network.state_dict())
    parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in bare.items()}
    marked = nn.Parameter(bare["quant_conv.bias"].clone())
    marked.note = "attributes make torch write parameters in another way"  # type: ignore[attr-defined]
    for number, value in enumerate((bare, parameters, parameters | {"quant_conv.bias": marked})):
        path = save(value, tmp_path / f"{number}.bin", new_format)
        assert load_file(path).fingerprint == network.fingerprint


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(new_format: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in kl().state_dict().items()}
    path = save(state, tmp_path / "model.pt", new_format)
    loaded = load_file(path).state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


@FORMATS
def test_strides_offsets_and_shared_storages_are_followed(new_format: bool, tmp_path: Path) -> None:
    network = kl()
    state = network.state_dict()
    flat = torch.cat([torch.zeros(3), *(tensor.flatten() for tensor in state.values())])
    views, start = {}, 3
    for name, tensor in state.items():
        views[name] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    views["encoder.conv_in.weight"] = state["encoder.conv_in.weight"].to(memory_format=torch.channels_last)
    assert not views["encoder.conv_in.weight"].is_contiguous()
    path = save(views, tmp_path / "model.pt", new_format)
    assert load_file(path).fingerprint == network.fingerprint


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", "dae."])
@FORMATS
def test_first_stages_are_found_in_whole_checkpoints(prefix: str, new_format: bool, tmp_path: Path) -> None:
    network = kl()
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    state |= {"model.diffusion_model.out.2.weight": torch.zeros(2, 3), "betas": torch.zeros(5)}
    state |= {"scale_factor": torch.tensor(0.18215), "model_ema.decay": torch.tensor(0.9999)}
    state |= {f"{prefix}loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 64, 1, 1)}
    if prefix == "dae.":  # latents with 3 channels make the hierarchical VAE's first layer look like an encoder's
        state |= {"vae.encoder.conv_in.weight": torch.zeros(8, 3, 3, 3), "vae.prior.weight": torch.zeros(1)}
    path = save({"state_dict": state}, tmp_path / "model.ckpt", new_format)
    assert load_file(path).fingerprint == network.fingerprint
    assert read(path).scale == {"scale_factor": pytest.approx(0.18215)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@FORMATS
def test_the_zoos_zip_with_a_checkpoint_inside_loads(method: int, new_format: bool, tmp_path: Path) -> None:
    inner = save({"state_dict": kl().state_dict()}, tmp_path / "model.ckpt", new_format)
    outer = tmp_path / "kl-f8.zip"
    with zipfile.ZipFile(outer, "w", method) as file:
        file.writestr("__MACOSX/._model.ckpt", b"\0")
        file.write(inner, "kl-f8/model.ckpt")
    assert load_file(outer).fingerprint == kl().fingerprint


def test_a_zip_with_several_checkpoints_or_none_is_refused(tmp_path: Path) -> None:
    for names in (("a.ckpt", "b.ckpt"), ("readme.txt",), ()):
        path = tmp_path / "files.zip"
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"PK\x03\x04")
        with pytest.raises(LvaeError, match=r"incomplete|does not hold one file of weights"):
            load_file(path)


def test_a_checkpoint_packed_again_by_a_zip_program_loads(tmp_path: Path) -> None:
    source = save(kl().state_dict(), tmp_path / "model.pt")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert load_file(packed).fingerprint == kl().fingerprint


def test_files_without_checksums_load(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save(kl().state_dict(), tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_file(path).fingerprint == kl().fingerprint


def test_a_changed_byte_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    path = save(kl().state_dict(), tmp_path / "model.pt")
    data = bytearray(path.read_bytes())
    data[data.index(kl().state_dict()["encoder.conv_in.weight"].numpy().tobytes()) + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(LvaeError, match="checksums or sizes differ"):
        load_file(path)


def test_files_of_big_endian_machines_are_refused(tmp_path: Path) -> None:
    path = save(kl().state_dict(), tmp_path / "model.pt")
    big = tmp_path / "big.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(big, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(LvaeError, match="written by a big-endian machine"):
        load_file(big)
    legacy = save(kl().state_dict(), tmp_path / "legacy.pt", new_format=False)
    legacy.write_bytes(legacy.read_bytes().replace(b"little_endian\x71\x02\x88", b"little_endian\x71\x02\x89"))
    with pytest.raises(LvaeError, match="written by a big-endian machine"):
        load_file(legacy)


@FORMATS
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_truncated_downloads_are_named_with_their_size(new_format: bool, share: float, tmp_path: Path) -> None:
    path = save({"state_dict": kl().state_dict()}, tmp_path / "model.ckpt", new_format)
    data = path.read_bytes()[: int(path.stat().st_size * share)]
    path.write_bytes(data)
    with pytest.raises(LvaeError, match=rf"model\.ckpt: an incomplete download.*{len(data)} bytes"):
        load_file(path)


@FORMATS
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.zeros(3), "a lone tensor instead of tensors by name"),
        ([torch.zeros(3)], "a pickled list instead of tensors by name"),
        (nn.ReLU(), r"a pickled torch\.nn\.modules.activation\.ReLU instead of tensors by name"),
        ({"a": torch.zeros(3)}, "holds no image autoencoder"),
        ({"0.weight": torch.zeros(8, 3, 3, 3)}, "one half of a tiny autoencoder"),
    ],
)
def test_other_things_that_torch_saved_are_refused(
    value: object, expected: str, new_format: bool, tmp_path: Path
) -> None:
    with pytest.raises(LvaeError, match=expected):
        load_file(save(value, tmp_path / "model.pt", new_format))


def taesd_files(network: Autoencoder, folder: Path, name: str = "taesd") -> list[Path]:
    files: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for key, tensor in network.state_dict().items():
        part, _, number, rest = key.split(".", 3)
        files[part][f"{int(number) + (part == 'decoder')}.{rest}"] = tensor
    return [save(state, folder / f"{name}_{part}.pth") for part, state in files.items()]


def test_the_two_files_of_taesd_load_by_folder_or_by_name_in_any_order(tmp_path: Path) -> None:
    network = load({"kind": "tiny", "latent_channels": 4, "width": 8}, "random:1")
    encoder, decoder = taesd_files(network, tmp_path)
    for weights in (tmp_path, f"{encoder},{decoder}", f"{decoder},{encoder}"):
        assert load_file(weights).fingerprint == network.fingerprint
    with pytest.raises(LvaeError, match=r"one half of a tiny autoencoder\. Give both"):
        load_file(decoder)
    with pytest.raises(LvaeError, match="not the encoder and the decoder"):
        load_file(f"{encoder},{encoder}")
    taesd_files(network, tmp_path, "taesdxl")
    with pytest.raises(LvaeError, match=r"has 4 files of weights\. Name two of them, as in .*taesd_encoder"):
        load_file(tmp_path)


def test_a_lone_file_in_a_folder_loads(tmp_path: Path) -> None:
    save({"state_dict": kl().state_dict()}, tmp_path / "model.ckpt")
    (tmp_path / "config.yaml").write_text("model:\n")
    assert load_file(tmp_path).fingerprint == kl().fingerprint
    save({"state_dict": kl().state_dict()}, tmp_path / "last.ckpt")
    with pytest.raises(LvaeError, match=r"has 2 files of weights\. Name one of them"):
        load_file(tmp_path)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_folders_of_diffusers_with_pickled_weights_load(variant: str | None, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKL(block_out_channels=(32,)).eval()
    (model.half() if variant else model).save_pretrained(tmp_path / "vae", variant=variant, safe_serialization=False)
    assert [path.suffix for path in (tmp_path / "vae").iterdir() if path.suffix != ".json"] == [".bin"]
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = model.float().encode(image).latent_dist.mean
    assert torch.allclose(load_file(tmp_path).encode(image), expected, rtol=1e-4, atol=1e-6)
    assert read(tmp_path).scale == {"scaling_factor": 0.18215}


class AttributeDict(dict[str, Any]):
    """As Lightning keeps hyper-parameters: a dictionary of a class of its own."""


class Namespace:
    def __init__(self, **values: Any):
        self.__dict__.update(values)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dictionaries_of_any_class_are_dictionaries(new_format: bool, protocol: int, tmp_path: Path) -> None:
    network = kl()
    inner = AttributeDict(network.state_dict())
    whole = AttributeDict(model=inner, args=Namespace(lr=1e-4, betas=(0.9, 0.99)), tags={"a", "b"}, more=frozenset("c"))
    path = save(whole, tmp_path / "model.ckpt", new_format, pickle_protocol=protocol)
    assert load_file(path).fingerprint == network.fingerprint


def test_torchs_files_of_protocol_1_load(tmp_path: Path) -> None:
    path = save(kl().state_dict(), tmp_path / "model.pt", new_format=False, pickle_protocol=1)
    assert path.read_bytes().startswith(b"L")
    assert load_file(path).fingerprint == kl().fingerprint


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_arrays_load(protocol: int, tmp_path: Path) -> None:
    network = kl()
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"params": arrays, "step": 3, "losses": [1.0] * 1000}, protocol))
    assert load_file(tmp_path / "model.pkl").fingerprint == network.fingerprint


def test_a_long_list_of_numbers_beside_the_weights_does_no_harm(tmp_path: Path) -> None:
    network = kl()
    path = save({"state_dict": network.state_dict(), "losses": [0.5] * 300_000}, tmp_path / "model.ckpt")
    assert load_file(path).fingerprint == network.fingerprint
