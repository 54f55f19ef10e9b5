"""Where a step goes: a trace of some updates, a table of their operations, and how often a GPU was given work."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile

from lvae.train.devices.device import Device

WARM_UP = 3  # updates that are not traced: they compile, choose algorithms and allocate
ROWS = 25
TRACE, TABLE = "trace.json", "table.txt"
LAUNCHES = ("LaunchKernel", "LaunchCooperativeKernel", "GraphLaunch")  # in names of the driver's and runtime's calls


class Traced(NamedTuple):
    """table: of operations. launches: an update, of kernels or whole CUDA graphs; None where no GPU was traced."""

    table: str
    launches: float | None


class Profiler:
    """Traces updates WARM_UP to WARM_UP + count of a command, into a folder."""

    def __init__(self, folder: Path, count: int, device: Device):
        self._folder, self._last, self._device = folder, WARM_UP + count, device
        self._count, self._active = count, False
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.kind == "cuda" else [])]
        self._profile = profile(activities=activities) if count else None

    def before(self, made: int) -> None:
        """Before an update, of which so many were made."""
        if self._profile is not None and made == WARM_UP:
            self._device.synchronize()
            self._profile.start()
            self._active = True

    def after(self, made: int) -> Traced | None:
        """After an update; what was traced, once, when the last one is."""
        return self.finish() if made == self._last else None

    def finish(self) -> Traced | None:
        """Write what was traced, also where a run ends before its time."""
        if self._profile is None or not self._active:
            return None
        self._device.synchronize()
        self._profile.stop()
        self._active = False
        self._folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._folder / TRACE))
        order = "self_cuda_time_total" if self._device.kind == "cuda" else "self_cpu_time_total"
        averages = self._profile.key_averages()
        table = averages.table(sort_by=order, row_limit=ROWS)
        (self._folder / TABLE).write_text(table)
        launches = count_launches((event.key, event.count) for event in averages)
        return Traced(str(table), launches / self._count if launches else None)


def count_launches(calls: Iterable[tuple[str, int]]) -> int:
    """How many of these calls, each with its count, give a GPU work: a kernel, or a graph of them."""
    return sum(count for name, count in calls if any(part in name for part in LAUNCHES))
