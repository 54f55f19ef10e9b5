"""What to say where a file of a view is missing: it is lost, or a new view has taken its place."""

from typing import Any

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder


def explain_missing(folder: Folder, path: str, problem: str, advice: str) -> LvaeError:
    """The error for a file of a view that is not there. problem, advice: where it is a file of the dataset's view."""
    current = _current_view(folder)
    if current is not None and not path.startswith(f"shards/{current}/"):
        return LvaeError(folder, "the dataset has had a new view since it was opened", "Give the same command again.")
    return LvaeError(folder.place(path), problem, advice)


def _current_view(folder: Folder) -> str | None:
    """The name of the view that the manifest names; None where there is none, or it cannot be read."""
    data = folder.read_if_there("manifest.json")
    try:
        content: Any = None if data is None else records.loads(data, "manifest.json")
    except LvaeError:
        return None  # damaged: whoever reads it says so
    view = content.get("view") if isinstance(content, dict) else None
    name = view.get("name") if isinstance(view, dict) else None
    return name if isinstance(name, str) else None
