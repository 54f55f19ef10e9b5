"""Other datasets out of encoded ones, without the autoencoder: another view, a dataset of its own, several in one."""

from collections.abc import Sequence
from dataclasses import replace

from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import MANIFEST, Manifest, no_dataset, read_manifest, view_settings
from lvae.manifests.messages import RESUME, counted
from lvae.manifests.parts import erasure
from lvae.manifests.parts.copying import DUPLICATE, repeated_keys, take_listing, take_parts, united
from lvae.manifests.parts.plan import Plan, erasing, read_plan, read_plan_if_whole, write_plan
from lvae.manifests.parts.receipts import receipts
from lvae.manifests.publishing.publish import write_rejected
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.open import folder_at
from lvae.manifests.views.combine import select
from lvae.manifests.views.order_files import groups_of
from lvae.manifests.views.selected_rows import left_out
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewSettings
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.jobs.check import refuse_faults
from lvae.pipeline.jobs.finish import finish_dataset
from lvae.pipeline.jobs.fold import fold_parts, remove_orphans
from lvae.pipeline.jobs.resume import Result
from lvae.pipeline.jobs.shards import write_selected
from lvae.pipeline.jobs.spread import Spread
from lvae.pipeline.planning.existing import finish_erasing
from lvae.pipeline.planning.view import ViewOptions, check_space, named_selection, view_settings_of
from lvae.pipeline.progress.console import CONSOLE, Bar, say

ERASED = "erased on request"


def shard(dataset: str, options: ViewOptions, engine: Engine, keep_old: bool = False, erase: bool = False) -> Result:
    """Another view of a finished dataset. The old one stays whole until the new one is.

    erase: what the view's classes and keys leave out also leaves the raw parts, for good.
    """
    folder = _open_existing(dataset)
    with writing(folder):
        folder.sweep()
        finish_erasing(folder, read_plan_if_whole(folder))
        plan, manifest = _read_finished(folder)
        settings = view_settings_of(folder, plan, options, manifest)
        check_space(folder, plan, settings)
        _tell_of_selection(manifest, options)
        if erase:
            plan = _erase(folder, plan, options, settings.selection)
        spread = Spread(folder, folder, plan, engine, CONSOLE)
        selected = fold_parts(spread, settings.selection)
        write_rejected(folder, folder, groups_of(plan))
        result, made = write_selected(spread, settings, selected, keep_old)
        if erase:
            remove_orphans(folder, plan, selected.orphans)
            refuse_faults(folder, plan, engine, CONSOLE)
        folder.sweep()
        return Result(result, 0, made)


def shard_elsewhere(dataset: str, out: str, options: ViewOptions, engine: Engine, erase: bool = False) -> Result:
    """A view as a dataset of its own, with raw parts of its own, linked or copied."""
    source, folder = _open_existing(dataset), Folder(out)
    if source.root.resolve() == folder.root.resolve():
        raise LvaeError(f"--out {out}", "is the dataset itself", "Leave --out out for another view of it.")
    with writing(folder):
        folder.sweep()
        plan, manifest = _read_finished(source)
        settings = view_settings_of(source, plan, options, manifest)
        _tell_of_selection(manifest, options)
        chosen = _leave_out_named(source, plan, options) if erase else plan
        _begin(folder, chosen)
        take_listing(source, plan, folder)
        _take_parts([source], [plan], folder, plan)
        _write(folder, chosen)
        return _finish(folder, chosen, settings, engine)


def merge(
    datasets: Sequence[str], out: str, options: ViewOptions, engine: Engine, skip_duplicates: bool = False
) -> Result:
    """Datasets of the same autoencoder and image settings in one, their rows one behind the other."""
    folders, folder = [_open_existing(dataset) for dataset in datasets], Folder(out)
    roots = [one.root.resolve() for one in folders]
    for number, (dataset, root) in enumerate(zip(datasets, roots, strict=True)):
        if root in (*roots[:number], folder.root.resolve()):
            raise LvaeError(dataset, "is named twice", "Name different datasets, and a new folder last.")
    with writing(folder):
        folder.sweep()
        finished = [_read_finished(one) for one in folders]
        plans = [plan for plan, _ in finished]
        plan = united(folders, plans)
        _begin(folder, plan)
        whole = _leave_out_repeated(out, folders, plans, plan, skip_duplicates)
        first_file = 0
        for one, its in zip(folders, plans, strict=True):
            take_listing(one, its, folder, first_file)
            first_file += len(its.listing.files)
        _take_parts(folders, plans, folder, plan)
        _write(folder, whole)
        settings = view_settings_of(folder, whole, options, None, _unite_views([one for _, one in finished], whole))
        return _finish(folder, whole, settings, engine)


def _leave_out_repeated(out: str, folders: list[Folder], plans: list[Plan], plan: Plan, skip: bool) -> Plan:
    """The plan without images whose key an earlier dataset has."""
    repeated = repeated_keys(folders, plans)
    if not repeated:
        return plan
    if not skip:
        key = next(iter(repeated.values()))
        raise LvaeError(
            out,
            f"{counted(len(repeated), 'key')}, {key!r} for one, would stand there twice",
            "Say --skip-duplicates to keep the first of each.",
        )
    say(f"{counted(len(repeated), 'image')} left out: an earlier dataset has the same key")
    return erasing(plan, repeated, DUPLICATE)


def _open_existing(dataset: str) -> Folder:
    folder = folder_at(dataset)
    if not folder.exists("plan.json"):
        raise no_dataset(folder, dataset, "is not a dataset with raw parts")
    return folder


def _read_finished(folder: Folder) -> tuple[Plan, Manifest]:
    """The plan and the manifest of a dataset whose raw parts are all there."""
    plan, manifest = read_plan(folder), read_manifest(folder)
    if plan is None or manifest is None or plan.encoding is None:
        raise LvaeError(folder, "is not finished", RESUME)
    if manifest.raw == "dropped":
        raise LvaeError(folder, "its raw parts have been dropped", "Encode the images again for another view.")
    if manifest.plan_sha256 != plan.sha256:
        raise LvaeError(folder, "images are being appended", "Run the command that appends them again first.")
    return plan, manifest


def _begin(folder: Folder, plan: Plan) -> None:
    """A folder for a new dataset: empty, or this very one, begun before."""
    old = read_plan(folder)
    if (old is None and folder.exists(MANIFEST)) or (old is not None and old.sha256 != plan.sha256):
        raise LvaeError(folder, "another dataset lies there", "Name another folder.")


def _write(folder: Folder, plan: Plan) -> None:
    if read_plan(folder) != plan:
        write_plan(folder, plan)
    erasure.carry_out(folder, plan)


def _take_parts(sources: Sequence[Folder], plans: Sequence[Plan], folder: Folder, plan: Plan) -> None:
    first_part = 0
    with Bar("taking raw parts", plan.listing.parts, "parts") as bar:
        for source, its in zip(sources, plans, strict=True):
            take_parts(source, its, folder, plan, first_part, bar.at)
            first_part += its.listing.parts
        bar.at(plan.listing.parts)


def _finish(folder: Folder, plan: Plan, settings: ViewSettings, engine: Engine) -> Result:
    check_space(folder, plan, settings)
    spread = Spread(folder, folder, plan, engine, CONSOLE)
    result, _, made = finish_dataset(spread, settings, lambda: 0, lambda rejected: None)
    folder.sweep()
    return Result(result, 0, made)


def _erase(folder: Folder, plan: Plan, options: ViewOptions, selection: Selection) -> Plan:
    """Remove from the raw parts what a command line names. `selection`: of the view, which must not become empty."""
    erased = _leave_out_named(folder, plan, options)
    if erased == plan:
        say("nothing is left to erase: all of it was erased before")
        return plan
    select(folder, plan, selection, statistics=False)  # refuses one that leaves nothing
    write_plan(folder, erased)
    parts = erasure.carry_out(folder, erased)
    say(f"erased from {counted(parts, 'raw part')}")
    return erased


def _leave_out_named(folder: Folder, plan: Plan, options: ViewOptions) -> Plan:
    """The plan without what the command line leaves out. What the view left out before is not meant."""
    if options.only_classes is None and options.without_classes is None and options.without_keys is None:
        raise LvaeError("--erase", "say what, by --without-keys, --without-classes or --only-classes")
    named = replace(named_selection(folder, plan, options), limit=None, split=None)
    return erasing(plan, left_out(folder, plan, named, lambda: receipts(folder, plan)), ERASED)


def _tell_of_selection(manifest: Manifest, options: ViewOptions) -> None:
    """What stays of the old view's selection, since the command line does not name it, is said."""
    if options.everything:
        return
    old = manifest.view.selection
    stays = {
        "--split": old.split and not options.split,
        "--only-classes": old.only_classes and not options.only_classes,
        "--limit": old.limit and not options.limit,
        counted(len(old.without_keys or ()), "key") + " left out": old.without_keys,
    }
    kept = [what for what, stay in stays.items() if stay]
    if kept:
        say(f"stays as it was: {', '.join(kept)} (--everything forgets it)")


def _unite_views(manifests: Sequence[Manifest], plan: Plan) -> ViewSettings:
    """The first dataset's view; what any of them leaves out by key stays out, and so do classes that one left out."""
    selections = [manifest.view.selection for manifest in manifests]
    without = sorted({key for selection in selections for key in selection.without_keys or ()})
    chosen: tuple[str, ...] | None = None
    if any(selection.only_classes is not None for selection in selections):
        chosen = tuple(dict.fromkeys(name for manifest in manifests for name in manifest.classes or ()))
        if set(chosen) == set(plan.listing.classes or ()):
            chosen = None
    if any(selection.limit is not None for selection in selections):
        say("--limit of a dataset's view does not hold for the merged one; give it to 'lvae shard'")
    selection = Selection(
        only_classes=chosen,
        class_map=None if chosen is None else {name: number for number, name in enumerate(chosen)},
        without_keys=tuple(without) or None,
        limit=None,
        split=selections[0].split,
    )
    return replace(view_settings(manifests[0]), selection=selection)
