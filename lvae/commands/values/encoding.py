"""What is wrong with the values of options of encode, shard and merge, told before anything is read or written."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvae.commands.values.given import note_given, refuse_given
from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from lvae.pipeline.planning.view import ViewOptions


def check_encoding(source: str, options: dict[str, Any]) -> None:
    """Options that are wrong whatever SOURCE holds, and those that would do nothing."""
    from lvae.pipeline.planning.bounds import parse_rejection_bound

    check_autoencoder(options["autoencoder"])
    if options["max_rejected"] is not None:
        parse_rejection_bound(options["max_rejected"], 0)
    _check_files(options)
    _check_devices(options)
    if not options["dry_run"]:
        refuse_given("is for --dry-run", "images_per_second", advice="Give --dry-run, or leave it out.")
    if not options["beam_options"]:
        note_given("is for workers on other machines, and those are named after --", "shared_path")


def check_autoencoder(name: str | None) -> None:
    """LvaeError for a name that no autoencoder has, and for a description that is none."""
    from lvae.encode.catalogue.architectures import parse_spec
    from lvae.encode.catalogue.published import PUBLISHED

    if name is not None and name not in PUBLISHED:
        parse_spec(name)


def check_latents_of_study(table: str, options: dict[str, Any]) -> None:
    """LvaeError for an autoencoder that there is not, and for one of a table that fits all of its own."""
    if table == "table2":
        refuse_given("is of latents, and table2 fits all autoencoders itself", "autoencoder", "weights")
    check_autoencoder(options["autoencoder"])
    _check_weights(options["weights"])


def _check_files(options: dict[str, Any]) -> None:
    _check_weights(options["weights"])
    labels = options["labels"]
    if labels is not None and "://" not in str(labels) and not Path(labels).exists():
        raise LvaeError(f"--labels {labels}", "no such file")


def _check_weights(weights: str | None) -> None:
    if weights is not None and "://" not in weights and not _is_no_file(weights) and not Path(weights).exists():
        raise LvaeError(f"--weights {weights}", "no such file")


def _is_no_file(weights: str) -> bool:
    """Random weights, or two files as ENCODER,DECODER."""
    return weights.startswith("random:") or "," in weights


def _check_devices(options: dict[str, Any]) -> None:
    """Names that no device of any machine has; whether one is there is told later, for that takes torch."""
    device, several = options["device"], options["devices"]
    if several is not None:
        refuse_given("names one device, and --devices several", "device", advice="Give one of the two.")
        if re.fullmatch(r" *\d+ *(, *\d+ *)*", several) is None:
            raise LvaeError(f"--devices {several:.60}", "write numbers of GPUs, like 0,1")
    elif re.fullmatch(r"auto|cpu|cuda(:\d+)?|stand-in:.*", device) is None:
        raise LvaeError(f"--device {device:.60}", "is no device", "Choose auto, cpu, cuda or cuda:N.")


def check_reshaping(datasets: Sequence[str], view: "ViewOptions", erase: bool = False) -> None:
    """Classes that no dataset has, splits that cannot be, and --erase without anything to erase."""
    from lvae.manifests.parts.plan import read_plan_if_whole
    from lvae.manifests.storage.open import folder_at
    from lvae.manifests.views.selection import resolve_selection

    if erase and view.only_classes is None and view.without_classes is None and view.without_keys is None:
        raise LvaeError("--erase", "say what, by --without-keys, --without-classes or --only-classes")
    if any("://" in dataset for dataset in datasets):
        return
    plans = [read_plan_if_whole(folder_at(dataset)) for dataset in datasets]
    classes = tuple(dict.fromkeys(name for plan in plans if plan is not None for name in plan.listing.classes or ()))
    if all(plan is not None for plan in plans):
        resolve_selection(classes or None, view.only_classes, None, None, view.split, view.without_classes)
