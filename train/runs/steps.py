"""Which updates a run has checkpoints of, by the names of their folders."""

import re
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.train.runs.packaged import run_name

NAME = re.compile(r"step-(\d{8,})")


def steps_in(folder: Path) -> list[int]:
    """Steps for which there is a folder, sorted; not all need be valid."""
    names = (path.name for path in folder.glob("step-*") if path.is_dir())
    return sorted(int(found[1]) for name in names if (found := NAME.fullmatch(name)))


def require_step(run: str | Path, step: int, steps: list[int]) -> None:
    """LvaeError where a run has no checkpoint of a step."""
    if step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise LvaeError(run_name(Path(run)), f"has no checkpoint of step {step}", f"There are: {there}.")
