"""Selections: what a view takes of a dataset, as a user asks for it and a manifest keeps it."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import composed
from lvae.manifests.storage.names import SplitName, is_split_name

TRAIN = "train"


@dataclass(frozen=True)
class Selection:
    """What a view takes of a dataset.

    only_classes: class names, renumbered in this order; class_map says which number each has. unlabelled: whether
        unlabelled images stay beside them.
    without_keys: hashes of the keys left out (see `key_hash`): the names themselves need not be kept.
    limit: so many images, a fair sample by a hash of the key.
    split: beside "train": so many images ("5000") or a share ("5%"), by a hash of the key.
    """

    only_classes: tuple[str, ...] | None = None
    class_map: dict[str, int] | None = None
    unlabelled: bool = False
    without_keys: tuple[str, ...] | None = None
    limit: int | None = None
    split: dict[SplitName, str] | None = None

    @property
    def everything(self) -> bool:
        return self.only_classes is None and self.without_keys is None and self.limit is None


def key_hash(key: str) -> str:
    """How `without_keys` names a key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def resolve_selection(
    classes: tuple[str, ...] | None,
    only_classes: Iterable[str] | None = None,
    without_keys: Iterable[str] | None = None,
    limit: int | None = None,
    split: dict[str, str] | None = None,
    without_classes: Iterable[str] | None = None,
) -> Selection:
    """A selection checked against the classes there are."""
    if only_classes is not None and without_classes is not None:
        raise LvaeError("--only-classes and --without-classes", "give one of them")
    chosen = _known("--only-classes", only_classes, classes) if only_classes is not None else None
    if without_classes is not None:
        gone = _known("--without-classes", without_classes, classes)
        chosen = tuple(name for name in classes or () if name not in gone)
    for name, share in (split or {}).items():
        check_split(name, share)
    if split and len({share.endswith("%") for share in split.values()}) > 1:
        raise LvaeError("--split", "give numbers of images or shares, not both")
    if limit is not None and limit < 1:
        raise LvaeError("--limit", "must be at least 1")
    hashes = tuple(sorted({key_hash(key) for key in without_keys})) if without_keys is not None else None
    class_map = {name: index for index, name in enumerate(chosen)} if chosen is not None else None
    unlabelled = without_classes is not None
    return Selection(chosen, class_map, unlabelled, hashes or None, limit, split or None)


def add_selection(old: Selection, named: Selection, without_classes: bool) -> Selection:
    """The selection of a view, with what a command line names: all else stays, and keys left out before stay out.

    without_classes: `named.only_classes` are all classes but some, which then leave the classes of the view.
    """
    chosen, unlabelled = (
        (old.only_classes, old.unlabelled) if named.only_classes is None else (named.only_classes, named.unlabelled)
    )
    if without_classes and old.only_classes is not None and named.only_classes is not None:
        chosen, unlabelled = tuple(name for name in old.only_classes if name in named.only_classes), old.unlabelled
    keys = sorted({*(old.without_keys or ()), *(named.without_keys or ())})
    return Selection(
        only_classes=chosen,
        class_map=None if chosen is None else {name: number for number, name in enumerate(chosen)},
        unlabelled=unlabelled,
        without_keys=tuple(keys) or None,
        limit=old.limit if named.limit is None else named.limit,
        split=old.split if named.split is None else named.split,
    )


def _known(option: str, chosen: Iterable[str], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    forms = {composed(name): name for name in classes or ()}
    names = tuple(name if name in forms.values() else forms.get(composed(name), name) for name in chosen)
    if not names:
        raise LvaeError(option, "names no class")
    for name in names:
        if classes is None or name not in classes:
            known = ", ".join(classes[:20]) if classes else "none"
            raise LvaeError(option, f"there is no class {name!r}", f"The dataset's classes: {known}.")
    if len(set(names)) != len(names):
        raise LvaeError(option, "a class is named twice")
    return names


def check_split(name: str, share: str) -> None:
    """LvaeError for a split that cannot be: val=110%, train=5."""
    number = share.removesuffix("%")
    written = re.fullmatch(r"[0-9]+|[0-9]+(\.[0-9]+)?%", share) is not None
    value = float(number) if written else 0
    if not is_split_name(name) or name == TRAIN or not value > 0 or (share.endswith("%") and not value < 100):
        given = f"{name}={share}" if share else name
        if share.endswith("%") and value >= 100 and is_split_name(name) and name != TRAIN:
            raise LvaeError("--split", f"{given} leaves nothing to train on", "Write val=5%, for example.")
        if name == TRAIN:
            raise LvaeError(f"--split {given}", f"{TRAIN} is what other splits leave", "Write val=5000 or val=5%.")
        raise LvaeError("--split", f"{given} cannot be read", "Write val=5000 or val=5%.")
