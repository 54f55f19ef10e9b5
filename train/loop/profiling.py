"""Where a step goes: a trace of some updates, and a table of their operations."""

from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from lvae.train.devices.device import Device

WARM_UP = 3  # updates that are not traced: they compile, choose algorithms and allocate
ROWS = 25
TRACE, TABLE = "trace.json", "table.txt"


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

    def after(self, made: int) -> str | None:
        """After an update; the table, once, when the last one is traced."""
        return self.finish() if made == self._last else None

    def finish(self) -> str | None:
        """Write what was traced, also where a run ends before its time."""
        if self._profile is None or not self._active:
            return None
        self._device.synchronize()
        self._profile.stop()
        self._active = False
        self._folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._folder / TRACE))
        order = "self_cuda_time_total" if self._device.kind == "cuda" else "self_cpu_time_total"
        table = self._profile.key_averages().table(sort_by=order, row_limit=ROWS)
        (self._folder / TABLE).write_text(table)
        return str(table)
