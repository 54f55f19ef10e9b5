"""The work of a job, task by task, and which of it has no receipt yet."""

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
    work: Callable[[list[int]], Work]


class Pending:
    """The tasks without a receipt. Each is asked for by name, and not again once it is finished."""

    def __init__(self, folder: Folder, tasks: Tasks):
        self._folder, self._tasks = folder, tasks
        self.numbers = list(tasks.numbers)
        self._throttle = Throttle(LOOKS)

    def update(self) -> list[int]:
        found = list(self._folder.each(self._tasks.finished, self.numbers))
        self.numbers = [number for number, finished in zip(self.numbers, found, strict=True) if not finished]
        return self.numbers

    def update_sometimes(self) -> list[int]:
        if self._throttle.due:
            with self._throttle:
                self.update()
        return self.numbers
