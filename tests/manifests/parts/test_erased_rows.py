import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.erased_rows import ErasedRows, read_erased_rows, write_erased_rows
from lvae.manifests.parts.plan import PLAN, erasing, read_plan, read_plan_if_whole, write_plan
from lvae.manifests.storage.folder import Folder
from tests.manifests.dataset_examples import build, encode, flip, problems

ROWS = st.sets(st.integers(0, 200), max_size=60)


def reasons_of(rows: ErasedRows) -> dict[int, str]:
    return {row: one.reason for one in rows for row in range(one.first, one.stop)}


@given(ROWS, ROWS, st.integers(0, 200), st.integers(0, 200))
def test_ranges_hold_what_sets_hold(first: set[int], second: set[int], start: int, stop: int) -> None:
    rows = ErasedRows().adding(first, "first").adding(second, "second")
    expected = dict.fromkeys(second, "second") | dict.fromkeys(first, "first")
    assert reasons_of(rows) == expected and bool(rows) == bool(expected)
    assert rows.within(start, stop) == {row: why for row, why in expected.items() if start <= row < stop}
    assert reasons_of(rows.moved(7)) == {row + 7: why for row, why in expected.items()}
    ranges = list(rows)
    assert all(a.stop < b.first or a.reason != b.reason for a, b in itertools.pairwise(ranges))
    with TemporaryDirectory() as root:
        record = write_erased_rows(Folder(root), rows)
        assert read_erased_rows(Folder(root), record) == rows


def test_a_plan_with_200000_erased_rows_is_small_and_beside_it_lies_a_small_file(tmp_path: Path) -> None:
    example = encode(tmp_path)
    before = len(example.folder.read(PLAN))
    plan = erasing(example.plan, range(0, 1_200_000, 6), "erased on request")
    write_plan(example.folder, plan)
    assert read_plan(example.folder) == plan and len(plan.erased) == 200_000
    [path] = tmp_path.glob("erased/*.parquet")
    assert len(example.folder.read(PLAN)) < before + 300 and path.stat().st_size < 400_000


def test_without_the_list_of_erased_rows_nobody_goes_on(tmp_path: Path) -> None:
    """Not even what passes over a damaged plan: what was taken down must not be encoded again."""
    example = build(tmp_path)
    write_plan(example.folder, erasing(example.plan, [5], "asked"))
    [path] = tmp_path.glob("erased/*.parquet")
    flip(path, 20, 1)
    for read in (read_plan, read_plan_if_whole):
        with pytest.raises(LvaeError, match=r"erased/.*\.parquet: is missing or damaged"):
            read(example.folder)
    path.unlink()
    assert any("is missing or damaged" in problem for problem in problems(tmp_path))
