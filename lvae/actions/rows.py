"""What `lvae inspect DATASET --rows` does: a line a latent, in the order of the source."""

import json

import click
import numpy as np

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.keys import Keys

READ_ROWS = 4096


def print_rows(dataset: Dataset, wanted: str | None, as_json: bool) -> None:
    """Row, key, class, whether it is the mirror image, and the position in the split; with JSON an object a line.

    wanted: a class by name or number, "none" for what has no label. LvaeError where there is no such class.
    """
    rows, labels, mirrored = np.asarray(dataset.rows), np.asarray(dataset.labels), np.asarray(dataset.mirrored)
    chosen = np.arange(len(dataset)) if wanted is None else np.flatnonzero(labels == _find_class(dataset, wanted))
    chosen = chosen[np.lexsort((mirrored[chosen], rows[chosen]))]
    keys = Keys(dataset.folder, rows[chosen]) if dataset.manifest.origin == "images" else None
    for start in range(0, len(chosen), READ_ROWS):
        some = chosen[start : start + READ_ROWS].tolist()
        named = keys[start : start + READ_ROWS] if keys is not None else [f"sample {at}" for at in some]
        for at, key in zip(some, named, strict=True):
            label = int(labels[at])
            name = dataset.classes[label] if dataset.classes is not None and label >= 0 else None
            line = {"row": int(rows[at]), "key": key, "label": label, "class": name, "mirrored": bool(mirrored[at])}
            if as_json:
                click.echo(json.dumps({**line, "position": at}))
            else:
                shown = name or (str(label) if label >= 0 else "-")
                click.echo(f"{line['row']}\t{key}\t{shown}\t{'mirrored' if line['mirrored'] else '-'}\t{at}")


def _find_class(dataset: Dataset, wanted: str) -> int:
    names = dataset.classes or ()
    if wanted in names:
        return names.index(wanted)
    if wanted == "none":
        return -1
    if wanted.isascii() and wanted.isdigit() and int(wanted) < max(len(names), int(dataset.labels.max(initial=-1)) + 1):
        return int(wanted)
    known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise LvaeError(f"--class {wanted:.60}", "is no class of this dataset", f"Its classes: {known or 'none'}.")
