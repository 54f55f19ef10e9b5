"""Names from outside never drive a terminal."""

import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from lvae.cli import main
from lvae.manifests.messages import escape_controls
from lvae.terminal import EscapingStream

NAMES = ("esc\x1b[31m", "bell\x07", "c1\x9b2J", "rtl\u202e", "plain")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    for number, name in enumerate(NAMES):
        (root / "in" / name).mkdir(parents=True)
        for image in range(2):
            picture = Image.new("RGB", (16, 16), (40 * number, 90 * image, 7))
            picture.save(root / "in" / name / f"{image}\n\x1b.png")
    (root / "in" / "plain" / "broken\x1b.png").write_bytes(b"x")
    done = CliRunner().invoke(
        main,
        ["encode", str(root / "in"), str(root / "out"), "--autoencoder", "pixels", "--size", "16", "--workers", "1"],
    )
    assert done.exit_code == 0, done.output
    assert_clean(done.output)
    return root / "out"


def assert_clean(text: str) -> None:
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(text)


@pytest.mark.parametrize("command", ["stats --by-class", "inspect", "verify", "stats --by-class --json", "clean"])
def test_no_command_prints_control_characters(command: str, dataset: Path) -> None:
    name, *options = command.split()
    done = CliRunner().invoke(main, [name, str(dataset), *options])
    assert done.exit_code == 0, done.output
    assert_clean(done.output)
    if "--json" in options:
        assert set(json.loads(done.stdout)["by_class"]) == set(NAMES)
    elif "--by-class" in options:
        assert r"esc\x1b[31m" in done.output


def test_a_class_with_control_characters_is_named_in_json(dataset: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["shard", str(dataset), "--out", str(tmp_path / "o"), "--only-classes", "[]x"])
    assert done.exit_code != 0
    assert_clean(done.output)
    done = CliRunner().invoke(
        main, ["shard", str(dataset), "--out", str(tmp_path / "p"), "--only-classes", json.dumps([NAMES[0]])]
    )
    assert done.exit_code == 0, done.output
    assert_clean(done.output)


def test_a_takedown_that_names_nothing_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("plain/0\n\x1b.png\n")  # a line end cuts the key in two
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    done = CliRunner().invoke(main, ["shard", str(dataset), "--without-keys", str(tmp_path / "raw.txt"), "--erase"])
    assert done.exit_code == 1
    assert "no image has 2 of these 2 keys" in done.stderr
    assert_clean(done.output)
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_text_keeps_its_lines_and_letters_of_any_script() -> None:
    text = "a\tb\nc \u00e9 \u65e5\u672c \u200d \U0001f468"
    assert escape_controls(text) == text
    assert escape_controls("caf\udce9\x7f\u2028") == r"caf\xe9\x7f\u2028"


def test_a_progress_bar_stays_in_its_line() -> None:
    stream = io.StringIO()
    EscapingStream(stream).write("\r50%")
    EscapingStream(stream).write("\x1b[A")
    assert stream.getvalue() == "\r50%\x1b[A"


def test_file_names_that_a_command_lists_are_escaped(dataset: Path) -> None:
    odd = dataset / ".tmp" / "left\x1b[31m"
    odd.parent.mkdir(exist_ok=True)
    odd.write_bytes(b"x")
    done = CliRunner().invoke(main, ["clean", str(dataset), "--dry-run"])
    assert r"left\x1b[31m" in done.output
    assert_clean(done.output)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("command", ["scan", "encode"])
def test_a_path_that_is_not_utf8_is_refused_before_anything_is_written(
    command: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, source = tmp_path / os.fsdecode(b"OUT\xe9"), tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (16, 16)).save(source / "a.png")
    out: Path | str = odd
    if inside:
        odd.mkdir()
        monkeypatch.chdir(odd)
        out = "out"
    there = sorted(map(os.fsencode, tmp_path.rglob("*")))
    done = CliRunner().invoke(main, [command, str(source), str(out)])
    assert done.exit_code == 1
    assert "not UTF-8" in done.output
    assert len(done.stderr.splitlines()) == 1
    assert sorted(map(os.fsencode, tmp_path.rglob("*"))) == there
