"""Checkpoints written behind: training goes on while a thread hashes and flushes what was copied before."""

import threading
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from lvae.train.runs.checkpoints import Checkpoints

Groups = Mapping[str, Mapping[str, Tensor]]


class CheckpointWriter:
    """Saves one checkpoint at a time. What goes wrong in the thread is raised by whatever is called next."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, groups: Groups, values: Mapping[str, Any], keep: Collection[int] = ()) -> None:
        """Begin to write tensors on the CPU that nobody changes any more; wait first for the checkpoint before."""
        self.wait()
        self._thread = threading.Thread(target=self._save, args=(step, groups, values, keep), name="checkpoint")
        self._thread.start()

    def _save(self, step: int, groups: Groups, values: Mapping[str, Any], keep: Collection[int]) -> None:
        try:
            self._checkpoints.save(step, groups, values, keep)
        except BaseException as error:  # raised in the thread that trains
            self._error = error

    def check(self) -> None:
        """Raise what went wrong, without waiting."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until everything is written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
