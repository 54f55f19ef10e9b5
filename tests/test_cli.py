"""The command line as a user meets it: help, one-line errors, exit codes, what goes to which stream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from lvae.cli import main
from lvae.commands.autoencoder import autoencoder
from tests.conftest import lvae

COMMANDS = [*sorted(main.commands), *(f"autoencoder {name}" for name in sorted(autoencoder.commands))]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_itself_and_its_options(command: str) -> None:
    shown = CliRunner().invoke(main, [*command.split(), "--help"])
    assert shown.exit_code == 0
    group, _, name = command.rpartition(" ")
    found = autoencoder.commands[name] if group else main.commands[command]
    assert found.help
    for parameter in found.params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", None), f"{command} {parameter.name}"


def test_wrong_usage_exits_with_2() -> None:
    assert lvae("encode", check=2).stdout == ""
    assert lvae("encode", "a", "b", "--crop", "round", check=2)
    assert lvae("nonsense", check=2)


@pytest.mark.parametrize("rate", ["nan", "inf", "0", "-1", "fast"])
def test_a_rate_is_a_number_above_zero(rate: str) -> None:
    shown = CliRunner().invoke(main, ["encode", "a", "b", "--dry-run", "--images-per-second", rate])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "--images-per-second" in shown.stderr.splitlines()[-1]


def one_line(*arguments: str | Path) -> str:
    """The error of a command that a user can mend."""
    done = lvae(*arguments, check=1)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("lvae: ") or done.stderr.splitlines()[-1].startswith("lvae: "), done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


PIXELS = ("--autoencoder", "pixels", "--size", "32")


def test_bad_input_gets_one_line(scenes: Path, empty: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no such file" in one_line("encode", tmp_path / "nowhere", out, *PIXELS)
    assert "no images" in one_line("encode", empty, out, *PIXELS)
    assert not out.exists()
    assert "multiple of its downsampling factor, 8" in one_line(
        "encode", scenes, out, "--autoencoder", "kl-f8", "--weights", "random:0", "--size", "100"
    )
    assert "--weights" in one_line("encode", scenes, out, "--autoencoder", "kl-f8")
    assert "no-such" in one_line("encode", scenes, out, "--autoencoder", "no-such")
    assert "there is no such runner" in one_line("encode", scenes, out, *PIXELS, "--", "--runner=Fantasy")
    assert "--shared-path" in one_line("encode", scenes, out, *PIXELS, "--", "--runner=FlinkRunner")
    assert "--device cpux" in one_line("encode", scenes, out, *PIXELS, "--device", "cpux")
    assert "there is no GPU '77'" in one_line("encode", scenes, out, *PIXELS, "--devices", "77")
    assert "lies in the source" in one_line("encode", scenes, scenes / "out", *PIXELS)
    other = empty / "pictures"
    (other / "cats").mkdir(parents=True)
    assert "is a folder of other files (cats/), not a place for a dataset" in one_line("encode", scenes, other, *PIXELS)
    assert "not a place for a dataset" in one_line("scan", scenes, other)
    assert [path.name for path in other.iterdir()] == ["cats"]
    assert "has no posterior" in one_line("encode", scenes, out, *PIXELS, "--store", "sample")
    assert not (out / "manifest.json").exists()


def test_labels_that_match_nothing_get_one_line(scenes: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("key,label\nnot/there.png,3\n")
    assert "match no image" in one_line("encode", scenes, tmp_path / "out", *PIXELS, "--labels", labels)


def test_weights_of_another_architecture_get_one_line(scenes: Path, tmp_path: Path) -> None:
    from lvae.encode.autoencoder import build
    from lvae.encode.networks.base import save_safetensors

    small = {"kind": "kl", "width": 8, "multipliers": [1, 2], "latent_channels": 4}
    weights = tmp_path / "small.safetensors"
    weights.write_bytes(save_safetensors(build(small)))
    other = json.dumps({**small, "latent_channels": 3})
    line = one_line("encode", scenes, tmp_path / "out", "--autoencoder", other, "--weights", weights, "--size", "32")
    assert "shape" in line


def test_a_folder_that_cannot_be_written_gets_one_line(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in one_line("encode", scenes, tmp_path / "file" / "out", *PIXELS)


def test_commands_on_what_is_no_dataset_get_one_line(empty: Path) -> None:
    for command in (["stats"], ["inspect"], ["verify"], ["clean"], ["shard"]):
        assert "dataset" in one_line(*command, empty)


@pytest.mark.parametrize("command", ["stats", "inspect", "verify", "clean", "shard"])
def test_a_folder_that_is_not_there_is_not_made(command: str, tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, [command, str(tmp_path / "nope")])
    assert shown.exit_code == 1
    assert shown.stderr.count("\n") == 1 and "dataset" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(empty: Path) -> None:
    assert "Traceback" in lvae("--debug", "inspect", empty, check=1).stderr


def test_results_go_to_stdout_and_progress_to_stderr(scenes: Path, tmp_path: Path) -> None:
    done = lvae("encode", scenes, tmp_path / "out", *PIXELS, "--json")
    assert json.loads(done.stdout)["counts"]["images"] == 48
    assert "48 images" in done.stderr


def test_python_m_lvae_is_lvae() -> None:
    shown = subprocess.run([sys.executable, "-m", "lvae", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("lvae, version ")


@pytest.mark.slow  # some minutes
@pytest.mark.timeout(900)
def test_the_demo_runs_to_its_report_and_again_does_nothing(tmp_path: Path) -> None:
    done = lvae("demo", "--minutes", "0.1", tmp_path / "demo")
    for picture in ("reconstructions.png", "latents.png", "samples.png", "report.html"):
        assert (tmp_path / "demo" / picture).stat().st_size > 10_000
    again = lvae("demo", "--minutes", "0.1", tmp_path / "demo")
    assert "samples against the linear baseline" in done.stdout
    trained = json.loads((tmp_path / "demo" / "run" / "config.json").read_bytes())["training"]
    assert trained["updates"] == json.loads((tmp_path / "demo" / "demo.json").read_bytes())["updates"]
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_the_doctor_has_a_verdict_on_everything() -> None:
    found = json.loads(lvae("doctor", "--json").stdout)
    assert {finding["verdict"] for finding in found} <= {"good", "note"}
    assert all(one["found"].startswith(("installed", "not installed")) for one in found if one["what"] == "diffusers")
    assert {"torch", "apache-beam", "FnApiRunner", "cores", "disk here"} <= {finding["what"] for finding in found}
