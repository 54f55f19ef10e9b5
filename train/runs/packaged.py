"""Models that come with the package: runs that are named, not trained. Nothing here needs torch."""

from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.places.kinds import Kind, marked_kind

FOLDER = Path(__file__).parents[1] / "packaged"


def packaged_names() -> list[str]:
    """Of the models there are, sorted."""
    return sorted(path.name for path in FOLDER.glob("*") if marked_kind(path) == Kind.RUN)


def resolve_run(run: str | Path) -> Path:
    """The folder of a run: a path as it is, or where the model of this name lies. A folder of the name goes first."""
    path = Path(run)
    if not path.exists() and str(path) in packaged_names():
        return FOLDER / path
    return path


def run_name(run: Path) -> str:
    """How a run is called: by its path, or by its name where it is part of the package."""
    return run.name if run.parent == FOLDER else str(run)


def refuse_packaged(run: Path) -> None:
    """LvaeError where something is to be written beside a model of the package."""
    if run.resolve().is_relative_to(FOLDER.resolve()):
        problem = "is part of the package, where nothing is written"
        raise LvaeError(run_name(run), problem, "Name the output, or copy the folder.")
