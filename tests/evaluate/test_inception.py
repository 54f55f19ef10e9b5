"""The FID Inception network against a second writing of it, from nothing but names, strides and the state dict."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lvae.evaluate.inception import InceptionFID, prepare, tf1_bilinear
from lvae.manifests.errors import LvaeError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Weights under the public names; batch norms count nothing, as in the public file."""
    generator = torch.Generator().manual_seed(0)
    found: State = {}
    for name, tensor in InceptionFID().state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        draw = torch.randn(tensor.shape, generator=generator)
        if name.endswith("conv.weight") or name == "fc.weight":
            found[name] = draw * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            found[name] = 1 + 0.2 * draw.abs()
        else:
            found[name] = 0.1 * draw
    return found


@pytest.fixture(scope="module")
def network(state: State) -> InceptionFID:
    return InceptionFID.load(state)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), np.uint8)


def second_writing(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features and the whole 1x1 branch of Mixed_6d."""

    def unit(name: str, x: Tensor, stride: int = 1, valid: bool = False) -> Tensor:
        w = state[f"{name}.conv.weight"]
        x = F.conv2d(x, w, stride=stride, padding=(0, 0) if valid else (w.shape[2] // 2, w.shape[3] // 2))
        mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        scale = state[f"{name}.bn.weight"] / (variance + 0.001).sqrt()
        return ((x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bn.bias"][:, None, None]).relu()

    def chain(block: str, names: str, x: Tensor) -> Tensor:
        for name in names.split():
            x = unit(f"{block}.{name.rstrip('!')}", x, 2 if name.endswith("!") else 1, name.endswith("!"))
        return x

    def average(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1) / F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)

    x = unit("Conv2d_2b_3x3", unit("Conv2d_2a_3x3", unit("Conv2d_1a_3x3", x, 2, True), 1, True))
    x = F.max_pool2d(x, 3, 2)
    x = F.max_pool2d(unit("Conv2d_4a_3x3", unit("Conv2d_3b_1x1", x), 1, True), 3, 2)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        double = chain(block, "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", x)
        five, pool = chain(block, "branch5x5_1 branch5x5_2", x), chain(block, "branch_pool", average(x))
        x = torch.cat([chain(block, "branch1x1", x), five, double, pool], 1)
    double = chain("Mixed_6a", "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3!", x)
    x = torch.cat([chain("Mixed_6a", "branch3x3!", x), double, F.max_pool2d(x, 3, 2)], 1)
    spatial = x
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        one, seven = chain(block, "branch1x1", x), chain(block, "branch7x7_1 branch7x7_2 branch7x7_3", x)
        double = chain(block, " ".join(f"branch7x7dbl_{n}" for n in range(1, 6)), x)
        spatial = one if block == "Mixed_6d" else spatial
        x = torch.cat([one, seven, double, chain(block, "branch_pool", average(x))], 1)
    three = chain("Mixed_7a", "branch3x3_1 branch3x3_2!", x)
    seven = chain("Mixed_7a", "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4!", x)
    x = torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)
    for block, pool in (("Mixed_7b", average), ("Mixed_7c", lambda x: F.max_pool2d(x, 3, 1, 1))):
        single, double = chain(block, "branch3x3_1", x), chain(block, "branch3x3dbl_1 branch3x3dbl_2", x)
        sides = [chain(block, f"branch3x3_2{side}", single) for side in "ab"]
        sides += [chain(block, f"branch3x3dbl_3{side}", double) for side in "ab"]
        x = torch.cat([chain(block, "branch1x1", x), *sides, chain(block, "branch_pool", pool(x))], 1)
    return x.mean((2, 3)), spatial


def test_features_are_those_of_a_second_writing(network: InceptionFID, state: State, images: NDArray[np.uint8]) -> None:
    found = network(images)
    pooled, spatial = second_writing(state, prepare(images, "adm"))
    np.testing.assert_allclose(found.pooled, pooled, atol=1e-4 * float(pooled.abs().max()))
    assert found.spatial.shape == (2, 2023)
    by_place = found.spatial.reshape(2, 17, 17, 7).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(by_place, spatial[:, :7], atol=1e-4 * float(spatial.abs().max()))
    logits = pooled @ state["fc.weight"].T
    np.testing.assert_allclose(found.logits, logits, atol=1e-4 * float(logits.abs().max()))
    alone = network(images[1:]).pooled
    np.testing.assert_allclose(alone[0], found.pooled[1], rtol=0, atol=1e-5 * float(pooled.abs().max()))


def test_lower_taps_have_their_sizes_and_training_mode_changes_nothing(
    network: InceptionFID, images: NDArray[np.uint8]
) -> None:
    network.train()
    taps = network.taps(images[:1])
    assert {size: tap.shape for size, tap in taps.items()} == {64: (1, 64), 192: (1, 192), 768: (1, 768)}
    assert not any(module.training for module in network.modules())


def test_the_state_dict_is_the_public_one(state: State) -> None:
    assert len(state) == 472
    assert sum(tensor.numel() for tensor in state.values()) == 23_885_392
    assert state["Mixed_6c.branch7x7dbl_2.conv.weight"].shape == (160, 160, 7, 1)


@pytest.mark.parametrize("size", [(5, 9), (299, 299), (310, 64)])
def test_the_resize_is_the_formula_of_tensorflow_1_to_the_bit(size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 1), np.uint8)
    found = tf1_bilinear(image, 299)[0, :, :, 0]
    plane = image[0, :, :, 0].astype(np.float32)
    one = np.float32(1)
    for y, x in [(0, 0), (298, 298), (17, 250), (123, 4), (297, 1)]:
        across, down = (
            np.float32(x) * (np.float32(size[1]) / 299 * one),
            np.float32(y) * (np.float32(size[0]) / 299 * one),
        )
        x0, y0 = int(across), int(down)
        x1, y1 = min(x0 + 1, size[1] - 1), min(y0 + 1, size[0] - 1)
        fx, fy = across - np.float32(x0), down - np.float32(y0)
        top = plane[y0, x0] + (plane[y0, x1] - plane[y0, x0]) * fx
        bottom = plane[y1, x0] + (plane[y1, x1] - plane[y1, x0]) * fx
        assert found[y, x] == top + (bottom - top) * fy


def test_modes_prepare_their_own_way() -> None:
    grey = np.full((1, 299, 299, 3), 255, np.uint8)
    assert float(prepare(grey, "adm").max()) == 127 / 128
    assert float(prepare(grey, "clean").max()) == 127 / 128
    assert float(prepare(grey, "pytorch-fid").max()) == 1
    with pytest.raises(LvaeError, match="uint8"):
        prepare(grey.astype(np.float32), "adm")


def test_files_load_by_key_and_other_weights_are_refused(state: State, tmp_path: Path) -> None:
    small = {name: state[name] for name in list(state)[:5]}
    safetensors.torch.save_file(small, tmp_path / "part.safetensors")
    with pytest.raises(LvaeError, match=r"part\.safetensors: not weights of the FID Inception network"):
        InceptionFID.load(tmp_path / "part.safetensors")
    torch.save(state, tmp_path / "whole.pth")
    loaded = InceptionFID.load(tmp_path / "whole.pth").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    with pytest.raises(LvaeError, match=r"fc\.bias is \(1007,\), not \(1008,\)"):
        InceptionFID.load(state | {"fc.bias": torch.zeros(1007)})
