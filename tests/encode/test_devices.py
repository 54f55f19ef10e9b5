"""Which device a worker takes, at which precision, and how parts are cut for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.encode.devices import check_precision, choose_precision, device_of, find_devices
from lvae.encode.feeding.encoder import PART_BYTES, PART_LATENTS, choose_part_size
from lvae.encode.feeding.stand_in import read_rate
from lvae.manifests import machine
from lvae.manifests.errors import LvaeError
from lvae.pipeline.beam.worker_check import find_worker_number


def test_auto_is_every_gpu_and_workers_take_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvae.encode.devices.count_gpus", lambda: 3)
    found = find_devices(("auto",))
    assert found == ("cuda:0", "cuda:1", "cuda:2")
    assert sorted(device_of(found, worker) for worker in range(4, 7)) == list(found)  # engines count on and on
    assert find_devices(("cuda:2", "cpu")) == ("cuda:2", "cpu")
    assert machine.count_gpus() >= 0


@pytest.mark.parametrize(("name", "number"), [("", 0), ("worker_5", 5), ("gpu-3", 3), ("7", 7), ("tcp://a:4000", 0)])
def test_a_worker_knows_its_number_from_its_engine(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_ID", name)
    assert find_worker_number() == number


def test_precision_is_chosen_for_the_device() -> None:
    assert (choose_precision(None, "cpu"), choose_precision(None, "cuda:1")) == ("float32", "tf32")
    assert choose_precision("bfloat16", "cuda") == "bfloat16"
    with pytest.raises(LvaeError, match="multiply on a GPU"):
        check_precision("tf32", "cpu")


@given(
    st.integers(0, 10**12), st.integers(1, 10**7), st.integers(1, 2), st.sampled_from(["cpu", "cuda:0", "stand-in:9"])
)
def test_parts_are_never_larger_than_64_mib(cost: int, raw_bytes: int, orientations: int, device: str) -> None:
    size = choose_part_size(cost, raw_bytes, orientations, device)
    assert size == 1 or size * orientations * raw_bytes <= PART_BYTES
    assert size & (size - 1) == 0


def test_parts_are_a_minute_of_a_core_or_4096_latents() -> None:
    kl_f8, latent = 136_000_000_000, 4 * 32 * 32 * 4
    assert choose_part_size(kl_f8, latent, 1, "cpu") == 16
    assert choose_part_size(kl_f8, latent, 1, "cuda:0") == PART_LATENTS
    assert choose_part_size(kl_f8, latent, 2, "cuda:0") == PART_LATENTS // 2


@pytest.mark.parametrize("rate", ["", "-1", "nan", "inf", "x"])
def test_a_stand_in_answers_at_some_rate(rate: str) -> None:
    with pytest.raises(LvaeError, match="stand-in:RATE"):
        read_rate(f"stand-in:{rate}")
