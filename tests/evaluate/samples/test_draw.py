"""`lvae sample`: what is written, what decides it and what does not, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lvae.evaluate.samples.draw import SampleOptions, draw, prepare, sample_prepared
from lvae.evaluate.samples.options import guidance_weights
from lvae.evaluate.samples.output import draw_output
from lvae.manifests.dataset import Dataset
from lvae.manifests.publishing import samples as storage
from lvae.manifests.seeds import derive
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.verify import verify
from lvae.train.devices.device import Device, Precision
from lvae.train.model import Decoded
from lvae.train.network.groups import StochasticGroup
from lvae.train.network.noise import draw_noise
from tests.conftest import lvae_process
from tests.evaluate import run_examples
from tests.evaluate.run_examples import latents, lvae, model_config
from tests.train.loop.test_replay import RecordingDevice, record, refuse


def drawn(run: Path, out: Path, *options: str) -> np.ndarray:  # type: ignore[type-arg]
    lvae("sample", run, out, "--device", "cpu", *options)
    return latents(out)


def test_samples_are_a_dataset_of_their_own(run: Path, data: Dataset, tmp_path: Path) -> None:
    done = lvae("sample", run, tmp_path / "s", "-n", "20", "--device", "cpu")
    assert "guidance: none\n" in done.stderr
    found = Dataset.open(tmp_path / "s")
    assert (len(found), found.manifest.origin, found.manifest.raw) == (20, "samples", "dropped")
    assert found.normalization == data.normalization
    assert found.labels.tolist() == [index % 3 for index in range(20)]
    assert found.rows.tolist() == list(range(20))
    raw = found.denormalize(np.array(found.latents))
    np.testing.assert_allclose(found.statistics.mean, raw.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    assert verify(Folder(tmp_path / "s"), deep=True) == []


def test_a_run_says_how_it_is_drawn_where_nobody_does(run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    settings = {"guidance_mean": "1,0.5", "temperature": "1,1.2", "output_temperature": 0.4}
    drawing = {"format": "latent-vae-drawing", "version": 1, **settings}
    (own / "drawing.json").write_text(json.dumps(drawing))
    words = ("--guidance-mean", "1,0.5", "--temperature", "1,1.2", "--output-temperature", "0.4")
    done = lvae("sample", own, tmp_path / "own", "-n", "5", "--device", "cpu")
    assert f"drawn as {own} says: {' '.join(words)}\n" in done.stderr
    np.testing.assert_array_equal(latents(tmp_path / "own"), drawn(run, tmp_path / "said", "-n", "5", *words))
    plain = drawn(run, tmp_path / "plain", "-n", "5")
    for said in (("--temperature", "1"), ("--guidance-mean", "0"), ("--output-temperature", "0")):
        np.testing.assert_array_equal(drawn(own, tmp_path / said[0], "-n", "5", *said), plain)
    assert np.abs(plain - latents(tmp_path / "own")).max() > 1e-3


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        ({"temperature": "warm"}, "--temperature warm: write a number"),
        ({"guidance_mean": "1,2,3"}, "--guidance-mean 1,2,3: 3 numbers for 2 resolutions"),
        ({"output_noise": "pink"}, "output_noise"),
        ({"hue": 3}, "hue"),
        ({"version": 2}, "version"),
    ],
)
def test_a_way_of_drawing_that_cannot_be_is_told_in_one_line(
    run: Path, tmp_path: Path, drawing: dict[str, object], said: str
) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    (own / "drawing.json").write_text(json.dumps({"format": "latent-vae-drawing", "version": 1, **drawing}))
    done = lvae("sample", own, tmp_path / "s", "-n", "5", "--device", "cpu", check=1)
    (line,) = done.stderr.splitlines()
    assert said in line and "drawing.json" in line
    assert not (tmp_path / "s").exists()


def test_a_sample_does_not_depend_on_batch_or_count(run: Path, tmp_path: Path) -> None:
    guided = ("--guidance", "paper")
    many = drawn(run, tmp_path / "many", "-n", "23", "--batch", "7", *guided)
    few = drawn(run, tmp_path / "few", "-n", "5", "--batch", "1", *guided)
    np.testing.assert_allclose(few, many[:5], atol=1e-5 * np.abs(many).max())
    other = drawn(run, tmp_path / "other", "-n", "5", "--seed", "1", *guided)
    assert np.abs(other - few).max() > 1e-3


def test_the_same_command_goes_on_where_it_was_stopped(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SHARD_ROWS", 64)
    whole = drawn(run, tmp_path / "whole", "-n", "150")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut/manifest.json").unlink()
    receipt = next((tmp_path / "cut").rglob("shard-train-000001.json"))
    kept = next((tmp_path / "cut").rglob("shard-train-000000.json"))
    before = kept.stat().st_mtime_ns
    receipt.unlink()
    assert np.array_equal(drawn(run, tmp_path / "cut", "-n", "150"), whole)
    assert kept.stat().st_mtime_ns == before
    done = lvae("sample", run, tmp_path / "cut", "-n", "150", "--seed", "3", "--device", "cpu", check=1)
    assert re.search(r"other settings: seed was 0 and is 3 now", done.stderr)


def test_without_guidance_the_unconditional_path_is_never_computed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    prior = StochasticGroup.prior
    monkeypatch.setattr(StochasticGroup, "prior", lambda self, x, y: (rows.append(len(x)), prior(self, x, y))[1])
    drawn(run, tmp_path / "plain", "-n", "6")
    assert rows == [6] * 3
    rows.clear()
    drawn(run, tmp_path / "guided", "-n", "6", "--guidance-variance", "2")
    assert rows == [12] * 3


def test_both_conventions_say_the_same(run: Path, tmp_path: Path) -> None:
    extra = drawn(run, tmp_path / "a", "-n", "4", "--guidance-mean", "0,1.5", "--guidance-variance", "3")
    scale = drawn(
        run,
        tmp_path / "b",
        *("-n", "4", "--guidance-convention", "scale", "--guidance-mean", "1,2.5", "--guidance-variance", "4"),
    )
    paper = drawn(run, tmp_path / "c", "-n", "4", "--guidance", "paper")
    assert np.array_equal(extra, scale)
    assert np.array_equal(extra, paper)
    assert guidance_weights(model_config(), None, None, "paper", "extra") == ((0.0, 1.5), (3.0, 3.0))


def test_averaged_weights_and_temperature_count(run: Path, tmp_path: Path) -> None:
    plain = drawn(run, tmp_path / "a", "-n", "4")
    assert np.abs(plain - drawn(run, tmp_path / "b", "-n", "4", "--weights", "raw")).max() > 1e-3
    assert np.abs(plain - drawn(run, tmp_path / "c", "-n", "4", "--temperature", "0.2")).max() > 1e-3


def test_a_share_of_the_predicted_deviation_is_added_to_the_mean(run: Path, tmp_path: Path) -> None:
    mean = drawn(run, tmp_path / "mean", "-n", "9")
    assert b"output_temperature" not in (tmp_path / "mean" / "samples.json").read_bytes()
    half, whole = (
        drawn(run, tmp_path / share, "-n", "9", "--batch", "4", "--output-temperature", share) for share in ("0.5", "1")
    )
    assert np.abs(half - mean).max() > 0
    np.testing.assert_allclose(2 * (half - mean), whole - mean, atol=1e-5 * np.abs(whole).max())
    assert abs(float((whole - mean)[:4].ravel() @ (whole - mean)[4:8].ravel())) < 0.2 * ((whole - mean) ** 2)[:4].sum()
    lvae("sample", run, tmp_path / "mean", "-n", "9", "--device", "cpu", "--output-temperature", "0.5", check=1)
    lvae("sample", run, tmp_path / "none", "-n", "9", "--output-temperature", "nan", check=2)


def test_a_sample_that_is_not_finite_is_named(run: Path, tmp_path: Path) -> None:
    done = lvae("sample", run, tmp_path / "s", "-n", "5", "--temperature", "1e38", "--device", "cpu", check=1)
    assert f"lvae: {tmp_path / 's'}: the numbers of sample 0 are not finite" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--labels", "9"), "9 is not a class; they are 0 to 2"),
        (("--labels", "wolf"), "no such class, and no such file"),
        (("--guidance-mean", "1,2,3"), "3 numbers for 2 resolutions"),
        (("--guidance-mean", "much"), "write a number"),
        (("--guidance", "paper", "--guidance-mean", "1"), "Leave --guidance-mean"),
        (("--temperature", "-1"), "must not be negative"),
        (("--temperature", "nan"), "must be finite"),
        (("--low-resolution", "nowhere"), "no such file or folder, where samples or a dataset is wanted"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    run: Path, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = lvae("sample", run, tmp_path / "s", "-n", "4", "--device", "cpu", *options, check=1)
    assert sentence in done.stderr.splitlines()[-1]
    assert not (tmp_path / "s").exists()


def test_folders_that_are_no_run_or_hold_something_else_are_refused(run: Path, tmp_path: Path) -> None:
    assert "not a run" in lvae("sample", tmp_path, tmp_path / "s", check=1).stderr
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    assert "thesis.txt" in lvae("sample", run, tmp_path / "full", "-n", "4", "--device", "cpu", check=1).stderr


def test_a_checkpoint_cut_short_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    weights = next((tmp_path / "run").rglob("ema.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    done = lvae("sample", tmp_path / "run", tmp_path / "s", "-n", "4", "--device", "cpu", check=1)
    assert "no checkpoint is whole" in done.stderr


def test_an_unconditional_model_refuses_guidance_and_labels(data: Dataset, tmp_path: Path) -> None:
    plain = run_examples.run(tmp_path / "run", data, model_config(classes=0))
    arguments = ("sample", plain, tmp_path / "s", "-n", "4", "--device", "cpu")
    assert "guidance needs a model" in lvae(*arguments, "--guidance-mean", "1", check=1).stderr
    assert "unconditional" in lvae(*arguments, "--labels", "1", check=1).stderr
    lvae(*arguments)
    assert Dataset.open(tmp_path / "s").labels.tolist() == [-1] * 4


def test_an_upsampler_begins_with_low_resolution_samples(data: Dataset, tmp_path: Path) -> None:
    upsampler = model_config(
        resolution=8, classes=0, hierarchical_prior=False, multipliers=(1, 1), low_resolution_factor=2
    )
    low = run_examples.run(tmp_path / "low", data, model_config(classes=0))
    high = run_examples.run(tmp_path / "high", data, upsampler)
    config = high / "config.json"
    config.write_text(config.read_text().replace('"shape": [\n   3,\n   4,\n   4\n  ]', '"shape": [3, 8, 8]'))
    lvae("sample", low, tmp_path / "small", "-n", "6", "--device", "cpu")
    arguments = ("sample", high, tmp_path / "large", "--device", "cpu")
    assert "--low-resolution" in lvae(*arguments, "-n", "6", check=1).stderr
    lvae(*arguments, "--low-resolution", tmp_path / "small")
    assert latents(tmp_path / "large").shape == (6, 3, 8, 8)


def test_more_samples_go_on_with_those_that_are_there(run: Path, tmp_path: Path) -> None:
    few = drawn(run, tmp_path / "samples", "-n", "5")
    whole = drawn(run, tmp_path / "whole", "-n", "9")
    more = drawn(run, tmp_path / "samples", "-n", "9")
    np.testing.assert_array_equal(more[:5], few)
    np.testing.assert_allclose(more, whole, atol=1e-5 * np.abs(whole).max())
    assert verify(Folder(tmp_path / "samples"), deep=True) == []
    assert len(list((tmp_path / "samples/shards").iterdir())) == 1
    assert Dataset.open(tmp_path / "samples").labels.tolist() == Dataset.open(tmp_path / "whole").labels.tolist()
    lvae("sample", run, tmp_path / "samples", "-n", "5", check=1)
    lvae("sample", run, tmp_path / "samples", "-n", "12", "--seed", "1", check=1)


class OtherHost(Device):
    """A process of a pod that is not the first: it computes the same, and writes nothing."""

    is_main = False


def test_other_hosts_of_a_pod_draw_what_is_pending(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(run, SampleOptions(count=20))
    folder = Folder(tmp_path / "s")
    assert storage.begin(folder, prepared.plan, prepared.labels)  # by the first host
    calls = []
    whole = replace(prepared, decode=lambda *a, **k: calls.append(1) or prepared.model.decode(*a, **k))
    monkeypatch.setattr(OtherHost, "compile", lambda self, function: whole.decode)
    sample_prepared(whole, run, folder.root, OtherHost(), 8)
    assert len(calls) == 3  # it launches what the first host launches
    assert storage.pending(folder, prepared.plan) == [0]
    assert not (folder.root / "manifest.json").exists()
    sample_prepared(prepared, run, folder.root, Device(), 8)
    sample_prepared(whole, run, folder.root, OtherHost(), 8)
    assert len(calls) == 3  # nothing is pending any more


def test_noise_of_a_sample_is_the_cpu_generators(run: Path) -> None:
    prepared = prepare(run, SampleOptions(count=3, seed=5))
    config, seen = prepared.model.config, []

    def decode(z: object, labels: object, noise: list[torch.Tensor], **more: Any) -> Decoded:
        seen.extend(noise)
        return prepared.model.decode([None] * len(noise), labels, noise, **more)  # type: ignore[arg-type]

    draw(replace(prepared, decode=decode), range(3), Device(), 3)
    wanted = draw_noise(config, [derive(5, "sample", index) for index in range(3)])
    assert all(torch.equal(found, want) for found, want in zip(seen, wanted, strict=True))


@pytest.mark.slow
def test_compiled_samples_are_the_same(run: Path, tmp_path: Path) -> None:
    plain = drawn(run, tmp_path / "plain", "-n", "11", "--batch", "4", "--guidance", "paper")
    options = ("-n", "11", "--batch", "4", "--guidance", "paper", "--device", "cpu", "--compile")
    lvae_process("sample", run, tmp_path / "compiled", *options)  # torch warns of itself there
    compiled = latents(tmp_path / "compiled")
    np.testing.assert_allclose(compiled, plain, atol=1e-5 * np.abs(plain).max())  # float32: operations fused


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_batches_draw_the_same_samples(run: Path, tmp_path: Path, precision: Precision) -> None:
    """The GPU's part is handed in, see tests/train/loop/test_replay.py."""
    options = SampleOptions(count=6 * 4, guidance_mean="1.5")
    recordings = []

    def watch(*asked: Any) -> Any:
        recordings.append(record(*asked))
        return recordings[-1]

    plain, recorded = (RecordingDevice(precision, how) for how in (None, watch))
    for device, name in ((plain, "plain"), (recorded, "recorded")):
        sample_prepared(prepare(run, options, precision), run, tmp_path / name, device, 4)
    np.testing.assert_array_equal(latents(tmp_path / "plain"), latents(tmp_path / "recorded"))
    assert len(recordings) == 1


def test_a_recording_that_fails_costs_no_sample(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = SampleOptions(count=6 * 4)
    for how, name in ((None, "plain"), (refuse, "refused")):
        device = RecordingDevice("float32", how)
        sample_prepared(prepare(run, options, "float32"), run, tmp_path / name, device, 4)
    assert "no CUDA graph: operation not permitted when stream is capturing; work goes on without" in caplog.text
    np.testing.assert_array_equal(latents(tmp_path / "plain"), latents(tmp_path / "refused"))


def test_one_sample_whose_deviation_ran_away_does_not_void_the_others() -> None:
    mean, log_variance = torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    log_variance[1] = 300.0  # its square root's exponential is no float32
    whole = Decoded(mean, log_variance, [], [])
    found = draw_output(whole, 0.5, 7, [0, 1])
    assert bool(found.isfinite().all()) and float(found[1].abs().max()) > 100
    assert torch.equal(found[:1], draw_output(Decoded(mean[:1], log_variance[:1], [], []), 0.5, 7, [0]))
