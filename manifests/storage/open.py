"""Where a dataset lies: a folder on this machine, or on an object store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lvae.manifests.storage.folder import Folder

LOCAL = ("file://", "local://")


def folder_at(root: str | Path) -> Folder:
    """A folder on this machine, or on an object store (`s3://`, `gs://`, `az://`, `memory://`)."""
    if str(root).startswith(LOCAL):
        return Folder(unquote(urlsplit(str(root)).path))
    if "://" not in str(root):
        return Folder(root)
    from lvae.manifests.storage.object_store import RemoteFolder

    return RemoteFolder(str(root))
