"""`lvae inspect --preview` says when a network was never trained."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lvae.encode.autoencoder import build, is_untrained, load
from tests.conftest import SMALL_KL, lvae

RANDOM = "the weights are random, so these reconstructions mean nothing"


@pytest.mark.parametrize("name", ["vq-f8-n256"])
def test_random_weights_are_noticed_whatever_their_seed(name: str) -> None:
    assert is_untrained(load(name, "random:0"))
    assert not is_untrained(build("pixels"))


@pytest.mark.parametrize("name", [SMALL_KL, '{"kind": "tiny", "latent_channels": 4, "width": 8}'])
def test_one_step_of_training_is_noticed(name: str) -> None:
    network = load(name, "random:0").train().requires_grad_(True)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    (network.decode(network.encode(images)) - images).square().mean().backward()
    optimizer.step()
    assert not is_untrained(network)


def test_a_preview_with_random_weights_says_so(scenes: Path, tmp_path: Path) -> None:
    weights = ("--autoencoder", SMALL_KL, "--weights", "random:7", "--size", "32", "--limit", "4")
    lvae("encode", scenes, tmp_path / "out", *weights)
    assert RANDOM in lvae("inspect", tmp_path / "out", "--preview", tmp_path / "preview.png").stderr
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.width > 4 * 32
