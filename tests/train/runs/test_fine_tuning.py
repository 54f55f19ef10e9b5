"""A new model begins with what fits of another's weights."""

import logging
from dataclasses import replace

import pytest
import torch

from lvae.manifests.errors import LvaeError
from lvae.train.model import HierarchicalVAE
from lvae.train.runs.fine_tuning import weights_that_fit
from tests.train.trainer_examples import model_config

OLD = model_config(classes=5)


def test_the_same_model_takes_everything(caplog: pytest.LogCaptureFixture) -> None:
    weights = HierarchicalVAE(OLD, 1).state_dict()
    taken = weights_that_fit(OLD, OLD, weights)
    assert all(torch.equal(taken[name], tensor) for name, tensor in weights.items())
    assert not caplog.records


def test_other_classes_keep_those_that_both_have(caplog: pytest.LogCaptureFixture) -> None:
    weights = HierarchicalVAE(OLD, 1).state_dict()
    new = replace(OLD, classes=3)
    with caplog.at_level(logging.WARNING):
        taken = weights_that_fit(new, OLD, weights)
    assert torch.equal(taken["embed.weight"], weights["embed.weight"][[0, 1, 2, 5]])
    assert "begin anew: embed.weight" in caplog.text
    HierarchicalVAE(new).load_state_dict(taken)


def test_levels_are_found_by_their_resolution(caplog: pytest.LogCaptureFixture) -> None:
    weights = HierarchicalVAE(OLD, 1).state_dict()
    four = {"multipliers": (1,) * 4, "ffn_ratios": (2,) * 4, "groups": (2, 2, 2, 1), "encoder_blocks": (1,) * 4}
    new = model_config(classes=5, resolution=16, attentions=(0, 0, 1, 0), heads=(0, 0, 2, 0), **four)
    with caplog.at_level(logging.WARNING):
        taken = weights_that_fit(new, OLD, weights)
    # 16, 8, 4, 1 from the encoder's side, 1, 4, 8, 16 from the generator's
    there = "encoder.encoder_levels.{}.layer_list.0.conv1.weight"
    assert torch.equal(taken[there.format(2)], weights[there.format(1)])
    assert torch.equal(
        taken["layer_list.1.layer_list.0.zproj.weight"], weights["layer_list.1.layer_list.0.zproj.weight"]
    )
    assert "layer_list.3" in caplog.text
    HierarchicalVAE(new).load_state_dict(taken)


def test_another_model_altogether_is_refused() -> None:
    with pytest.raises(LvaeError, match=r"fit the new model\. Take the preset"):
        weights_that_fit(model_config(width=8, encoder_width=8), OLD, HierarchicalVAE(OLD).state_dict())
