"""How many cores this process may use: those that it may run on, and no more than its control groups pay for."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

PROC = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """At least 1. A part of a core that a quota grants does not count."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = read_quota(PROC, GROUPS)
    return allowed if granted is None else max(1, min(allowed, int(granted)))


def read_quota(membership: Path, groups: Path) -> float | None:
    """Return the smallest quota, in cores, of the control groups above this process, None without one.

    membership: as in /proc/self/cgroup, lines of number:controllers:path. Of version 2, no controllers are named.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None  # no Linux
    quotas = list[float]()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += _read_quotas(groups, path, _read_v2)
        elif "cpu" in controllers.split(","):
            mounted = (groups / controllers, groups / "cpu")
            root = next((folder for folder in mounted if folder.is_dir()), groups)
            quotas += _read_quotas(root, path, _read_v1)
    return min(quotas, default=None)


def _read_quotas(root: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Of a group and of those around it. Inside of a container the path may be one that only the host has."""
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        if folder == root or root in folder.parents:
            quota = read(folder)
            if quota is not None:
                yield quota


def _read_v2(group: Path) -> float | None:
    """cpu.max: microseconds and period, or max and period."""
    found = _read_numbers(group / "cpu.max")
    return found[0] / found[1] if len(found) == 2 and found[1] > 0 else None


def _read_v1(group: Path) -> float | None:
    quota, period = _read_numbers(group / "cpu.cfs_quota_us"), _read_numbers(group / "cpu.cfs_period_us")
    return quota[0] / period[0] if quota and period and quota[0] > 0 and period[0] > 0 else None


def _read_numbers(file: Path) -> list[int]:
    """Those of the file's first line; none where it says something else, such as max, or is not there."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
