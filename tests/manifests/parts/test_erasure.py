from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.parts import erasure
from lvae.manifests.parts.erased_rows import Erased
from lvae.manifests.parts.plan import Plan, erasing, read_plan, write_plan
from lvae.manifests.parts.receipts import finished, moments_of_raw, orphans, read_raw, read_receipt, receipts
from lvae.manifests.views.selected_rows import left_out
from tests.manifests.dataset_examples import Contents, Example, encode, files_of, planned, settings_of


def erased(example: Example, rows: set[int]) -> Plan:
    plan = erasing(example.plan, rows, "asked for")
    write_plan(example.folder, plan)
    return plan


@settings(max_examples=15, deadline=None)
@given(
    st.sets(st.integers(0, 94), min_size=1),
    st.sampled_from([{}, {"store": "moments"}, {"pixels": True}, {"mirrored": False}]),
)
def test_erased_images_leave_the_raw_parts_and_nothing_else_does(rows: set[int], change: dict[str, object]) -> None:
    with TemporaryDirectory() as root:
        example = encode(Path(root), Contents(), **change)
        plan = erased(example, rows)
        assert all(
            (finished(example.folder, plan, part) is None) == bool(_held(example, rows, part)) for part in range(5)
        )
        written = erasure.carry_out(example.folder, plan)
        assert written == sum(bool(_held(example, rows, part)) for part in range(5))
        stored = np.array(example.stored_rows)
        parts = [read_raw(example.folder, receipt, plan.encoded()) for receipt in receipts(example.folder, plan)]
        assert np.array_equal(np.concatenate(parts), np.concatenate(example.raw)[~np.isin(stored, list(rows))])
        for receipt, raw in zip(receipts(example.folder, plan), parts, strict=True):
            rejected = [rejection.row for rejection in receipt.rejected]
            assert rejected == sorted(rejected) and len(set(rejected)) == len(rejected)
            if len(raw):
                assert receipt.moments == moments_of_raw(plan.encoded(), raw).to_record()
        before = files_of(Path(root))
        assert list(orphans(example.folder)) == [] and erasure.carry_out(example.folder, plan) == 0
        assert files_of(Path(root)) == before and read_plan(example.folder) == plan


def _held(example: Example, rows: set[int], part: int) -> set[int]:
    return rows & set(range(part * 20, part * 20 + 20)) - example.contents.rejected


def test_reasons_stay_with_their_rows(tmp_path: Path) -> None:
    example = encode(tmp_path)
    plan = erasing(erasing(example.plan, [5, 6, 7, 30], "first"), [6, 8, 9, 29], "second")
    assert tuple(plan.erased) == (
        Erased(5, 8, "first"),
        Erased(8, 10, "second"),
        Erased(29, 30, "second"),
        Erased(30, 31, "first"),
    )
    assert plan.erased_rows(1) == {29: "second", 30: "first"} and plan.sha256 == example.plan.sha256
    write_plan(example.folder, plan)
    erasure.carry_out(example.folder, plan)
    receipt = read_receipt(example.folder, 0)
    assert receipt is not None
    reasons = {rejection.row: rejection.reason for rejection in receipt.rejected}
    assert reasons == {3: "not an image", 5: "first", 6: "first", 7: "not an image", 8: "second", 9: "second"}


def test_a_part_that_is_not_there_is_left_to_whoever_encodes_it(tmp_path: Path) -> None:
    example = encode(tmp_path)
    example.folder.remove("raw/000000/part-000001.json")
    plan = erased(example, {25, 45})
    assert erasure.carry_out(example.folder, plan) == 0 and finished(example.folder, plan, 1) is None


@pytest.mark.parametrize("selecting", [{"only_classes": ["dog"]}, {"without_classes": ["dog"]}, {"without_keys": []}])
def test_what_a_selection_leaves_out_is_what_it_does_not_take(tmp_path: Path, selecting: dict[str, object]) -> None:
    example = encode(tmp_path)
    if "without_keys" in selecting:
        selecting = {"without_keys": [row.key for row in example.rows[::5]]}
    view = settings_of(example, **selecting)
    gone = set(left_out(example.folder, example.plan, view.selection, lambda: receipts(example.folder, example.plan)))
    selected, _ = planned(example, view)
    kept = sum(selected.counts.values()) // 2
    assert kept + len(gone) == len(set(example.stored_rows)) and gone <= set(example.stored_rows)
    plan = erased(example, gone)
    erasure.carry_out(example.folder, plan)
    again, _ = planned(replace(example, plan=plan), view)
    assert again.entries_sha256 == selected.entries_sha256  # a trainer sees no difference
    np.testing.assert_array_equal(again.moments.mean, selected.moments.mean)
    np.testing.assert_array_equal(again.moments.m2, selected.moments.m2)
