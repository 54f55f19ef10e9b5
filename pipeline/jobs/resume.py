"""What a job finds of an earlier one at its place, and what it does about it."""

from collections.abc import Callable
from dataclasses import dataclass

from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import Manifest
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import PLAN, Plan, write_plan
from lvae.manifests.parts.receipts import beyond, orphans, receipt_name
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.view import ViewSettings, shard_receipt_name
from lvae.pipeline.planning.bounds import parse_rejection_bound
from lvae.pipeline.planning.existing import Existing
from lvae.pipeline.planning.view import ViewOptions, check_space, settings_for


@dataclass(frozen=True)
class Result:
    """A finished dataset, and how many of its parts and shards this command had to make."""

    manifest: Manifest
    parts_made: int
    shards_made: int


def find_finished(existing: Existing, plan: Plan) -> Manifest | None:
    """The manifest of a dataset that was verified already, and lacks nothing that this plan wants."""
    manifest = existing.manifest
    if manifest is None or existing.damaged:
        return None
    return manifest if existing.dropped or manifest.plan_sha256 == plan.sha256 else None


def remove_leftovers(folder: Folder, plan: Plan) -> None:
    for name in [*orphans(folder), *beyond(folder, plan)]:
        folder.remove(name)


def set_aside(folder: Folder, plan: Plan, existing: Existing, look: Callable[[], list[Fault]]) -> None:
    """Make room for what is made again: parts and shards at fault lose their receipts."""
    manifest, faults = existing.manifest, existing.faults
    if manifest is not None and plan.before_append(manifest.plan_sha256) is None:
        raise LvaeError(folder, "these settings are not those of its manifest", "Give those of the first command.")
    if manifest is None or any(fault.where == PLAN for fault in faults):
        faults = tuple(look())  # what could not be looked at without its plan
    for fault in faults:
        if fault.part is not None:
            folder.remove(receipt_name(fault.part))
        elif fault.split is not None and fault.shard is not None and manifest is not None:
            folder.remove(shard_receipt_name(manifest.view.name, fault.split, fault.shard))
        elif fault.where.startswith("shards/") and not fault.where.endswith(".jsonl") and manifest is not None:
            folder.remove(f"shards/{manifest.view.name}")


def check_settings(folder: Folder, plan: Plan, options: ViewOptions, existing: Existing) -> ViewSettings:
    """The view's settings, and room for it. A command that fails here leaves no plan that would bind the next one."""
    try:
        settings = settings_for(folder, plan, options, existing.manifest)
        check_space(folder, plan, settings)
    except LvaeError:
        if existing.plan is None:
            folder.remove(PLAN)
        elif plan != existing.plan:
            write_plan(folder, existing.plan)
        raise
    return settings


def check_rejected(
    folder: Folder, plan: Plan, rejected: int, max_rejected: str | None, say: Callable[[str], None]
) -> None:
    images = plan.listing.images
    if rejected == images:
        raise LvaeError(folder, f"none of {images} images could be used; {folder}/rejected.jsonl says why")
    erased = plan.erased.count
    if erased:
        say(f"{counted(erased, 'image')} of {images} erased earlier: left out")
    rejected -= erased
    if rejected:
        say(f"{rejected} of {images} images could not be used; {folder}/rejected.jsonl says why")
    if max_rejected is None:
        return
    bound = parse_rejection_bound(max_rejected, images)
    if rejected > bound:
        raise LvaeError(
            folder,
            f"{rejected} of {images} images were rejected, more than --max-rejected {max_rejected}",
            f"See {folder}/rejected.jsonl; the same command with a higher bound goes on from here.",
        )
