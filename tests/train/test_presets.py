"""Table 5 value by value, and the presets of our own."""

import pytest
import torch

from lvae.manifests.errors import LvaeError
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import NAMES, model_preset, normalization_warning, preset

# Table 5 of the paper: micro-batch, accumulation, learning rate, sigma_q, SR penalty, EMA, hardware, hours; and the
# updates of sections 4.1 and 4.2.
TABLE_5 = {
    "church256-f8": (128, 1, 2e-4, 0.07, 0.1, 0.9999, "TPUv2-8", 36, 250_000),
    "church32-rgb": (128, 1, 2e-4, 0.035, 0.1, 0.9999, "TPUv2-8", 312, 250_000),
    "church256-upsampler": (32, 4, 1e-4, 0.05, 0.25, 0.9998, "TPUv2-8", 345, 250_000),
    "church256-pixels": (32, 4, 1e-4, 0.05, 0.25, 0.9999, "TPUv3-8", 175, 250_000),
    "bedroom256-f4": (32, 4, 2e-4, 0.1, 0.1, 0.9999, "TPUv2-8", 104, 250_000),
    "bedroom256-f8": (128, 1, 2e-4, 0.07, 0.1, 0.9999, "TPUv2-8", 28, 250_000),
    "bedroom256-f16": (128, 1, 2e-4, 0.07, 0.1, 0.9999, "TPUv2-8", 17, 250_000),
    "imagenet256-f8": (128, 8, 3e-4, 0.07, 0.1, 0.9998, "TPUv3-8", 630, 475_000),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_training_values_of_table_5(name: str) -> None:
    found, training = preset(name), preset(name).training
    assert TABLE_5[name] == (
        training.batch,
        training.accumulate,
        training.learning_rate,
        training.sigma_q,
        training.spectral_weight,
        training.ema,
        found.hardware,
        found.hours,
        training.updates,
    )
    assert (training.beta1, training.beta2, training.warm_up_updates) == (0.9, 0.9, 100)


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in HierarchicalVAE(model_preset(name)).parameters())


def test_studies_have_equal_budgets() -> None:
    budget = parameters("study-latent")
    for name in ("study-rgb", "study-pixels", "study-f4", "study-f8", "study-f16"):
        assert parameters(name) == pytest.approx(budget, rel=0.01), name
    paper = 62_868_326 / 119_137_672
    assert parameters("study-upsampler") / budget == pytest.approx(paper, rel=0.05)
    assert len({preset(name).training.updates * preset(name).training.batch for name in NAMES if "study" in name}) == 1


def test_the_cascade_fits_together() -> None:
    for base, upsampler in (("church32-rgb", "church256-upsampler"), ("study-rgb", "study-upsampler")):
        factor = model_preset(upsampler).low_resolution_factor
        assert factor is not None
        assert model_preset(upsampler).resolution == factor * model_preset(base).resolution
        assert model_preset(upsampler).channels == model_preset(base).channels


@pytest.mark.parametrize("resolution", [4, 8, 12, 16, 24, 28, 32, 64])
@pytest.mark.parametrize("name", ["tiny", "small"])
def test_starters_take_the_latents_at_hand(name: str, resolution: int) -> None:
    config = model_preset(name, (6, resolution, resolution))
    assert (config.channels, config.resolution) == (6, resolution)
    with torch.device("meta"):
        out = HierarchicalVAE(config)(torch.empty(2, 6, resolution, resolution), noise=noise_on_meta(name, resolution))
    assert out.mean.shape == (2, 6, resolution, resolution)


def noise_on_meta(name: str, resolution: int) -> list[torch.Tensor]:
    config = model_preset(name, (6, resolution, resolution))
    return [torch.empty(2, config.z_channels, r, r) for r in config.group_resolutions]


def test_presets_are_held_against_the_latents() -> None:
    assert model_preset("study-f8", (7, 8, 8)).channels == 7
    assert model_preset("church256-f8", (4, 32, 32)) == model_preset("church256-f8")
    with pytest.raises(LvaeError, match="church256-f8: made for latents of 4x32x32, not 4x16x16"):
        model_preset("church256-f8", (4, 16, 16))
    with pytest.raises(LvaeError, match="square latents"):
        model_preset("tiny", (4, 16, 32))


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(LvaeError, match=r"no such preset. Did you mean .*imagenet256-f8"):
        model_preset("imagenet-f8")
    with pytest.raises(LvaeError, match="church256-f8, church32-rgb"):
        model_preset("qqqqqqqqq")


def test_sigma_q_in_other_units_is_warned_of() -> None:
    church, study = preset("church256-f8"), preset("study-latent")
    assert normalization_warning(church, "given", [4.1] * 4) is None
    assert normalization_warning(church, "channel", [4.0, 4.2, 4.1, 4.3]) is None
    assert "divided by 4.1, these were divided by 4.1, 1, 4.1, 4.1" in str(
        normalization_warning(church, "channel", [4.1, 1.0, 4.1, 4.1])
    )
    assert normalization_warning(study, "channel", [1.0, 9.0, 2.0]) is None
    assert "normalized by 'channel', these are by 'none'" in str(normalization_warning(study, "none", [1.0] * 3))
