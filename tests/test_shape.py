"""What keeps the code readable: short files, and functions with few parameters."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("manifests", "encode", "train", "evaluate", "pipeline", "lvae/commands", "lvae/actions")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LONGEST = 330  # lines of a file
LONGER = {"train/model.py", "train/presets.py"}  # DECISIONS, 28
MOST_PARAMETERS = 7


def is_command(function: ast.FunctionDef) -> bool:
    """Click hands a command one argument for each of its options."""
    words = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(word.startswith(("click.", "shared.", "options.")) or "command" in word for word in words)


def parameters_of(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_no_file_is_longer_than_one_question_needs() -> None:
    lines = {path.relative_to(ROOT).as_posix(): path.read_text().count("\n") for path in FILES}
    assert {name: count for name, count in lines.items() if count > LONGEST and name not in LONGER} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_functions_take_few_parameters(folder: str) -> None:
    too_many = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not is_command(node):
                count = len(parameters_of(node))
                if count > MOST_PARAMETERS:
                    too_many[f"{path.relative_to(ROOT)}:{node.name}"] = count
    assert too_many == {}
