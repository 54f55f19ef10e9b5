"""EfficientNet-Lite0 by name: how it sees a picture, equal features in any batch, and figures under its own name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lvae.encode.quality.efficientnet import weights_path
from lvae.encode.scenes.make import write_scenes
from lvae.evaluate.features import efficientnet
from lvae.evaluate.features.feature_files import read_features
from tests.conftest import lvae


@pytest.fixture(scope="module")
def network() -> efficientnet.EfficientNetLite0:
    return efficientnet.EfficientNetLite0.load(weights_path())


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with edges."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR)) for one in small])


def test_a_picture_of_128_pixels_is_scaled_and_nothing_else() -> None:
    images = pictures(2, 128)
    seen = efficientnet.prepare(images).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(seen, (images.astype(np.float32) - 127) / 128)


@pytest.mark.parametrize("size", [32, 64, 300])
def test_other_sizes_are_resized_as_pillow_does(size: int) -> None:
    images = pictures(3, size)
    seen = efficientnet.prepare(images).permute(0, 2, 3, 1).numpy() * 128 + 127
    for image, found in zip(images, seen, strict=True):
        wanted = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC))
        assert np.abs(found - wanted).max() <= 2


def test_features_do_not_depend_on_the_batch(network: efficientnet.EfficientNetLite0) -> None:
    images = pictures(40, 32)
    together = network(images)
    assert together.shape == (40, 1280)
    assert np.array_equal(network(images[::-1].copy()), together[::-1])
    assert np.array_equal(network(images[37:38]), together[37:38])


def test_features_are_those_of_the_published_network(network: efficientnet.EfficientNetLite0) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(torch.load(weights_path(), weights_only=True))
    images = pictures(2, 128)
    with torch.inference_mode():
        seen = efficientnet.prepare(images)
        wanted = published.eval().extract_features(seen).mean((2, 3)).numpy()
        logits = published(seen).numpy()
    found = network(images)
    assert np.abs(found - wanted).max() < 1e-4  # batch norms are folded into the convolutions: float32's last digits
    assert np.abs(efficientnet.classify(found) - logits).max() < 1e-3


def test_by_name_it_scores_pictures_and_stored_features_alike(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_scenes(tmp_path / f"scenes-{seed}", 24, 32, seed)
    name = ("--features", "efficientnet-lite0")
    score = ("score", "--samples", tmp_path / "scenes-0", "--reference")
    found = json.loads(lvae(*score, tmp_path / "scenes-1", *name, "--json").stdout)
    assert found["network_frechet_distance"] > 0
    assert found["mode"] == "efficientnet-lite0-128"
    assert not {"fid", "kid", "precision", "inception_score"} & found.keys()
    lvae("features", tmp_path / "scenes-1", tmp_path / "f.npz", *name)
    stored = read_features(tmp_path / "f.npz")
    assert stored is not None and stored.network.name == "efficientnet-lite0"
    again = json.loads(
        lvae("score", "--samples", tmp_path / "scenes-0", "--reference", tmp_path / "f.npz", "--json", *name).stdout
    )
    for metric in ("network_recall", "network_class_agreement", "real_network_class_agreement"):
        assert again[metric] == found[metric]
    assert found["network_class_agreement"] > 0.2  # of twelve classes
    wrong = lvae("score", "--samples", tmp_path, "--reference", tmp_path, "--features", tmp_path / "none", check=1)
    assert "--features is efficientnet-lite0 or the file of a feature network" in wrong.stderr
