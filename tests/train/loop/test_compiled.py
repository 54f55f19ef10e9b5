"""Layers compiled one by one: equal ones once, and nothing anew afterwards."""

import numpy as np
import pytest
import torch

from lvae.train.devices.device import Device
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import draw_noise
from tests.train.trainer_examples import batch, model_config, train_config

MODEL = model_config(groups=(3, 3, 1), encoder_blocks=(2, 2, 1), attentions=(0, 1, 0), classes=3)
# A group and an encoder block for each of three resolutions, one attention in both places, and the loss.
GRAPHS = 3 + 3 + 1 + 1

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),  # dynamo's own doing
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),  # likewise
]


class TracingDevice(Device):
    """Graphs are made as ever, and run operation by operation."""

    backend = "eager"


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def train(device: Device, updates: int) -> Updater:
    updater = Updater(HierarchicalVAE(MODEL), train_config(precision=device.precision, ema=0.0), device)
    for number in range(updates):
        updater([batch(2 * number, classes=3), batch(2 * number + 1, classes=3)])
    return updater


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def test_layers_of_a_resolution_share_a_graph_and_nothing_is_compiled_again() -> None:
    plain = train(Device(), 2)
    assert graphs() == 0
    compiled = train(TracingDevice(compiled=True), 1)
    assert graphs() == GRAPHS
    compiled([batch(2, classes=3), batch(3, classes=3)])
    with compiled.using_average(), compiled.device.without_compiling():  # as validation and previews do
        compiled.model(batch(0, 2).latents, None, draw_noise(MODEL, range(2)))
        compiled.model.sample(2)
    assert graphs() == GRAPHS
    first, second = (found.read_counts()["sums"] for found in (plain, compiled))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)  # one graph is not autograd's order of sums


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # Inductor's own imports
def test_compiled_training_has_the_losses_of_plain_training() -> None:
    plain, compiled = (train(Device("bfloat16", compiled), 3).read_counts()["sums"] for compiled in (False, True))
    np.testing.assert_allclose(compiled, plain, rtol=1e-2, atol=1e-2)  # fused operations round less
