"""Rates over a dataset: those of the model, whatever the batches; and units that do something."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lvae.evaluate.manipulation import rates
from lvae.evaluate.manipulation.loaded_run import LoadedRun, read_latents
from lvae.evaluate.manipulation.rates import measure
from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import derive
from lvae.train.network.noise import draw_noise
from tests.evaluate import run_examples

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedRun, Dataset]:
    root = tmp_path_factory.mktemp("rates")
    data = run_examples.dataset(root / "dataset")
    return LoadedRun.open(run_examples.run(root / "run", data)), data


def test_rates_are_those_of_the_forward_pass(loaded: tuple[LoadedRun, Dataset]) -> None:
    opened, data = loaded
    found = measure(opened, data, 20, seed=3)
    x, labels = read_latents(opened, data, np.arange(20))
    noise = draw_noise(opened.model.config, [derive(3, "rates", index) for index in range(20)])
    with torch.no_grad():
        out = opened.model(torch.from_numpy(x), torch.from_numpy(labels), noise)
    np.testing.assert_allclose([group.nats for group in found.groups], out.rates.mean(1).numpy(), rtol=1e-5)
    assert found.nats == pytest.approx(float(out.rates.sum(0).mean()), rel=1e-5)
    assert found.images == 20


def test_batches_change_nothing_but_last_bits(
    loaded: tuple[LoadedRun, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = measure(*loaded, 23)
    monkeypatch.setattr(rates, "BATCH", 5)
    other = measure(*loaded, 23)
    for first, second in zip(one.groups, other.groups, strict=True):
        np.testing.assert_allclose(first.channel_nats, second.channel_nats, rtol=1e-4)
        assert first.active == second.active
    assert one.distortion_nats == pytest.approx(other.distortion_nats, rel=1e-4)


def test_a_channel_that_hears_nothing_of_the_image_is_inactive(tmp_path: Path) -> None:
    data = run_examples.dataset(tmp_path / "dataset")
    config = run_examples.model_config(classes=0, hierarchical_prior=False)
    opened = LoadedRun.open(run_examples.run(tmp_path / "run", data, config))
    group = opened.model.layer_list[0].layer_list[0]  # type: ignore[union-attr]
    last = group.posterior_block.dense2.conv  # type: ignore[union-attr]
    with torch.no_grad():  # channel 1: mean 0 always, variance 1 (nearly) always
        for row in (1, config.z_channels + 1):
            last.weight[row] = 0
            last.bias[row] = 0
    found = measure(opened, data, 40).groups[0]
    assert found.active[1] == 0
    assert found.channel_nats[1] < 1e-4
    assert found.most_informative == 0


def test_a_table_names_every_group(loaded: tuple[LoadedRun, Dataset]) -> None:
    lines = measure(*loaded, 8).format_table().splitlines()
    assert len(lines) == 4 + 3
    assert "of 32" in lines[-1]
