import time

from lvae.pipeline.progress.reports import PartsDone, Report, Sparing


def test_what_is_done_counts_finished_parts_and_what_workers_say_of_waiting_ones() -> None:
    done = PartsDone([10, 10, 10, 5], [1, 3])
    assert done.now([], [1, 3]) == 20
    working = [Report("working", "part 1", 4), Report("working", "part 3", 2), Report("done", "part 0", 0)]
    assert done.now(working, [1, 3]) == 26
    assert done.now(working, [3]) == 32, "what is finished must not count twice"
    assert done.now(working, []) == 35


def test_two_workers_at_one_part_count_once() -> None:
    done = PartsDone([10], [0])
    assert done.now([Report("working", "part 0", 4), Report("working", "part 0", 7)], [0]) in (4, 7)


def test_what_is_dear_is_not_due_again_soon_unless_it_has_to_be() -> None:
    def dear(sparing: Sparing) -> Sparing:
        assert sparing.due
        with sparing:
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
        return sparing

    assert not dear(Sparing(0.001)).due
    soon = dear(Sparing(0.001, longest=0.1))
    time.sleep(0.15)
    assert soon.due
