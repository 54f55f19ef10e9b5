"""Perceptual training with EfficientNet-Lite0: what the distance is, and that training makes it small."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lvae.encode.autoencoder import load_file
from lvae.encode.quality.efficientnet import load_network, weights_path
from lvae.encode.scenes.make import write_scenes
from lvae.encode.training.perceptual import NetworkDistance
from tests.conftest import lvae

TINY = '{"kind":"tiny","latent_channels":3,"width":8,"blocks":1,"multipliers":[1,2],"patch":2}'


@pytest.fixture(scope="module")
def distance() -> Callable[[Tensor, Tensor], Tensor]:
    return NetworkDistance(load_network(weights_path(), 32))


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 4, 4, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(small, (32, 32), mode="bilinear")


def test_it_is_a_distance_of_the_published_networks_stages(distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(torch.load(weights_path(), weights_only=True))
    seen: dict[int, list[Tensor]] = {}
    for number in (0, 2, 4, 10, 15):  # the last block of each stage
        published.eval()._blocks[number].register_forward_hook(
            lambda _module, _inputs, out, number=number: seen.setdefault(number, []).append(out)
        )
    one, other = images(2, 0), images(2, 1)
    with torch.inference_mode():
        for each in (one, other):
            levels = (each + 1) * 127.5
            published.extract_features((levels - 127) / 128)
        wanted = torch.zeros(2)
        for a, b in seen.values():
            wanted += (1 - torch.nn.functional.cosine_similarity(a, b)).mean((1, 2)) / 5
        found = distance(one, other)
    assert [maps[0].shape[1:] for maps in seen.values()] == [
        (16, 16, 16),
        (24, 8, 8),
        (40, 4, 4),
        (112, 2, 2),
        (320, 1, 1),
    ]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert float(distance(one, one).max()) == 0
    torch.testing.assert_close(distance(other, one), found)


def test_training_with_it_makes_it_small(tmp_path: Path, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    write_scenes(tmp_path / "scenes", 60, 32, 0)
    common: tuple[Any, ...] = ("--autoencoder", TINY, "--size", "32", "--shorter-side", "32-32", "--validation", "20%")
    common += ("--steps", "80", "--batch", "4", "--learning-rate", "3e-3", "--log-every", "40", "--save-every", "80")
    common += ("--workers", "0", "--device", "cpu")
    named = ("--perceptual", "efficientnet-lite0")
    write_scenes(tmp_path / "new", 24, 32, 1)
    found = {}
    for name, more in (("plain", ()), ("perceptual", named)):
        lvae("autoencoder", "fit", tmp_path / "scenes", tmp_path / name, *common, *more)
        network = load_file(tmp_path / name / "autoencoder.safetensors")
        seen = scenes(tmp_path / "new")
        with torch.inference_mode():
            found[name] = float(distance(seen, network.decode(network.encode(seen)).clamp(-1, 1)).mean())
    assert found["perceptual"] < 0.95 * found["plain"]
    lines = [json.loads(line) for line in (tmp_path / "perceptual" / "metrics.jsonl").read_text().splitlines()]
    assert lines[1]["network_distance"] < lines[0]["network_distance"]
    wrong = lvae("autoencoder", "fit", tmp_path / "scenes", tmp_path / "o", "--perceptual", "efficientnet", check=1)
    assert "efficientnet: no such file. --perceptual is efficientnet-lite0, or two files" in wrong.stderr
    refused = lvae("autoencoder", "fit", tmp_path / "scenes", tmp_path / "plain", *common, *named, check=1)
    assert "was begun with perceptual_sha256 null" in refused.stderr


def scenes(folder: Path) -> Tensor:
    from lvae.evaluate.pictures.streams import open_source_stack

    pixels = next(open_source_stack(str(folder), None, 0, None, "adm").batches())
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
