"""What has no receipt yet, of a job of millions of parts."""

import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lvae.encode.feeding.settings import Feeding
from lvae.manifests import records
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam.work import PartsToEncode, ranges_of
from lvae.pipeline.engines.tasks import Pending, Tasks, holds, share_one

PARTS = 100_000


def test_pending_parts_take_some_bytes_each(tmp_path: Path) -> None:
    """Neither a number nor an element of the engine an object each: 40 bytes a part were 160 MB for four million."""

    def work(parts: object) -> PartsToEncode:
        return PartsToEncode("dataset", ranges_of(parts, 8), Feeding(()))  # type: ignore[arg-type]

    tasks = Tasks(range(PARTS), lambda part: part % 1000 == 0, str, str, work)
    tracemalloc.start()
    pending = Pending(Folder(tmp_path), tasks)
    submitted = work(pending.update())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * PARTS
    assert len(pending.numbers) == PARTS - PARTS // 1000
    assert submitted.elements < PARTS / 60 and len(records.dumps(submitted)) < PARTS
    assert sum(stop - start for start, stop in submitted.parts) == len(pending.numbers)


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_ascending_numbers_are_compared_as_sets_are(left: set[int], batch: set[int]) -> None:
    assert share_one(sorted(left), sorted(batch)) == bool(left & batch)
    assert all(holds(sorted(left), number) == (number in left) for number in range(32))
