"""Who may know whom (ARCHITECTURE): arrows by syntax trees, heavy libraries by importing every module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("manifests", "encode", "pipeline", "train", "evaluate")

MAY_IMPORT = {
    "manifests": {"manifests"},
    "encode": {"encode", "manifests"},
    "train": {"train", "manifests"},
    "evaluate": {"evaluate", "manifests", "encode", "train"},
    "pipeline": {"pipeline", "manifests", "encode", "evaluate"},
}
EXCEPTIONS = {"encode/training": ("lvae.train.devices", "lvae.train.runs.checkpoints")}
FORBIDDEN_MODULES = {"evaluate": {"lvae.train.fit"}, "pipeline": {"lvae.train.fit"}}

MUST_NOT_LOAD = {
    "manifests": ("torch", "apache_beam", "PIL"),
    "encode": ("apache_beam", "lvae.evaluate"),
    "train": ("apache_beam", "PIL", "torchvision", "lvae.encode"),
    "evaluate": ("apache_beam",),
}


def imported_names(path: Path) -> set[str]:
    """Every module of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("lvae.")}


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_follow_the_arrows(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for module in imported_names(path):
            allowed = module.split(".")[1] in MAY_IMPORT[folder] and module not in FORBIDDEN_MODULES.get(folder, ())
            assert allowed or module.startswith(EXCEPTIONS.get(str(Path(name).parent), ())), f"{name} imports {module}"


def modules(folder: str) -> list[str]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [".".join(("lvae", *path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


def loaded_by(names: list[str]) -> set[str]:
    """What stands in sys.modules after importing these, in a process of its own."""
    code = f"import sys\nfor name in {names!r}: __import__(name)\nprint(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("folder", MUST_NOT_LOAD)
def test_a_folder_does_not_load_what_it_must_not(folder: str) -> None:
    names = [name for name in modules(folder) if name not in ("lvae.encode.training.fit",)]
    assert not loaded_by(names) & set(MUST_NOT_LOAD[folder])


def test_the_command_line_loads_click_and_nothing_heavy() -> None:
    loaded = loaded_by(["lvae.cli"])
    heavy = {"torch", "apache_beam", "numpy", "zarr", "pyarrow", "PIL", "scipy", "fsspec", "webdataset", "tqdm"}
    assert "click" in loaded
    assert not loaded & heavy


def test_packages_are_empty_and_linked() -> None:
    for folder in FOLDERS:
        assert (ROOT / folder / "__init__.py").read_text() == ""
        link = ROOT / "lvae" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder
