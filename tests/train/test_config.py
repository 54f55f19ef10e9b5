"""Records of model and training: strict JSON, and one clear sentence for what does not fit."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig, attention_places, check_together
from lvae.train.presets import NAMES, preset
from tests.train.model_examples import CONDITIONAL, UPSAMPLER


@pytest.mark.parametrize("name", NAMES)
def test_records_survive_their_json(name: str) -> None:
    found = preset(name)
    assert records.parse(ModelConfig, records.dumps(found.model), "config.json") == found.model
    assert records.parse(TrainConfig, records.dumps(found.training), "config.json") == found.training
    check_together(found.model, found.training)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": None}, "width"),
        ({"widht": 3}, "unknown field 'widht'"),
        ({"groups": [1, 2.5, 1, 1]}, r"groups\[1\]"),
        ({"attention": "flash"}, "attention"),
    ],
)
def test_json_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    fields = json.loads(records.dumps(CONDITIONAL)) | change
    with pytest.raises(LvaeError, match=message):
        records.from_plain(ModelConfig, fields, "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 24}, "resolution 24 gives 24, 12, 6, 1"),
        ({"resolution": 8}, "8, 4, 1, 1"),
        ({"resolution": 2}, "resolution must be a whole number from 4"),
        ({"groups": (1, 2, 3)}, "groups has 3 entries and multipliers 4"),
        ({"groups": (1, 0, 3, 1)}, "every entry of groups must be a whole number from 1"),
        ({"groups": ()}, "groups must be a list"),
        ({"heads": (0, 1, 5, 2)}, "heads: 5 at resolution 4 does not divide"),
        ({"heads": (0, 0, 4, 2)}, "heads: 0 at resolution 8"),
        ({"z_channels": 0}, "z_channels"),
        ({"classes": -1}, "classes"),
        ({"classes": True}, "classes"),
        ({"width": 1 << 20}, "width"),
        ({"ffn_ratios": (0, 2, 900, 1), "width": 8192}, "wider than"),
        ({"groups": (1000, 2, 2, 1000)}, "more than 1024"),
        ({"low_resolution_factor": 2}, "must be 16/2"),
        ({"low_resolution_factor": 16}, "an upsampler has no classes"),
        ({"hierarchical_prior": 1}, "hierarchical_prior must be true or false"),
    ],
)
def test_an_architecture_that_cannot_be_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LvaeError, match=message) as caught:
        ModelConfig(**asdict(CONDITIONAL) | change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch must be a whole number from 1"),
        ({"batch": 1.5}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1"),
        ({"label_drop": 1.1}, "label_drop must be at least 0 and at most 1"),
        ({"learning_rate_minimum": 1.0}, "learning_rate_minimum 1.0 exceeds"),
        ({"rate_schedule": "constant_per"}, "rate_per_resolution belongs to"),
        ({"rate_per_resolution": (1.0,)}, "rate_per_resolution belongs to"),
        ({"precision": "float16"}, "precision must be one of float32, tf32, bfloat16"),
        ({"clip": -4.0}, "clip"),
        ({"seed": -1}, "seed"),
    ],
)
def test_training_values_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LvaeError, match=message) as caught:
        replace(TrainConfig(), **change)
    assert "\n" not in str(caught.value)


def test_a_rate_for_each_resolution_of_another_model_is_refused() -> None:
    training = replace(TrainConfig(), rate_schedule="constant_per", rate_per_resolution=[4.0, 2.0, 1.0])
    assert training.rate_per_resolution == (4.0, 2.0, 1.0)
    with pytest.raises(LvaeError, match="has 3 entries, the model 4"):
        check_together(CONDITIONAL, training)


@pytest.mark.parametrize(
    ("resolution", "levels", "expected"),
    [
        (32, 5, (32, 16, 8, 4, 1)),
        (64, 6, (64, 32, 16, 8, 4, 1)),
        (16, 4, (16, 8, 4, 1)),
        (256, 4, (256, 128, 64, 32)),
        (24, 3, (24, 12, 6)),
    ],
)
def test_resolutions(resolution: int, levels: int, expected: tuple[int, ...]) -> None:
    one = (1,) * levels
    config = ModelConfig(resolution, 3, 8, 8, one, one, one, one, one, one, 2, 0, False)
    assert config.resolutions == expected
    assert config.group_resolutions == expected[::-1]


@pytest.mark.parametrize(
    ("layers", "attentions", "expected"),
    [
        (4, 4, {1, 2, 3}),
        (5, 4, {1, 2, 3, 4}),
        (7, 4, {1, 3, 4, 6}),
        (8, 4, {2, 3, 5, 6}),
        (12, 4, {2, 5, 7, 10}),
        (1, 1, {0}),
        (3, 4, {1, 2}),
        (8, 0, set()),
    ],
)
def test_attention_places(layers: int, attentions: int, expected: set[int]) -> None:
    assert attention_places(layers, attentions) == expected


def test_the_configs_can_be_keys() -> None:
    assert len({CONDITIONAL, UPSAMPLER, replace(CONDITIONAL)}) == 2
    assert len({TrainConfig(), TrainConfig(seed=1)}) == 2
