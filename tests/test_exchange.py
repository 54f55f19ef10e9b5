"""`lvae import` and `lvae export`: published layouts and ours, in and out, and what is said about both."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor

from lvae.cli import main
from lvae.encode.autoencoder import load
from lvae.encode.networks.base import save_safetensors
from lvae.evaluate.manipulation.import_checks import SCORES, explain_scoring
from lvae.manifests.dataset import Dataset
from lvae.manifests.records import dumps
from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import PRESETS
from lvae.train.published import published_state
from lvae.train.runs.run import load_model, read_run
from tests.evaluate import run_examples
from tests.train.flax_examples import flax_trees, packed, pickled
from tests.train.model_examples import CONDITIONAL, PLAIN, UPSAMPLER, lively

torch.set_num_threads(1)

KL = {"kind": "kl", "width": 8, "multipliers": [1, 2], "blocks": 1, "latent_channels": 4, "codes": 0}
# Latents of 4 channels, with as many attentions and heads as shapes tell.
SMALL = replace(PLAIN, attentions=(0, 2, 3, 1), heads=(0, 1, 2, 2), attention="published")


def lvae(*arguments: str | Path, check: int = 0) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == check, done.output
    return done


def pipeline(path: Path, config: ModelConfig = SMALL, loss: bool = False) -> HierarchicalVAE:
    """A published pipeline's layout: first stage and VAE in one bare state dict."""
    model = lively(config)
    stage = load(KL, "random:3")
    state: dict[str, Tensor] = {f"vae.{name}": tensor for name, tensor in published_state(model).items()}
    state |= {f"dae.{name}": tensor for name, tensor in stage.state_dict().items()}
    if loss:
        state |= {"dae.loss.logvar": torch.zeros(()), "dae.loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    torch.save(state, path)
    return model


def test_a_published_pipeline_becomes_pictures_with_two_commands(tmp_path: Path) -> None:
    model = pipeline(tmp_path / "church_pipeline.pt", loss=True)
    done = lvae("import", tmp_path / "church_pipeline.pt", tmp_path / "run", "--shift", "0.25", "--scale", "4.1")
    assert "presumably averaged (EMA)" in done.stderr
    assert "no preset has these shapes" in done.stderr
    lvae("traverse", tmp_path / "run", tmp_path / "grid.png", "--channels", "0:0,1:0", "--device", "cpu")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > 600
    config = read_run(tmp_path / "run")
    assert config.model == SMALL
    assert config.dataset.normalization.shift == (0.25,) * 4
    assert config.dataset.image.size == 32
    assert config.dataset.autoencoder.weights_sha256 == load(KL, "random:3").fingerprint
    loaded = load_model(tmp_path / "run")
    for name, tensor in published_state(model).items():
        assert loaded.state_dict()[name].equal(tensor), name
    assert (
        "is there already"
        in lvae("import", tmp_path / "church_pipeline.pt", tmp_path / "run", "--shift", "0.25", "--scale", "4.1").stdout
    )
    done = lvae("import", tmp_path / "church_pipeline.pt", tmp_path / "run", check=1)
    assert "holds another run" in done.stderr


def test_after_import_the_other_commands_work(tmp_path: Path) -> None:
    pipeline(tmp_path / "x.pt")
    run, samples = tmp_path / "run", tmp_path / "samples"
    lvae("import", tmp_path / "x.pt", run, "--scale", "2")
    lvae("sample", run, samples, "-n", "3", "--device", "cpu")
    assert Dataset.open(samples).manifest.view.shape == (4, 16, 16)
    lvae("decode", samples, tmp_path / "grid.png", "--device", "cpu")
    lvae("outpaint", run, _photo(tmp_path), tmp_path / "wide.png", "--right", "4", "--device", "cpu")
    lvae("interpolate", run, _photo(tmp_path), _photo(tmp_path, 60), tmp_path / "between.png", "--device", "cpu")
    lvae("depths", run, _photo(tmp_path), tmp_path / "depths.png", "--device", "cpu")
    assert "imported" in lvae("inspect", run).stdout
    assert "no model weights" in lvae("sample", run, tmp_path / "s2", "-n", "1", "--weights", "raw", check=1).stderr


def _photo(folder: Path, level: int = 200) -> Path:
    path = folder / f"{level}.png"
    Image.radial_gradient("L").point(lambda v: min(v, level)).convert("RGB").resize((40, 36)).save(path)
    return path


def test_a_vae_alone_keeps_to_latents_until_it_is_given_a_first_stage(tmp_path: Path) -> None:
    model = lively(SMALL)
    torch.save(published_state(model), tmp_path / "vae.pt")
    done = lvae("import", tmp_path / "vae.pt", tmp_path / "run")
    assert "no autoencoder's weights" in done.stderr
    assert "shift and scale" in done.stderr
    done = lvae("traverse", tmp_path / "run", tmp_path / "grid.png", "--channels", "0:0,1:0", "--device", "cpu")
    assert "false colours" in done.stderr
    lvae("sample", tmp_path / "run", tmp_path / "samples", "-n", "2", "--device", "cpu")
    assert "Give --weights FILE" in lvae("decode", tmp_path / "samples", tmp_path / "g.png", check=1).stderr
    stage = tmp_path / "stage.safetensors"
    stage.write_bytes(save_safetensors(load(KL, "random:3")))
    lvae("decode", tmp_path / "samples", tmp_path / "g.png", "--weights", stage, "--device", "cpu")
    lvae("import", tmp_path / "vae.pt", tmp_path / "whole", "--weights", stage)
    assert read_run(tmp_path / "whole").dataset.image.size == 32
    done = lvae("import", tmp_path / "vae.pt", tmp_path / "other", "--autoencoder", "kl-f8", check=1)
    assert "needs weights" in done.stderr or "latent channels" in done.stderr


@pytest.mark.parametrize("kind", ["msgpack", "pickle"])
def test_a_flax_state_is_imported_with_both_its_weights(kind: str, tmp_path: Path) -> None:
    model, last = lively(SMALL), lively(SMALL, seed=8)
    state = {"step": 77, "ema_params": flax_trees(model)[0], "params": flax_trees(last)[0]}
    path = tmp_path / "checkpoint_77"
    path.write_bytes(packed(state) if kind == "msgpack" else pickled(state))
    done = lvae("import", path, tmp_path / "run")
    assert "averaged weights (EMA), update 77" in done.stderr
    for weights, expected in (("ema", model), ("raw", last)):
        found = load_model(tmp_path / "run", weights)  # type: ignore[arg-type]
        assert found.outproj.weight.equal(expected.outproj.weight)
    assert "update 77" in lvae("inspect", tmp_path / "run").stdout


def test_an_upsampler_is_imported_with_its_config(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(packed({"params": flax_trees(lively(UPSAMPLER))[0]}))
    assert "do not tell its resolution" in lvae("import", path, tmp_path / "run", check=1).stderr
    (tmp_path / "config.json").write_bytes(dumps(UPSAMPLER))
    lvae("import", path, tmp_path / "run", "--config", tmp_path / "config.json", "--autoencoder", "pixels")
    assert read_run(tmp_path / "run").model == replace(UPSAMPLER, attention="published")


@pytest.mark.parametrize("out", ["folder", "model.pt"])
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_what_is_exported_comes_back_bit_for_bit(out: str, weights: str, tmp_path: Path) -> None:
    data = run_examples.dataset(tmp_path / "dataset")
    heads = {"attentions": (1, 0), "heads": (2, 0), "groups": (3, 1)}
    run = run_examples.run(tmp_path / "run", data, run_examples.model_config(**heads))
    done = lvae("export", run, tmp_path / out, "--weights", weights)
    assert f"{weights} weights of update 7" in done.stdout
    assert ("the published code returns the projected queries" in done.stderr) == (out == "model.pt")
    lvae("import", tmp_path / out, tmp_path / "back")
    assert read_run(tmp_path / "back") == read_run(run)
    before, after = load_model(run, weights), load_model(tmp_path / "back", weights)  # type: ignore[arg-type]
    for name, tensor in published_state(before).items():
        assert after.state_dict()[name].equal(tensor), name
    noise = [torch.ones(1, 2, r, r) for r in before.config.group_resolutions]
    assert before.sample(1, noise=noise).equal(after.sample(1, noise=noise))
    lvae("export", tmp_path / "back", tmp_path / f"again-{out}", "--weights", weights)
    first, second = (tmp_path / name for name in (out, f"again-{out}"))
    if first.is_dir():
        assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    else:
        one, other = (torch.load(path, weights_only=True) for path in (first, second))
        assert one.keys() == other.keys() == {f"vae.{name}" for name in published_state(before)}
        assert all(one[name].equal(other[name]) for name in one)


def test_a_first_stage_travels_along(tmp_path: Path) -> None:
    pipeline(tmp_path / "x.pt")
    lvae("import", tmp_path / "x.pt", tmp_path / "run", "--scale", "2")
    for out in ("folder", "again.pt"):
        lvae("export", tmp_path / "run", tmp_path / out)
        lvae("import", tmp_path / out, tmp_path / f"back-{out.partition('.')[0]}")
        sha256 = read_run(tmp_path / "run").dataset.autoencoder.weights_file
        assert (tmp_path / f"back-{out.partition('.')[0]}" / str(sha256)).read_bytes() == (
            tmp_path / "run" / str(sha256)
        ).read_bytes()
    whole = torch.load(tmp_path / "again.pt", weights_only=True)
    original = torch.load(tmp_path / "x.pt", weights_only=True)
    assert whole.keys() == original.keys()
    assert all(whole[name].equal(original[name]) for name in whole)


def test_an_exported_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    run = run_examples.run(tmp_path / "run", run_examples.dataset(tmp_path / "dataset"))
    lvae("export", run, tmp_path / "out")
    lvae("export", run, tmp_path / "out")
    path = tmp_path / "out/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    assert (
        "is not the file that model.json describes" in lvae("import", tmp_path / "out", tmp_path / "b", check=1).stderr
    )
    assert "exists and differs" in lvae("export", run, tmp_path / "out", check=1).stderr
    assert "does not end in .pt" in lvae("export", run, tmp_path / "o", "--layout", "published", check=1).stderr


def test_arguments_in_the_wrong_order_are_told(tmp_path: Path) -> None:
    data = run_examples.dataset(tmp_path / "dataset").folder
    run = run_examples.run(tmp_path / "run", run_examples.dataset(tmp_path / "other"))
    (run / "metrics.jsonl").touch()
    before = sorted(run.rglob("*"))
    for arguments in (("train", run, data), ("stats", run), ("verify", run), ("shard", run), ("decode", run, "x.png")):
        assert f"{run}: is a run, not " in lvae(*arguments, check=1).stderr, arguments
    assert f"{data}: is a dataset, not a run. " in lvae("sample", data, run, check=1).stderr
    for out in (run, data):
        assert f"{out}: is " in lvae("export", run, out, check=1).stderr
    other = run_examples.dataset(tmp_path / "third").folder
    assert f"{other}: is " in lvae("train", data, other, check=1).stderr
    assert [path for path in sorted(run.rglob("*")) if path.name != ".lock"] == before


def test_an_imported_run_begins_new_training_and_is_not_trained_on(tmp_path: Path) -> None:
    data = run_examples.dataset(tmp_path / "dataset")
    run = run_examples.run(tmp_path / "run", data)
    lvae("export", run, tmp_path / "out")
    lvae("import", tmp_path / "out", tmp_path / "back")
    settings = json.loads((tmp_path / "back/config.json").read_text())
    options = [f"--set={name}={_shown(value)}" for name, value in settings["model"].items() if value is not None]
    done = CliRunner().invoke(
        main, ["train", str(data.folder), str(tmp_path / "back"), "--device", "cpu", "--steps", "9", *options]
    )
    assert done.exit_code == 1
    assert "Begin a new run with --init" in done.stderr


def _shown(value: object) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


class Hostile:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (self.mark,)


def test_hostile_truncated_and_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    pipeline(tmp_path / "x.pt")
    whole, mark = (tmp_path / "x.pt").read_bytes(), tmp_path / "mark"
    files = {
        "hostile.p": pickle.dumps({"ema_params": {"outproj": Hostile(mark)}}),
        "cut.pt": whole[: len(whole) // 2],
        "page.pt": b"<html>not found</html>",
        "empty.pt": b"",
        "list.p": pickle.dumps([1, 2]),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        done = lvae("import", tmp_path / name, tmp_path / "run", check=1)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert name in done.stderr
    assert not mark.exists()
    assert not (tmp_path / "run").exists()
    assert "no such file" in lvae("import", tmp_path / "nowhere.pt", tmp_path / "run", check=1).stderr
    (tmp_path / "folder").mkdir()
    assert "not a published checkpoint" in lvae("import", tmp_path / "folder", tmp_path / "run", check=1).stderr
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine.txt").write_text("mine")
    assert "not a place for a run" in lvae("import", tmp_path / "x.pt", tmp_path / "taken", check=1).stderr


def test_a_file_of_another_architecture_names_the_first_difference(tmp_path: Path) -> None:
    torch.save(published_state(lively(SMALL)), tmp_path / "vae.pt")
    done = lvae("import", tmp_path / "vae.pt", tmp_path / "run", "--preset", "church256-f8", check=1)
    assert "encoder.encoder_levels.0.layer_list.0.conv1.bias has shape (12,), expected is (192,)" in done.stderr


def test_the_self_check_tells_a_broken_model_from_a_sound_one(tmp_path: Path) -> None:
    model = lively(replace(SMALL, classes=0))
    with torch.no_grad():  # outputs of mean 0 and a large deviation, as of a file that was read wrong
        model.outproj.weight.mul_(40)
    torch.save(published_state(model), tmp_path / "vae.pt")
    done = lvae("import", tmp_path / "vae.pt", tmp_path / "run", "--check", "--device", "cpu", check=1)
    assert "NOT as expected" in done.stdout
    assert "Is this the file that it claims to be?" in done.stderr


def test_the_papers_scores_are_named_for_every_published_preset() -> None:
    assert set(SCORES) == {name for name, preset in PRESETS.items() if preset.hardware is not None}
    for name, known in SCORES.items():
        with torch.device("meta"):
            model = HierarchicalVAE(PRESETS[name].model)
        assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters
        assert f"FID {known.fid:g}" in explain_scoring(name, "run")[0]
    assert explain_scoring("tiny", "run") == []


def test_conditional_models_are_imported_too(tmp_path: Path) -> None:
    config = replace(CONDITIONAL, attention="published")
    torch.save({f"vae.{name}": t for name, t in published_state(lively(config)).items()}, tmp_path / "inet.pt")
    lvae("import", tmp_path / "inet.pt", tmp_path / "run", "--autoencoder", "pixels")
    lvae("sample", tmp_path / "run", tmp_path / "samples", "-n", "2", "--guidance", "paper", "--device", "cpu")
    lvae(
        "traverse", tmp_path / "run", tmp_path / "grid.png", "--channels", "0:0,1:0", "--label", "4", "--guidance",
        "paper", "--device", "cpu",
    )  # fmt: skip
