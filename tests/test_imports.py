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
EXCEPTIONS = {
    "encode/training": (
        "lvae.train.devices",
        "lvae.train.loop.signals",
        "lvae.train.loop.training_loop",
        "lvae.train.runs.boards",
        "lvae.train.runs.checkpoints",
        "lvae.train.runs.metrics_log",
    )
}
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


ROOMS = sorted(
    path for folder in (*FOLDERS, "lvae") for path in (ROOT / folder).iterdir() if (path / "__init__.py").is_file()
)


def name_of(path: Path) -> str:
    """The module of a file, as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "lvae" else ("lvae", *parts)).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Module of ours -> modules of ours that it imports, anywhere in it, those for type checking too."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    paths += [path for folder in ("", "commands", "actions") for path in (ROOT / "lvae" / folder).glob("*.py")]
    files = {name_of(path): path for path in paths}
    found = {name: imported_names(path) & set(files) - {name} for name, path in files.items()}
    return {
        name: {one for one in names if not (ROOT / "lvae" / Path(*one.split(".")[1:])).is_dir()}
        for name, names in found.items()
    }


def room_of(module: str) -> str:
    """The sub-folder of a module; a module that lies directly in a top folder stands for itself."""
    parent = module.rpartition(".")[0]
    return parent if parent.count(".") >= 2 or parent in ("lvae.commands", "lvae.actions") else module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of nodes that reach one another."""
    reach = {node: set(ends) for node, ends in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {frozenset({node, *(one for one in reach[node] if node in reach[one])}) for node in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def test_no_module_imports_itself_by_a_detour() -> None:
    assert circles(import_graph()) == []


def test_arrows_between_sub_folders_go_one_way() -> None:
    rooms: dict[str, set[str]] = {}
    for module, imports in import_graph().items():
        rooms.setdefault(room_of(module), set()).update({room_of(one) for one in imports} - {room_of(module)})
        for one in imports:
            rooms.setdefault(room_of(one), set())
    assert circles(rooms) == []


@pytest.mark.parametrize(
    "room", [ROOT / folder for folder in FOLDERS] + ROOMS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_folder_has_at_most_sixteen_entries(room: Path) -> None:
    entries = [path.name for path in room.iterdir() if path.name not in ("__init__.py", "__pycache__", "README.md")]
    assert len(entries) <= 16, sorted(entries)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_sub_folder_has_its_line_in_the_readme(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    missing = [path.name for path in ROOMS if path.parent == ROOT / folder and f"`{path.name}/`" not in text]
    assert missing == []


def modules(folder: str) -> list[str]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [".".join(("lvae", *path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


def loaded_by(names: list[str]) -> set[str]:
    """What stands in sys.modules after importing these, in a process of its own."""
    code = f"import sys\nfor name in {names!r}: __import__(name)\nprint(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("folder", MUST_NOT_LOAD)
def test_a_folder_does_not_load_what_it_must_not(folder: str) -> None:
    names = [name for name in modules(folder) if not name.startswith("lvae.encode.training.")]
    assert not loaded_by(names) & set(MUST_NOT_LOAD[folder])


def test_the_command_line_loads_click_and_nothing_heavy() -> None:
    loaded = loaded_by(["lvae.cli"])
    heavy = {"torch", "apache_beam", "numpy", "zarr", "pyarrow", "PIL", "scipy", "fsspec", "webdataset", "tqdm"}
    assert "click" in loaded
    assert not loaded & heavy


def test_latents_come_in_and_go_out_without_torch() -> None:
    assert not loaded_by(["lvae.actions.latents"]) & {"torch", "apache_beam"}


def test_packages_are_empty_and_linked() -> None:
    for folder in FOLDERS:
        assert (ROOT / folder / "__init__.py").read_text() == ""
        link = ROOT / "lvae" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder
