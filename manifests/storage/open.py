"""Where a dataset lies: a folder on this machine, or on an object store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.conditional import PROTOCOLS, protocol_of
from lvae.manifests.storage.folder import Folder

LOCAL = ("file://", "local://")


def may_hold_a_dataset(root: str) -> bool:
    """Whether `folder_at` takes a place: a path, or the URL of a store with conditional writes."""
    return "://" not in root or root.startswith(LOCAL) or protocol_of(root) in PROTOCOLS


def folder_at(root: str | Path) -> Folder:
    """A folder on this machine, or on an object store (`s3://`, `gs://`, `az://`, `memory://`)."""
    if str(root).startswith(LOCAL):
        root = unquote(urlsplit(str(root)).path)
    if "\0" in str(root):
        raise LvaeError(root, "holds a null byte, and no path does", "Write it without.")
    if "://" not in str(root):
        return Folder(root)
    from lvae.manifests.storage.object_store import RemoteFolder

    return RemoteFolder(str(root))
