"""Removing what no longer belongs to a dataset."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import read_manifest
from lvae.manifests.messages import counted
from lvae.manifests.publishing.publish import drop_raw, leftovers, unused_views
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.open import folder_at


@dataclass(frozen=True)
class Cleaned:
    """Names of what was removed, or would be."""

    dataset: str
    names: list[str]
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return {"names": self.names, "bytes": self.bytes}

    def sentence(self, dry_run: bool) -> str:
        verb = "would be removed" if dry_run else "removed"
        return f"{self.dataset}: {counted(len(self.names), 'file')}, {self.bytes / 2**20:.1f} MiB {verb}"


def clean(dataset: str, raw: bool, dry_run: bool) -> Cleaned:
    """Unfinished files, orphaned raw files and old views; with `raw` the raw latents too.

    A dry run only looks, so it works beside a job; what that is at then counts as unfinished.
    """
    folder = folder_at(dataset)
    if not folder.exists("plan.json"):
        raise LvaeError(dataset, "is not a dataset; nothing is removed")
    with nullcontext() if dry_run else writing(folder):
        manifest = read_manifest(folder)
        if manifest is None:
            if raw:
                raise LvaeError(dataset, "is not finished, so its raw latents are still needed")
            names = list(folder.names(".tmp"))
        else:
            names = leftovers(folder, manifest)
            if raw:
                names = sorted({*names, *(name for name in folder.names("raw") if name.endswith(".npy"))})
        size = sum(folder.size(name) or 0 for name in names)
        if not dry_run:
            if raw:
                drop_raw(folder)  # the manifest says first that they are gone
            for name in names:
                folder.remove(name)
            for view in unused_views(folder, manifest) if manifest is not None else []:
                folder.remove(f"shards/{view}")
            folder.sweep()
        return Cleaned(dataset, names, size)
