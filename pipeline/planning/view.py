"""The settings of a view, from options, plan and earlier views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import Manifest, view_settings
from lvae.manifests.messages import counted, option_of, value_of
from lvae.manifests.parts.plan import Plan, first_difference
from lvae.manifests.parts.receipts import has_receipt
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.given_files import read_given_file
from lvae.manifests.views.named_keys import find_keys, read_key_lines, refuse_missing
from lvae.manifests.views.selection import Selection, add_selection, resolve_selection
from lvae.manifests.views.view import ViewSettings, read_view
from lvae.pipeline.progress.console import say

LARGEST_NORMALIZATION = 1 << 20  # bytes of a file
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
    without_classes: tuple[str, ...] | None = None
    without_keys: Path | None = None
    limit: int | None = None
    everything: bool = False
    missing_ok: bool = False  # of keys that no image has


def view_settings_of(
    folder: Folder,
    plan: Plan,
    options: ViewOptions,
    manifest: Manifest | None,
    default: ViewSettings | None = None,
) -> ViewSettings:
    """Options over those of the view that is there, over the defaults; of a selection, too, each for itself.

    Where the manifest is lost, a view that was begun still says how.
    """
    there = view_settings(manifest) if manifest is not None else default or find_begun_view(folder)
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
        raise LvaeError("--dtype uint8", "only pixels are stored as bytes", "Choose float16 or float32.")
    if settings.shard_size < 1:
        raise LvaeError(f"--shard-size {settings.shard_size}", "must be at least 1")
    named, old = named_selection(folder, plan, options, say), Selection() if options.everything else settings.selection
    return replace(settings, selection=add_selection(old, named, options.without_classes is not None))


def named_selection(
    folder: Folder, plan: Plan, options: ViewOptions, say: Callable[[str], None] = lambda _: None
) -> Selection:
    """What a command line itself says of a selection. Raises LvaeError for keys that no image has."""
    keys: tuple[str, ...] | None = None
    if options.without_keys is not None:
        lines, reader = read_key_lines(options.without_keys), RowReader(folder, plan.listing)

        def there() -> Iterator[str]:
            for part in range(plan.listing.parts):
                yield from reader.keys(part).to_pylist()

        found = find_keys(lines, there())
        if not lines and not options.missing_ok:
            where = f"--without-keys {options.without_keys}"
            raise LvaeError(where, "names no key", "Write one a line. --missing-ok takes an empty file, too.")
        if not options.missing_ok:
            refuse_missing(f"--without-keys {options.without_keys}", len(lines), found.missing, there())
        if not lines:
            say("warning: --without-keys: the file names no key")
        if found.missing:
            say(
                f"warning: --without-keys: no image has {len(found.missing)} of these {counted(len(lines), 'key')}, "
                f"{found.missing[0]!r} for one"
            )
        if found.other_form:
            keys_found = counted(found.other_form, "key")
            say(f"warning: --without-keys: {keys_found} found in another Unicode form (NFC, NFD)")
        keys = found.keys
    return resolve_selection(
        plan.listing.classes, options.only_classes, keys, options.limit, options.split, options.without_classes
    )


def find_begun_view(folder: Folder) -> ViewSettings | None:
    """The settings of the only view that lies in a folder without a manifest."""
    views = [name.split("/")[1] for name in folder.names("shards") if name.endswith("/view.json")]
    if len(views) != 1:
        return None
    try:
        return read_view(folder, views[0]).settings
    except LvaeError:
        return None


def read_normalization(name_or_file: str, channels: int) -> dict[str, Any]:
    """channel, scalar or none; or JSON, in a file or as it is, with shift and scale: a number each or one a channel.

    The file may be a run's config.json or a dataset's manifest.json, too: then it is the normalization of that.
    """
    if name_or_file in ("channel", "scalar", "none"):
        return {"normalization": name_or_file, "shift": None, "scale": None}
    inline = name_or_file.lstrip().startswith("{")
    where = f"--normalization {name_or_file}"
    if not inline and not Path(name_or_file).exists():
        raise LvaeError(where, "is none of channel, scalar, none, and no file that is there")
    data = name_or_file.encode() if inline else read_given_file(Path(name_or_file), where, LARGEST_NORMALIZATION)
    content = records.loads(data, name_or_file)
    for name in ("dataset", "normalization"):
        content = content.get(name, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not {"shift", "scale"} <= set(content):
        raise LvaeError(name_or_file, 'must be JSON like {"shift": [...], "scale": [...]}')
    given = Normalization.given(content["shift"], content["scale"], channels)
    return {"normalization": "given", "shift": given.shift, "scale": given.scale}


def check_space(folder: Folder, plan: Plan, settings: ViewSettings) -> None:
    """LvaeError where what is still to be written cannot fit."""
    if folder.remote:
        return
    missing = sum(plan.listing.place(part).rows for part in range(plan.listing.parts) if not has_receipt(folder, part))
    raw, _ = estimate_bytes(plan, settings, missing)
    begun = folder.exists(f"shards/{settings.name(plan)}")
    _, shards = estimate_bytes(plan, settings, missing if begun else plan.listing.images)
    free = folder.free_bytes()
    if raw + shards + SPACE_SLACK > free:
        raise LvaeError(
            folder,
            f"about {readable(raw + shards + SPACE_SLACK)} are needed and {readable(free)} are free",
            "Free some space, or name a folder on another disk.",
        )


def estimate_bytes(plan: Plan, settings: ViewSettings, images: int) -> tuple[int, int]:
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


def settings_for(folder: Folder, plan: Plan, options: ViewOptions, manifest: Manifest | None) -> ViewSettings:
    """The view that `encode` writes: as given, or as it is. Another one is `lvae shard`'s to make."""
    settings = view_settings_of(folder, plan, options, manifest)
    if manifest is not None:
        difference = first_difference(view_settings(manifest), settings)
        if difference:
            name, before, now = difference
            raise LvaeError(
                folder,
                (f"its view has {option_of(name)} {value_of(before)}, but this command says {value_of(now)}"),
                "Use 'lvae shard' for another view.",
            )
    return settings
