"""Calls that run at the same time."""

import threading

from lvae.manifests.concurrency import concurrently


def test_results_come_in_order_whoever_ends_first() -> None:
    second_ended = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            assert second_ended.wait(10)
        if number == 1:
            second_ended.set()
        return number * 2

    assert list(concurrently(call, range(100), lanes=3)) == list(range(0, 200, 2))


def test_no_more_items_are_begun_than_asked_for() -> None:
    taken = []
    results = concurrently(str, (taken.append(number) or number for number in range(50)), lanes=2, ahead=4)  # type: ignore[func-returns-value]
    assert next(results) == "0"
    assert taken == [0, 1, 2, 3, 4]
    results.close()  # type: ignore[attr-defined]
