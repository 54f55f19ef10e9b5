"""What lies in a dataset's folder before a job: looked at once, and handed down."""

from collections.abc import Callable
from dataclasses import dataclass

from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import Manifest, read_manifest
from lvae.manifests.parts import erasure
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.records import FormError
from lvae.manifests.storage.folder import Folder


@dataclass(frozen=True)
class Existing:
    """Plan and manifest, None where there is none that can be read, and what is wrong with a finished dataset.

    damaged: whether anything was there that has to be made again.
    """

    plan: Plan | None = None
    manifest: Manifest | None = None
    faults: tuple[Fault, ...] = ()
    damaged: bool = False

    @property
    def is_whole(self) -> bool:
        """A finished dataset without a fault; others may still want more images in it."""
        return self.manifest is not None and not self.damaged

    @property
    def dropped(self) -> bool:
        return self.manifest is not None and self.manifest.raw == "dropped"


def load_existing(folder: Folder, look: Callable[[], list[Fault]], say: Callable[[str], None]) -> Existing:
    """Read what is there, finish an erasure that was stopped, and `look` for the faults of a finished dataset.

    FormError where somebody wrote names into it that it may not have; other damage is said, and made again.
    """
    try:
        plan = read_plan(folder)
    except FormError:
        raise
    except LvaeError as error:
        say(f"{error} Making it anew from this command.")
        plan = None
    finish_erasing(folder, plan)
    try:
        manifest = read_manifest(folder)
    except FormError:
        raise
    except LvaeError as error:
        say(str(error))
        return Existing(plan, damaged=True)
    if manifest is None:
        return Existing(plan)
    faults = tuple(look())
    for fault in faults:
        say(f"{folder}/{fault.where}: {fault.problem}; it is made again")
    return Existing(plan, manifest, faults, damaged=bool(faults))


def finish_erasing(folder: Folder, plan: Plan | None) -> None:
    """What was to be erased goes before anything else is done with a dataset."""
    if plan is not None and plan.encoding is not None and plan.erased:
        erasure.carry_out(folder, plan)
