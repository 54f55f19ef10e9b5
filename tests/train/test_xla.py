"""XLA for real, on PJRT's CPU devices: equal losses on one and two, nothing compiled or fetched between log lines.

Only where torch_xla is installed: make test-xla.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.run import latest_checkpoint
from tests.conftest import lvae_process

pytestmark = [
    pytest.mark.xla,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed"),
]

SETTINGS = ("width=8", "encoder_width=8", "batch=8", "warm_up_updates=3", "classes=8", "hierarchical_prior=true")
WARM_UP = 1  # update


@pytest.fixture(scope="module")
def small_latents(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4x4 latents of 3 channels."""
    folder = tmp_path_factory.mktemp("encoded") / "latents"
    lvae_process(
        "encode", scenes, folder, "--autoencoder", "pixels-f8", "--size", "32", "--mirror", "--split", "val=20%"
    )
    return folder


def run(latents: Path, folder: Path, devices: int, updates: int, *more: str) -> dict[str, Any]:
    environment = os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)}
    arguments = [str(latents), str(folder), str(updates), *SETTINGS, *more]
    command = [sys.executable, "-m", "tests.train.xla_run", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def two_devices(small_latents: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("two") / "run"
    return run(small_latents, folder, 2, 24), folder


def test_nothing_is_compiled_after_the_warm_up(two_devices: tuple[dict[str, Any], Path]) -> None:
    found, _ = two_devices
    assert found["device"] == "2 XLA devices (CPU)"
    compilations = [compiled for compiled, _ in found["seen"]]
    # The first validation and preview, after update 8, compile what they need; then everything is known.
    assert compilations[WARM_UP - 1] == compilations[7]
    assert compilations[8] == compilations[-1]


def test_nothing_travels_to_the_host_between_log_lines(two_devices: tuple[dict[str, Any], Path]) -> None:
    found, _ = two_devices
    assert found["fallbacks"] == []
    transfers = [transferred for _, transferred in found["seen"]]
    for line in range(0, 24, 4):
        assert transfers[line] == transfers[line + 3]
    assert transfers[4] > transfers[3]


def test_two_devices_give_the_losses_of_one(
    small_latents: Path, two_devices: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    assert run(small_latents, tmp_path / "run", 1, 12)["device"] == "1 XLA devices (CPU)"
    one, two = read_metrics(tmp_path / "run"), read_metrics(two_devices[1])[:3]
    for line, other in zip(one, two, strict=True):
        for name in ("loss_nats", "reconstruction_nats", "rate_nats", "spectral", "gradient_norm"):
            # float32: sums over half batches, then a few updates with what came of them
            assert line[name] == pytest.approx(other[name], rel=1e-4), name


def test_a_run_goes_on_where_it_was_saved(small_latents: Path, two_devices: tuple[dict[str, Any], Path]) -> None:
    _, folder = two_devices
    run(small_latents, folder, 2, 28)
    assert latest_checkpoint(folder).step == 28
    steps = [line["step"] for line in read_metrics(folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 28


@pytest.fixture(scope="module")
def updates() -> dict[str, Any]:
    """Updates in one, two and four portions, and an upload."""
    return script("tests.train.xla_updates", "1")


def test_one_program_runs_all_micro_batches_whatever_their_number(updates: dict[str, Any]) -> None:
    two, four, one = (updates[portions]["programs"] for portions in ("2", "4", "1"))
    assert two == [two[0], two[0] + 2, two[0] + 2, two[0] + 2]  # a micro-batch, and what follows the last one
    assert four == [four[0]] * 4 == [two[-1]] * 4
    assert one == [one[0], one[0] + 1, one[0] + 1, one[0] + 1]  # a micro-batch of another size
    for name, other in zip(updates["2"]["sums"], updates["1"]["sums"], strict=True):
        assert name == pytest.approx(other, rel=2e-4)  # float32: sums over halves of a batch
    for name, other in zip(updates["2"]["sums"], updates["4"]["sums"], strict=True):
        assert name == pytest.approx(other, rel=2e-4)  # the same latents twice, with the same noise


def test_latents_are_sent_in_chunks_by_one_program(updates: dict[str, Any]) -> None:
    assert updates["upload"] == {"equal": True, "programs": 2}  # the other one makes room


def test_noise_of_training_is_that_of_a_cpu_that_counts(updates: dict[str, Any]) -> None:
    assert updates["noise"] < 2e-6  # logarithms and cosines


def test_hosts_of_a_pod_agree() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    where = {"PJRT_DEVICE": "CPU", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.xla_pod", str(index)],
            env=os.environ | where,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    first, second = (json.loads(host.communicate()[0].splitlines()[-1]) for host in hosts)
    assert (first["main"], second["main"]) == (True, False)
    for found in (first, second):
        assert (found["world"], found["from_main"], found["from_all"], found["stop"]) == (1, 7, [0, 1], [True, False])
    assert first["together"] == "rank 1: cannot begin, so no rank does. Its own message says why."
    assert second["together"] == "RUN: is not here."


def script(module: str, devices: str) -> dict[str, Any]:
    """What a script prints that runs in a process of its own."""
    environment = os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": devices}
    done = subprocess.run([sys.executable, "-m", module], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def steps() -> dict[str, Any]:
    """A step each of a model with attention, of the same with recomputation, and of an upsampler."""
    return script("tests.train.xla_model", "1")


def test_recomputation_is_kept_by_the_compiler_and_changes_nothing(steps: dict[str, Any]) -> None:
    plain, recomputed = steps["plain"], steps["recomputed"]
    assert plain["barriers"] == 0
    assert recomputed["barriers"] > 0
    assert recomputed["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert recomputed["norm"] == pytest.approx(plain["norm"], rel=1e-4)


def test_an_upsampler_does_not_leave_the_device(steps: dict[str, Any]) -> None:
    for step in steps.values():
        assert set(step["fallbacks"]) <= {"aten::_local_scalar_dense"}
