"""What several test files need: little worlds, little datasets, and running the command as a user would."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Before torch and numpy are loaded, here and in processes that tests start: several processes with a thread a core each
# wait for one another most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from lvae.encode.scenes.make import write_scenes

# A shell starts what it puts into the background with interrupts ignored, and processes hand that down.
signal.signal(signal.SIGINT, signal.default_int_handler)

SMALL_KL = (
    '{"kind": "kl", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention_levels": [], '
    '"middle_attention": true, "latent_channels": 4, "codes": 0}'
)


def lvae(
    *arguments: str | Path, check: int | None = 0, cwd: Path | None = None, patience: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run `lvae` in a process of its own; the exit code must be `check`. patience: in seconds."""
    command = [sys.executable, "-m", "lvae", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=patience)
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 labelled pictures of 32 px in eight class folders."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 48, 32, 0)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Photographs that a clone does not have: LVAE_SHARED_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LVAE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("needs the shared photographs")
    return folder
