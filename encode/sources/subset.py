"""Which images of a source are used, and which of them are held out."""

from dataclasses import dataclass

from lvae.encode.sources.open import open_source
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import composed
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.seeds import derive
from lvae.manifests.views.selection import key_hash


@dataclass(frozen=True)
class Chosen:
    """The images of a source that may be used, and where their bytes are."""

    kind: str
    location: str
    rows: tuple[ImageRow, ...]


def choose(
    source: str, only_classes: tuple[str, ...] | None, limit: int | None, without_keys: tuple[str, ...] | None = None
) -> Chosen:
    """List a source: all images, or those of some classes, or a fair sample of `limit` by a hash of the key.

    without_keys: hashes of the keys left out, see `key_hash`.
    """
    found = open_source(source)
    rows = list(found.rows())
    if only_classes is not None:
        classes = found.classes or ()
        forms = {composed(name): name for name in classes}
        only_classes = tuple(name if name in classes else forms.get(composed(name), name) for name in only_classes)
        missing = [name for name in only_classes if name not in classes]
        if missing:
            known = ", ".join(classes) or "none"
            raise LvaeError("--only-classes", f"{source} has no class {missing[0]!r}", f"Its classes: {known}.")
        wanted = {classes.index(name) for name in only_classes}
        rows = [row for row in rows if row.label in wanted]
    if without_keys is not None:
        gone = frozenset(without_keys)
        rows = [row for row in rows if key_hash(row.key) not in gone]
    if limit is not None and limit < len(rows):
        sample = {row.key for row in sorted(rows, key=lambda row: derive(0, "sample", row.key))[:limit]}
        rows = [row for row in rows if row.key in sample]
    return Chosen(found.kind, found.location, tuple(rows))


def held_out(key: str, share: float) -> bool:
    """Whether a picture is set aside for validation: by its key alone, so that every command agrees."""
    return derive(0, "validation", key) < share * 2**64
