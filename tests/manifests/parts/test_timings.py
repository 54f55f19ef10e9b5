"""Durations of parts, and the rate that they make."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.manifests.parts.timings import Timing, images_per_second, read_timing, timing_name, write_timing
from lvae.manifests.storage.folder import Folder


def test_a_timing_is_read_as_it_was_written(tmp_path: Path) -> None:
    timing = Timing(12, 512, 61.5, 1e9 + 0.25)
    write_timing(Folder(tmp_path), timing)
    assert read_timing(Folder(tmp_path), 12) == timing
    assert read_timing(Folder(tmp_path), 13) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"part": 12, "images": 1, "seconds": NaN, "ended": 1}', "\udcff"])
def test_a_damaged_timing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / timing_name(12)).parent.mkdir(parents=True)
    (tmp_path / timing_name(12)).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_timing(Folder(tmp_path), 12) is None


def test_two_workers_are_twice_as_fast_as_one() -> None:
    one = [Timing(part, 10, 5.0, 1000.0 + 5 * part) for part in range(4)]
    assert images_per_second(one) == pytest.approx(2.0)
    assert images_per_second([*one, *one]) == pytest.approx(4.0)


def test_a_pause_does_not_count() -> None:
    """The job was stopped for a day."""
    before = [Timing(part, 10, 5.0, 5.0 * part) for part in range(4)]
    after = [Timing(part, 20, 5.0, 86400 + 5.0 * part) for part in range(4, 8)]
    assert images_per_second([*before, *after]) == pytest.approx(4.0)


def test_nothing_is_known_from_nothing() -> None:
    assert images_per_second([]) is None
    assert images_per_second([Timing(0, 10, 0.0, 5.0)]) is None


@given(st.lists(st.builds(Timing, st.just(0), st.integers(1, 512), st.floats(0.01, 1e4), st.floats(0, 1e10))))
def test_a_rate_is_positive_or_unknown_in_any_order(timings: list[Timing]) -> None:
    rate = images_per_second(timings)
    assert rate is None or rate > 0
    assert images_per_second(reversed(timings)) == rate
