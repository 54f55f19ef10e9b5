"""The loop over updates, whatever is trained: stop and go on anywhere."""

from collections.abc import Callable


def run_updates(
    step: int,
    updates: int,
    update: Callable[[int], None],
    after: Callable[[int, bool, bool], bool | None],
    stopping: Callable[[], bool],
) -> int:
    """Update until so many updates are made, or a stop is asked for; return how many there are.

    update(step): the one after `step` others. after(step, end, stopped): do what is due, saving where it ends or stops;
    true where the run ends there before its time. stopping: asked once an update, by all ranks.
    """
    stopped = False
    while step < updates and not stopped:
        update(step)
        step += 1
        stopped = stopping()
        stopped = bool(after(step, step == updates, stopped)) or stopped
    return step


def is_due(step: int, interval: int) -> bool:
    """Every so many updates; 0: never."""
    return bool(interval) and step % interval == 0
