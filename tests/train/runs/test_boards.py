"""Other viewers of a run's log."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lvae.manifests.errors import LvaeError
from lvae.train.runs import boards
from lvae.train.runs.metrics_log import read_metrics
from tests.conftest import lvae_process
from tests.evaluate.run_examples import dataset


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_gets_the_log_and_takes_a_run_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    dataset(tmp_path / "latents")
    small = ("--set", "width=8", "--set", "encoder_width=8", "--batch", "8", "--log-every", "1", "--preview", "none")
    for steps in ("2", "3"):
        lvae_process("train", tmp_path / "latents", tmp_path / "run", *small, "--steps", steps, "--wandb", "hvae")
    wandb = tmp_path / "run" / "wandb"
    name = (wandb / "id.txt").read_text().strip()
    files = [list(read_records(path)) for path in sorted(wandb.glob(f"offline-run-*-{name}/run-{name}.wandb"))]
    log = read_metrics(tmp_path / "run")
    assert len(files) == 2
    for found, lines in zip(files, (log[:2], log[2:]), strict=True):
        (run,) = [one.run for one in found if one.HasField("run")]
        assert (run.run_id, run.project, run.display_name) == (name, "hvae", "run")
        assert "learning_rate" in "".join(item.value_json for item in run.config.update)
        metrics = [one.metric for one in found if one.HasField("metric")]
        assert "update" in [one.name for one in metrics]
        assert [one.step_metric for one in metrics if one.glob_name == "*"] == ["update"]
        history = [one.history for one in found if one.HasField("history")]
        written = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.item} for one in history
        ]
        assert [line["update"] for line in written] == [line["step"] for line in lines]
        for line, own in zip(written, lines, strict=True):
            numbers = {key: value for key, value in own.items() if isinstance(value, int | float) and key != "step"}
            assert {key: line[key] for key in numbers} == numbers


def read_records(path: Path) -> Iterator[Any]:
    """What a file of Weights & Biases holds: records of protobuf in pieces, which end with their block of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, pieces = path.read_bytes(), 7, b""  # behind the header
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:
            at += 32_768 - at % 32_768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        pieces, at = pieces + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # a whole one, or the last piece of one
            record = Record()
            record.ParseFromString(pieces)
            pieces = b""
            yield record


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_where_it_does_not_begin_all_ranks_end_alike(tmp_path: Path) -> None:
    dataset(tmp_path / "latents")
    small = ("--set", "width=8", "--set", "encoder_width=8", "--batch", "8", "--steps", "2", "--preview", "none")
    command = [sys.executable, "-m", "lvae", "train", tmp_path / "latents", tmp_path / "run", *small, "--wandb", "hvae"]
    port = str(20_000 + os.getpid() % 20_000)
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank, "WANDB_MODE": "online", "WANDB_API_KEY": "no"},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    first, second = (rank.communicate(timeout=240)[1] for rank in ranks)
    assert [rank.returncode for rank in ranks] == [1, 1]
    (line,) = [line for line in first.splitlines() if "--wandb hvae" in line]
    assert "wandb does not begin" in line and line.endswith("Say 'wandb login' first, or set WANDB_MODE=offline.")
    assert "rank 0: cannot begin, so no rank does. Its own message says why." in second
    assert "Traceback" not in first + second


def test_an_extra_that_is_not_there_is_told_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        LvaeError, match=r"wandb is not installed. Install the extra: pip install 'latent-vae\[wandb\]'"
    ):
        boards.check_wandb("hvae")
    boards.check_wandb(None)
