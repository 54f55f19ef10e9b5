"""The work of a job, task by task, and which of it has no receipt yet."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam.work import Work
from lvae.pipeline.progress.reports import Throttle

LOOKS = 0.01  # of a core's time, at most, for asking which tasks have their receipts meanwhile


@dataclass(frozen=True)
class Tasks:
    """The work of a job.

    numbers: all tasks. finished: whether a task has its receipt. name: how a worker reports a task. describe: what a
    person calls it. work: some of them, for a submission.
    """

    numbers: Sequence[int]
    finished: Callable[[int], bool]
    name: Callable[[int], str]
    describe: Callable[[int], str]
    work: Callable[[Sequence[int]], Work]


class Pending:
    """The tasks without a receipt, ascending. Each is asked for by name, and not again once it is finished.

    Eight bytes a task: there may be millions.
    """

    def __init__(self, folder: Folder, tasks: Tasks):
        self._folder, self._tasks = folder, tasks
        self.numbers: Sequence[int] = array("q", tasks.numbers)
        self._throttle = Throttle(LOOKS)

    def update(self) -> Sequence[int]:
        found = zip(self.numbers, self._folder.each(self._tasks.finished, self.numbers), strict=True)
        self.numbers = array("q", (number for number, finished in found if not finished))
        return self.numbers

    def update_sometimes(self) -> Sequence[int]:
        if self._throttle.due:
            with self._throttle:
                self.update()
        return self.numbers


def holds(numbers: Sequence[int], number: int) -> bool:
    """Of ascending numbers."""
    place = bisect_left(numbers, number)
    return place < len(numbers) and numbers[place] == number


def share_one(left: Sequence[int], batch: Sequence[int]) -> bool:
    """Whether a task is in both; the first one that is left is, as a rule."""
    return any(holds(batch, number) for number in left)
