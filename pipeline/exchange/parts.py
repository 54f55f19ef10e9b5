"""The parts of an import: which rows they have, and whether a cache still holds the numbers that were imported."""

from collections.abc import Callable, Iterable, Iterator

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import finished_with_record
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.exchange.caches.cache import Cache
from lvae.pipeline.exchange.part import ListedPart, raw_sha256
from lvae.pipeline.exchange.settings import Conversion
from lvae.pipeline.planning.scan import remember, remembered


def listed_parts(folder: Folder, plan: Plan, caches: dict[int, Cache], parts: Iterable[int]) -> Iterator[ListedPart]:
    """Parts with their rows, which one reader hands out in turn. caches: by segment."""
    reader = RowReader(folder, plan.listing)
    conversions = [Conversion.of(segment.kind) for segment in plan.listing.segments]
    for part in parts:
        number = plan.listing.place(part).segment
        yield ListedPart(part, reader.part(part), caches[number], conversions[number])


def refuse_other_numbers(folder: Folder, plan: Plan, caches: dict[int, Cache], say: Callable[[str], None]) -> None:
    """LvaeError where a cache, whose rows have been listed again, holds other numbers than those that were imported.

    Where none of its files looks touched, they are the same. caches: by segment.
    """
    before = remembered(folder)
    touched = {number: cache for number, cache in caches.items() if cache.seen.sum != before.get(number)}
    for number, cache in touched.items():
        parts = {
            part: found[0].raw.sha256
            for part in plan.listing.segment_parts(number)
            if (found := finished_with_record(folder, plan, part, raw=False))
        }
        if parts:
            many = counted(len(parts), "part")
            say(f"{cache.location}: files were touched since they were listed; comparing the numbers of {many}")
        for part in listed_parts(folder, plan, caches, parts):
            if raw_sha256(plan, part) != parts[part.number]:
                rows = f"from {part.rows[0].key} to {part.rows[-1].key}"
                problem = f"a latent {rows} is not what it was when part {part.number} of {folder} was imported"
                raise LvaeError(cache.location, problem, "Restore it, or import into another folder.")
    if touched:
        remember(folder, before | {number: cache.seen.sum for number, cache in touched.items()}, None)
