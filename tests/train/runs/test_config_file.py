"""Settings in a file: written with every key and its meaning, read without surprises, flags win."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.runs.config_file import field_meanings, read_config_file
from lvae.train.runs.run import read_run
from tests.conftest import lvae
from tests.evaluate.run_examples import dataset


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("config") / "latents"
    dataset(root)
    return root


@pytest.mark.parametrize("record", [ModelConfig, TrainConfig])
def test_every_setting_has_a_meaning(record: type[ModelConfig] | type[TrainConfig]) -> None:
    meanings = field_meanings(record)
    assert [field.name for field in fields(record) if len(meanings.get(field.name, "")) < 5] == []


def test_a_dry_run_writes_the_file_and_a_run_takes_it(latents: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "run.yaml", tmp_path / "run"
    small = ("--set", "width=8", "--set", "encoder_width=8", "--set", "learning_rate=1e-5", "--save-every", "7")
    said = lvae("train", latents, run, *small, "--batch", "8", "--device", "cpu", "--config", file, "--dry-run").stderr
    assert f"{file}: written" in said
    content = yaml.safe_load(file.read_text())
    assert (content["training"]["learning_rate"], content["options"]["save_every"]) == (1e-5, 7)
    assert "# std of the reconstruction target" in file.read_text()
    text = file.read_text().replace("preview: latents", "preview: none").replace("seed: 0", "seed: 3")
    file.write_text(text.replace("learning_rate: 1.0e-05", "learning_rate: 2e-5"))  # YAML alone takes it for a word
    lvae("train", latents, run, "--config", file, "--steps", "2", "--batch", "4")
    training = read_run(run).training
    assert (training.learning_rate, training.seed, training.updates, training.update_size) == (2e-5, 3, 2, 4)
    assert read_run(run).model.width == 8


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("training: {updates: 1, updates: 2}", "'updates' stands twice"),
        ("a: &x [1]\nb: *x", "refers to parts of itself"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("trainig: {}", "has a section 'trainig'"),
        ("options: 3", "options must hold KEY: VALUE"),
        ("preset: [1]", "preset must be a name"),
        ("- 1", "must hold the sections"),
        ("# " + "x" * 70_000, "more than"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(LvaeError, match=problem.replace("(", r"\(")):
        read_config_file(tmp_path / "run.yaml")


def test_options_are_checked_as_on_the_command_line(latents: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("options: {save_evry: 3}")
    assert "has an option 'save_evry'" in lvae("train", latents, tmp_path / "run", "--config", file, check=1).stderr
    file.write_text("options: {save_every: often}")
    assert "--save-every" in lvae("train", latents, tmp_path / "run", "--config", file, check=2).stderr
    nowhere = lvae("train", latents, tmp_path / "run", "--config", tmp_path / "nowhere.yaml", check=1).stderr
    assert "cannot be read" in nowhere
