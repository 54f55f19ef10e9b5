"""What a scan says of a source: its account, for people and for programs."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lvae.cli import main


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(level).integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def scanned(source: object, out: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What `lvae scan --json` prints, and what it says beside it."""
    done = CliRunner().invoke(main, ["scan", str(source), str(out), "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def test_the_account_is_told_and_in_json(tmp_path: Path) -> None:
    images = fill(tmp_path / "in", {"cat/1.png": png(), "lost.png": png(), "notes.txt": b"x"})
    found, said = scanned(images, tmp_path / "out")
    text = f"1 image lies beside the class folders of {images}: unlabelled"
    assert found["found"] == {"not images": 1, "unlabelled": 1}
    assert found["warnings"] == [{"kind": "unlabelled", "text": text}]
    assert f"warning: {text}" in said.splitlines()


def test_labels_of_a_file_end_the_warning(tmp_path: Path) -> None:
    images = fill(tmp_path / "in", {"cat/1.png": png(), "lost.png": png()})
    (tmp_path / "labels.csv").write_text("cat/1.png,0\nlost.png,1\n")
    found, said = scanned(images, tmp_path / "out", "--labels", str(tmp_path / "labels.csv"))
    assert (found["warnings"], "warning" in said) == ([], False)


@pytest.mark.parametrize("command", ["scan", "encode"])
def test_a_second_look_has_the_account_of_the_first(tmp_path: Path, command: str) -> None:
    images = fill(tmp_path / "in", {"cat/1.png": png(), "lost.png": png(1)})
    first, _ = scanned(images, tmp_path / "out")
    options = [] if command == "scan" else ["--autoencoder", "pixels", "--size", "32", "--workers", "1"]
    again = CliRunner().invoke(main, [command, str(images), str(tmp_path / "out"), "--json", *options])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["warnings"] == first["warnings"]


def labelled(folder: Path, labels: list[object]) -> Path:
    fill(folder, {f"{number}.png": png(number) for number in range(len(labels))})
    (folder / "a.csv").write_text("".join(f"{number}.png,{label}\n" for number, label in enumerate(labels)))
    return folder / "a.csv"


def test_labels_that_are_nearly_all_holes_are_refused_in_one_line(tmp_path: Path) -> None:
    source = labelled(tmp_path / "in", [0, 7, 900000])
    done = CliRunner().invoke(main, ["scan", str(source), str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.stderr.startswith("lvae: ")
    assert "3 of 900,001 classes have images" in done.stderr
    assert "--labels" in done.stderr
    assert not (tmp_path / "out" / "plan.json").exists()


def test_labels_with_some_holes_keep_their_numbers_with_a_warning(tmp_path: Path) -> None:
    _, said = scanned(labelled(tmp_path / "in", [0, 7, 90]), tmp_path / "out")
    assert "warning: 3 of 91 classes have images" in said
    _, said = scanned(labelled(tmp_path / "more", [0, 1, 3]), tmp_path / "out2")
    assert "warning" not in said


@pytest.mark.parametrize("odd", ["source", "dataset", "labels", "parent", "tar"])
def test_paths_that_are_not_utf8_are_one_line_before_anything_is_written(
    tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path
    if odd == "parent":
        top = tmp_path / "caf\udce9"
        try:
            top.mkdir()
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
    images = fill(top / ("in\udce9" if odd == "source" else "in"), {"a/1.png": png(), "b/2.png": png(1)})
    if odd == "tar":
        images = fill(tmp_path / "tars", {"x\udce9.tar": bytes(10240)})
    (top / "labels\udce9.csv").write_text("a/1.png,0\nb/2.png,1\n")
    monkeypatch.chdir(top)
    out = "out\udce9" if odd == "dataset" else "out"
    options = ["--labels", "labels\udce9.csv"] if odd == "labels" else []
    for command in ("scan", "encode"):
        done = CliRunner().invoke(main, [command, images.relative_to(top).as_posix(), out, *options])
        assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
        assert "not UTF-8" in done.output
        assert not (top / out).exists()


def test_keys_that_are_not_utf8_are_encoded_under_an_escaped_name(tmp_path: Path) -> None:
    try:
        images = fill(tmp_path / "in", {"caf\udce9/1\udcff.png": png(), "b/2.png": png(1)})
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    options = ["--autoencoder", "pixels", "--size", "32", "--workers", "1", "--json"]
    done = CliRunner().invoke(main, ["encode", str(images), str(tmp_path / "out"), *options])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert (made["classes"], made["counts"]["rejected"]) == (["b", "caf\\xe9"], 0)
    assert [warning["kind"] for warning in made["warnings"]] == ["names"]
