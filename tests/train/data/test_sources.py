"""What travels to a device, and in which portions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.train.data.batches import Batches
from lvae.train.data.sources import Placement, Resident, open_source, plan_data
from lvae.train.devices import device as devices
from lvae.train.devices.device import Device
from tests.manifests.dataset_examples import build
from tests.manifests.shards.test_tar_stream import put_in_memory
from tests.train.trainer_examples import train_config


class Counting(Device):
    """A CPU that counts what is sent to it with batches, and what is pinned."""

    sent = pinned = 0

    def put(self, tensor: Tensor) -> Tensor:
        self.sent += tensor.nbytes
        return super().put(tensor)

    def pin(self, tensor: Tensor) -> Tensor:
        self.pinned += tensor.nbytes
        return super().pin(tensor)


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """144 latents of 4x2x2, float16, some labelled."""
    return build(tmp_path_factory.mktemp("tars"), format="webdataset").root


@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_all_latents_are_sent_in_chunks(tars: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "UPLOADED", 2 * 4 * 2 * 2 * rows)
    dataset, device = Dataset.open(tars), Counting()
    source = Resident(dataset, device)
    assert device.pinned == 2 * 32 * min(rows, 144)  # and never all of them
    everything = np.arange(len(dataset))
    found = source.finish(device.put(source.read(everything, everything)))
    assert torch.equal(found, torch.from_numpy(np.asarray(dataset.latents, np.float32)))


@pytest.mark.parametrize("placement", ["disk", "memory", "device", "stream"])
@pytest.mark.parametrize("classes", [0, 3])
def test_latents_travel_as_they_are_stored_as_reckoned(tars: Path, placement: Any, classes: int) -> None:
    url, device, config = put_in_memory(tars, "memory://train/sources"), Counting(), train_config(accumulate=2)
    streamed = placement == "stream"
    dataset = Dataset.open(url if streamed else tars)
    asked: Placement = "auto" if streamed else placement
    plan = plan_data(dataset, device, config, classes, asked, streamed)
    source = open_source(dataset, device, 0, asked)
    assert plan.placement == source.placement == placement
    with Batches(source, dataset, config, device, classes, 0) as batches:
        update = batches.next()
    assert device.sent == plan.update_bytes == 16 * ((8 if placement == "device" else 32) + (9 if classes else 0))
    assert all(batch.latents.dtype == torch.float32 for batch in update)
    assert plan.device_bytes == (144 * 32 if placement == "device" else 0)
