"""What every benchmark says of itself: machine, versions, commit."""

import platform
import subprocess
from pathlib import Path


def describe() -> str:
    """One line."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    changed = ["git", "status", "--porcelain", "--", ".", ":!tests/benchmarks/*.md", ":!docs/*.png"]  # not by a record
    dirty = subprocess.run(changed, capture_output=True, text=True, check=True).stdout
    return f"{processor()}, {platform.system()}, Python {platform.python_version()}, commit {commit.stdout.strip()}" + (
        " with changes" if dirty else ""
    )


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
