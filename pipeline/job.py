"""The whole encoding job in its order: plan, parts, fold, view, manifest, verification."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lvae.manifests import records
from lvae.manifests.dataset import Manifest, read_manifest
from lvae.manifests.errors import LvaeError
from lvae.manifests.option_names import option_of, value_of
from lvae.manifests.parts import finished, orphans, part_rows, receipt_name, receipts, receipts_record
from lvae.manifests.plan import PLAN, Plan, first_difference, read_plan
from lvae.manifests.publish import describe, drop_raw, swap, write_rejected
from lvae.manifests.selection import resolve_selection, select
from lvae.manifests.shards import codec
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage import Folder
from lvae.manifests.verification import Fault, mend_command, verify, view_settings
from lvae.manifests.views import (
    ViewPlan,
    ViewSettings,
    finished_shard,
    plan_view,
    read_view,
    shard_receipt_name,
    write_view,
)
from lvae.pipeline import progress, runners
from lvae.pipeline.console import Bar, say
from lvae.pipeline.planning import EncodeOptions, prepare
from lvae.pipeline.scanning import refuse_overlap
from lvae.pipeline.submission import Submission

SPACE_SLACK = 64 << 20  # bytes beside raw latents and shards: rows, receipts, weights, temporary files


@dataclass(frozen=True)
class ViewOptions:
    """What decides a view, as given on the command line; None where not given."""

    normalization: str | None = None
    format: str | None = None
    shard_size: int | None = None
    dtype: str | None = None
    seed: int | None = None
    split: dict[str, str] | None = None
    only_classes: tuple[str, ...] | None = None
    without_keys: Path | None = None
    limit: int | None = None

    def given(self) -> bool:
        return self != ViewOptions()


@dataclass(frozen=True)
class Result:
    """A finished dataset, and how many of its parts and shards this command had to make."""

    manifest: Manifest
    parts_made: int
    shards_made: int


def encode(
    source: str,
    dataset: str,
    options: EncodeOptions,
    view: ViewOptions,
    engine: runners.Engine,
    devices: Sequence[str],
    max_rejected: str | None = None,
    drop: bool = False,
) -> Result:
    """Images to a finished, verified dataset. The same call again goes on, mends what is damaged, or does nothing."""
    from lvae.manifests.locks import writing

    folder = Folder(dataset)
    refuse_overlap(folder, source)
    if max_rejected is not None:
        rejection_bound(max_rejected, 0)  # a typing error is told now, not after the work
    with writing(folder):
        folder.sweep()
        manifest, damaged = _existing(folder)
        new = not folder.exists(PLAN)
        plan = prepare(folder, source, options, say)
        if damaged:
            _set_aside(folder, plan, manifest)
        settings = _checked_settings(folder, plan, view, manifest, new)
        dropped = manifest is not None and manifest.raw == "dropped"
        if dropped and not damaged and manifest is not None:
            say(f"{dataset}: is finished and whole; there is nothing to do")
            return Result(manifest, 0, 0)
        made = _encode_parts(folder, plan, engine, tuple(devices))
        write_rejected(folder, receipts(folder, plan))
        _check_rejected(folder, plan, max_rejected)
        result, shards = write_view_of(folder, plan, settings, engine)
        for name in orphans(folder):
            folder.remove(name)
        faults = verify(folder, deep=True)
        if faults:
            raise LvaeError(_fault_line(folder, plan, faults))
        if drop:
            drop_raw(folder)
            result = read_manifest(folder) or result
        folder.sweep()
        return Result(result, made, shards)


def _existing(folder: Folder) -> tuple[Manifest | None, bool]:
    """The manifest of a dataset that was finished before, and whether anything of it is damaged."""
    try:
        manifest = read_manifest(folder)
    except LvaeError as error:
        say(f"{error}")
        return None, True
    if manifest is None:
        return None, False
    faults = verify(folder, deep=True)
    for fault in faults:
        say(f"{folder}/{fault.where}: {fault.problem}; it is made again")
    return manifest, bool(faults)


def _set_aside(folder: Folder, plan: Plan, manifest: Manifest | None) -> None:
    """Make room for what is made again: parts and shards at fault lose their receipts."""
    if manifest is not None and manifest.plan_sha256 != plan.sha256:
        raise LvaeError(f"{folder}: these settings are not those of its manifest. Give those of the first command.")
    for fault in verify(folder, deep=True):
        if fault.part is not None:
            folder.remove(receipt_name(fault.part))
        elif fault.split is not None and fault.shard is not None and manifest is not None:
            folder.remove(shard_receipt_name(manifest.view.name, fault.split, fault.shard))
        elif fault.where.startswith("shards/") and manifest is not None:
            folder.remove(f"shards/{manifest.view.name}")


def _checked_settings(
    folder: Folder, plan: Plan, options: ViewOptions, manifest: Manifest | None, new: bool
) -> ViewSettings:
    """The view's settings, and room for it. A command that fails here leaves no plan that would bind the next one."""
    try:
        settings = _settings_for(folder, plan, options, manifest)
        check_space(folder, plan, settings)
    except LvaeError:
        if new:
            folder.remove(PLAN)
        raise
    return settings


def _settings_for(folder: Folder, plan: Plan, options: ViewOptions, manifest: Manifest | None) -> ViewSettings:
    """The view that `encode` writes: as given, or as it is. Another one is `lvae shard`'s to make."""
    settings = view_settings_of(folder, plan, options, manifest)
    if manifest is not None:
        difference = first_difference(view_settings(manifest), settings)
        if difference:
            name, before, now = difference
            raise LvaeError(
                f"{folder}: its view has {option_of(name)} {value_of(before)}, but this command says {value_of(now)}. "
                "Use 'lvae shard' for another view."
            )
    return settings


def view_settings_of(folder: Folder, plan: Plan, options: ViewOptions, manifest: Manifest | None) -> ViewSettings:
    """Options over those of the view that is there, over the defaults.

    Where the manifest is lost, a view that was begun still says how.
    """
    there = view_settings(manifest) if manifest is not None else begun_view(folder)
    settings = there or ViewSettings(seed=plan.encoded().seed)
    given: dict[str, Any] = {
        name: value
        for name in ("format", "shard_size", "dtype", "seed")
        if (value := getattr(options, name)) is not None
    }
    if options.normalization is not None:
        given |= read_normalization(options.normalization, plan.encoded().latent_shape[0])
    settings = replace(settings, **given)
    if settings.dtype == "uint8" and not plan.encoded().autoencoder.pixels:
        raise LvaeError("--dtype uint8: only pixels are stored as bytes. Choose float16 or float32.")
    if settings.shard_size < 1:
        raise LvaeError(f"--shard-size {settings.shard_size}: must be at least 1.")
    selecting = (options.split, options.only_classes, options.without_keys, options.limit)
    if any(option is not None for option in selecting):
        keys = read_keys(options.without_keys) if options.without_keys is not None else None
        selection = resolve_selection(plan.listing.classes, options.only_classes, keys, options.limit, options.split)
        settings = replace(settings, selection=selection)
    return settings


def begun_view(folder: Folder) -> ViewSettings | None:
    """The settings of the only view that lies in a folder without a manifest."""
    views = [path.parent.name for path in folder.local("shards").glob("*/view.json")]
    if len(views) != 1:
        return None
    try:
        return read_view(folder, views[0]).settings
    except LvaeError:
        return None


def read_normalization(name_or_file: str, channels: int) -> dict[str, Any]:
    """channel, scalar or none; or JSON, in a file or as it is, with shift and scale: a number each or one a channel."""
    if name_or_file in ("channel", "scalar", "none"):
        return {"normalization": name_or_file, "shift": None, "scale": None}
    try:
        inline = name_or_file.lstrip().startswith("{")
        data = name_or_file.encode() if inline else Path(name_or_file).read_bytes()
    except OSError as error:
        raise LvaeError(
            f"--normalization {name_or_file}: is none of channel, scalar, none, and no file that can be read "
            f"({error.strerror})."
        ) from error
    content = records.loads(data, name_or_file)
    if not isinstance(content, dict) or not {"shift", "scale"} <= set(content):
        raise LvaeError(f'{name_or_file}: must be JSON like {{"shift": [...], "scale": [...]}}.')
    given = Normalization.given(content["shift"], content["scale"], channels)
    return {"normalization": "given", "shift": given.shift, "scale": given.scale}


def read_keys(path: Path) -> list[str]:
    """One key a line."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise LvaeError(f"--without-keys {path}: cannot be read ({error}).") from error


# --- parts ---------------------------------------------------------------------------------------------------------


def _encode_parts(folder: Folder, plan: Plan, engine: runners.Engine, devices: tuple[str, ...]) -> int:
    tasks = runners.Tasks(
        numbers=range(plan.listing.parts),
        finished=lambda part: finished(folder, plan, part) is not None,
        name=lambda part: f"part {part}",
        describe=lambda part: _describe_part(plan, part),
        submission=lambda parts, options: Submission(str(folder), tuple(parts), (), "", devices, options, False),
    )
    sizes = [part_rows(plan, part)[1] for part in range(plan.listing.parts)]
    pending = runners.Pending(tasks).look()
    if not pending:
        return 0
    made, images = len(pending), plan.listing.images
    with Bar("encoding", images, "images", images - sum(sizes[part] for part in pending)) as bar:

        def watch(reports: list[progress.Report], waiting: list[int]) -> None:
            named = {f"part {part}" for part in waiting}
            under_way = sum(report.done for report in reports if report.kind == "working" and report.task in named)
            bar.at(images - sum(sizes[part] for part in waiting) + under_way)

        runners.run(folder, tasks, engine, watch, say)
    return made


def _describe_part(plan: Plan, part: int) -> str:
    first, rows = part_rows(plan, part)
    return f"part {part} (images {first} to {first + rows - 1})"


def rejection_bound(text: str, images: int) -> float:
    """How many images "1%" or "100" lets be rejected."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise LvaeError(f"--max-rejected {text}: cannot be read. Write 1% or 100.")
    return value * images / 100 if text.endswith("%") else value


def _check_rejected(folder: Folder, plan: Plan, max_rejected: str | None) -> None:
    images = plan.listing.images
    rejected = sum(len(receipt.rejected) for receipt in receipts(folder, plan))
    if rejected == images:
        raise LvaeError(f"{folder}: none of {images} images could be used; {folder}/rejected.jsonl says why.")
    if rejected:
        say(f"{rejected} of {images} images could not be used; {folder}/rejected.jsonl says why")
    if max_rejected is None:
        return
    bound = rejection_bound(max_rejected, images)
    if rejected > bound:
        raise LvaeError(
            f"{folder}: {rejected} of {images} images were rejected, more than --max-rejected {max_rejected}. "
            f"See {folder}/rejected.jsonl; the same command with a higher bound goes on from here."
        )


def check_space(folder: Folder, plan: Plan, settings: ViewSettings) -> None:
    """LvaeError where what is still to be written cannot fit."""
    missing = sum(
        part_rows(plan, part)[1] for part in range(plan.listing.parts) if finished(folder, plan, part) is None
    )
    raw, _ = expected_bytes(plan, settings, missing)
    begun = folder.exists(f"shards/{settings.name(plan)}")
    _, shards = expected_bytes(plan, settings, missing if begun else plan.listing.images)
    free = folder.free_bytes()
    if raw + shards + SPACE_SLACK > free:
        raise LvaeError(
            f"{folder}: about {readable(raw + shards + SPACE_SLACK)} are needed and {readable(free)} are free. "
            "Free some space, or name a folder on another disk."
        )


def expected_bytes(plan: Plan, settings: ViewSettings, images: int) -> tuple[int, int]:
    """Bytes of raw parts and of shards, were every image of so many used."""
    encoding = plan.encoded()
    latents = images * encoding.image.orientations
    raw_values = encoding.raw_shape[0] * encoding.raw_shape[1] * encoding.raw_shape[2]
    width = {"float16": 2, "float32": 4, "uint8": 1}[settings.dtype]
    member = 2048 if settings.format == "webdataset" else 16
    return latents * raw_values * (1 if encoding.raw_dtype == "uint8" else 4), latents * (raw_values * width + member)


def readable(size: float) -> str:
    """Bytes for a person."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


# --- view ----------------------------------------------------------------------------------------------------------


def write_view_of(
    folder: Folder, plan: Plan, settings: ViewSettings, engine: runners.Engine, keep_old: bool = False
) -> tuple[Manifest, int]:
    """Fold the receipts, select, write the shards, swap the manifest. Says how many shards had to be written."""
    selected = select(folder, plan, settings.selection, lambda: receipts(folder, plan))
    raw_sha256 = receipts_record(folder, plan.listing.parts).sha256
    view = plan_view(plan, settings, selected, raw_sha256)
    write_view(folder, view)
    metadata = [
        record.path
        for layout in view.layouts.values()
        for record in codec(view.settings.format).prepare(folder, view.name, layout)
    ]
    made = _write_shards(folder, view, engine)
    manifest = describe(folder, plan, settings, selected, view, metadata)
    swap(folder, manifest, keep_old)
    return manifest, made


def _write_shards(folder: Folder, view: ViewPlan, engine: runners.Engine) -> int:
    shards = [(split, number) for split, layout in view.layouts.items() for number in range(layout.shards)]
    tasks = runners.Tasks(
        numbers=range(len(shards)),
        finished=lambda task: finished_shard(folder, view, *shards[task]) is not None,
        name=lambda task: "shard {} {}".format(*shards[task]),
        describe=lambda task: "shard {1} of {0}".format(*shards[task]),
        submission=lambda numbers, options: Submission(
            str(folder), (), tuple(shards[number] for number in numbers), view.name, (), options, False
        ),
    )
    made = len(runners.Pending(tasks).look())
    if made:
        with Bar("writing shards", len(shards), "shards", len(shards) - made) as bar:
            runners.run(folder, tasks, engine, lambda _, waiting: bar.at(len(shards) - len(waiting)), say)
    return made


def shard(dataset: str, options: ViewOptions, engine: runners.Engine, keep_old: bool = False) -> Result:
    """Another view of a finished dataset. The old one stays whole until the new one is."""
    from lvae.manifests.locks import writing

    folder = Folder(dataset)
    _plan_of(folder)  # before a lock makes a folder of what is none
    with writing(folder):
        folder.sweep()
        plan = _plan_of(folder)
        manifest = read_manifest(folder)
        if manifest is not None and manifest.raw == "dropped":
            raise LvaeError(f"{dataset}: its raw parts have been dropped. Encode the images again for another view.")
        settings = view_settings_of(folder, plan, options, manifest)
        check_space(folder, plan, settings)
        write_rejected(folder, receipts(folder, plan))
        result, made = write_view_of(folder, plan, settings, engine, keep_old)
        folder.sweep()
        return Result(result, 0, made)


def _plan_of(folder: Folder) -> Plan:
    plan = read_plan(folder)
    if plan is None:
        raise LvaeError(f"{folder}: is not a dataset. Make one with 'lvae encode SOURCE DATASET'.")
    return plan


def _fault_line(folder: Folder, plan: Plan | None, faults: Sequence[Fault]) -> str:
    first, *rest = faults
    more = f" and {len(rest)} more faults" if rest else ""
    return f"{folder}/{first.where}: {first.problem}{more}. Run: {mend_command(plan, folder, faults)}"
