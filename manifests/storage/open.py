"""Where a dataset lies: a folder on this machine, or on an object store."""

from pathlib import Path

from lvae.manifests.storage.folder import Folder


def folder_at(root: str | Path) -> Folder:
    """A folder on this machine, or on whatever fsspec knows (`s3://`, `gs://`, `memory://`...)."""
    if "://" not in str(root):
        return Folder(root)
    from lvae.manifests.storage.object_store import RemoteFolder

    return RemoteFolder(str(root))
