"""What the documentation says is true: its commands run, its links lead somewhere, every command is in it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lvae.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def commands(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith("    lvae ")]


def test_the_readme_begins_with_the_two_commands() -> None:
    lines = [line.split()[:2] for line in README.splitlines() if line.startswith("    ")]
    assert lines[:2] == [["make", "demo"], ["make", "test"]]


def test_the_commands_of_the_readme_run_in_an_empty_folder(tmp_path: Path) -> None:
    first_block = section("From images to latents").split("The first command", 1)[0]
    found = commands(first_block)
    assert len(found) == 5
    for command in found:
        subprocess.run([sys.executable, "-m", "lvae", *shlex.split(command)[1:]], cwd=tmp_path, check=True)
    assert {"reconstructions.png", "channels.png"} <= {path.name for path in tmp_path.iterdir()}


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = README.split("```python\n", 1)[1].split("```", 1)[0]
    lvae = [sys.executable, "-m", "lvae"]
    subprocess.run([*lvae, "scenes", "pictures", "--count", "40", "--size", "32"], cwd=tmp_path, check=True)
    options = ["--autoencoder", "pixels", "--size", "32", "--split", "val=20%"]
    subprocess.run([*lvae, "encode", "pictures", "latents", *options], cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`lvae {command}" in README


def test_every_link_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_benchmark_has_its_result_beside_it() -> None:
    for script in (ROOT / "tests" / "benchmarks").glob("*.py"):
        if script.name not in ("machine.py", "gpu.py"):  # a GPU has not been at hand
            assert script.with_suffix(".md").exists(), script.name


def test_documents_name_no_machine_and_no_registry() -> None:
    for page in [*ROOT.rglob("*.md"), ROOT / "setup.cfg", ROOT / "Makefile", ROOT / ".ci" / "run"]:
        if ".venv" not in page.parts:
            assert not re.search(r"(?<![\w.])/(home|root|work)/", page.read_text()), page
