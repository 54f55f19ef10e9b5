"""Recorded micro-batches: the GPU's part is handed in, so that everything around it is tried here."""

import logging
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lvae.train.devices.device import Device, Precision, Recorder
from lvae.train.loop.replay import WARM_UP, Replay
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from tests.train.trainer_examples import batch, model_config, train_config

UPDATES = 4  # of two micro-batches: the recording is made in the second one


def record(function: Callable[..., Tensor], inputs: Sequence[Tensor | None]) -> tuple[Callable[[], None], Tensor]:
    """As a CUDA graph behaves: the same places are read and written whenever it is replayed."""
    result = function(*inputs).clone()

    def replay() -> None:
        result.copy_(function(*inputs))

    return replay, result


def record_the_past(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None]
) -> tuple[Callable[[], None], Tensor]:
    """A graph that works on memory which nobody fills any more."""
    result = function(*inputs).clone()
    return lambda: None, result


def record_no_numbers(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None]
) -> tuple[Callable[[], None], Tensor]:
    replay, found = record(function, inputs)

    def spoil() -> None:
        replay()
        found.fill_(float("nan"))

    return spoil, found


def refuse(function: Callable[..., Tensor], inputs: Sequence[Tensor | None]) -> tuple[Callable[[], None], Tensor]:
    function(*inputs)  # half a pass leaves gradients behind
    raise RuntimeError("operation not permitted when stream is capturing")


class RecordingDevice(Device):
    """A CPU with a recorder."""

    def __init__(self, precision: Precision, how: Recorder | None):
        super().__init__(precision)
        self.how = how

    def recorder(self) -> Recorder | None:
        return self.how


def train(precision: Precision, how: Recorder | None) -> tuple[Updater, dict[str, Tensor]]:
    device = RecordingDevice(precision, how)
    updater = Updater(HierarchicalVAE(model_config()), train_config(precision=precision), device)
    for number in range(UPDATES):
        updater([batch(2 * number), batch(2 * number + 1)])
    return updater, {
        f"{group}.{name}": tensor for group, tensors in updater.groups().items() for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_micro_batches_train_bit_for_bit_alike(precision: Precision) -> None:
    plain, recorded = train(precision, None)[1], train(precision, record)
    assert isinstance(recorded[0]._pass, Replay)
    assert recorded[0]._pass.is_recorded
    assert WARM_UP < 2 * UPDATES - 1
    assert all(torch.equal(tensor, recorded[1][name]) for name, tensor in plain.items())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (record_the_past, "computes something else"),
        (record_no_numbers, "computes something else"),
        (refuse, "not permitted"),
    ],
)
def test_a_recording_that_fails_or_is_wrong_changes_nothing(
    how: Recorder, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = train("bfloat16", None)[1]
    with caplog.at_level(logging.WARNING):
        updater, found = train("bfloat16", how)
    assert caplog.text.count(said) == 1
    assert isinstance(updater._pass, Replay)
    assert not updater._pass.is_recorded
    assert all(torch.equal(tensor, found[name]) for name, tensor in plain.items())
