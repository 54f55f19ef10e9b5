"""Part numbers as ranges: what passes through an engine."""

from hypothesis import given
from hypothesis import strategies as st

from lvae.pipeline.beam.work import LONGEST_RANGE, ranges_of


@given(st.sets(st.integers(0, 500)), st.integers(0, 40))
def test_ranges_hold_every_number_once_in_order_and_are_enough_for_all_workers(numbers: set[int], pieces: int) -> None:
    found = ranges_of(sorted(numbers), pieces)
    assert [number for start, stop in found for number in range(start, stop)] == sorted(numbers)
    assert len(found) >= min(len(numbers), pieces)
    assert all(0 < stop - start <= LONGEST_RANGE for start, stop in found)
