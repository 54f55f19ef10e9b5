"""What several test files need: drawn images, small datasets, and running the command as a user would."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

# Before torch and numpy are loaded, here and in processes that tests start: several processes with a thread a core each
# wait for one another most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # a process that dies in native code says where

from lvae.encode.scenes.make import write_scenes

# A shell starts what it puts into the background with interrupts ignored, and processes hand that down.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples at every run: what random ones find is for `make search`, not for a change that did not cause it.
# How long an example takes is no fault on a busy machine.
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("random"), derandomize=True)
settings.load_profile(os.environ.get("LVAE_EXAMPLES", "same"))

SMALL_KL = (
    '{"kind": "kl", "width": 8, "multipliers": [1, 2], "blocks": 1, "attention_levels": [], '
    '"middle_attention": true, "latent_channels": 4, "codes": 0}'
)


def lvae(*arguments: str | Path, check: int | None = 0, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `lvae` in this process; the exit code must be `check`."""
    from lvae.cli import main

    words = [str(argument) for argument in arguments]
    with contextlib.chdir(cwd or Path.cwd()):
        result = CliRunner().invoke(main, words, prog_name="lvae")
    stderr = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        stderr += "".join(traceback.format_exception(result.exception))
    return _checked(subprocess.CompletedProcess(words, result.exit_code, result.stdout, stderr), check)


def lvae_process(
    *arguments: str | Path, check: int | None = 0, cwd: Path | None = None, patience: float = 240
) -> "subprocess.CompletedProcess[str]":
    """Run `lvae` in a process of its own; the exit code must be `check`. patience: in seconds."""
    command = [sys.executable, "-m", "lvae", *map(str, arguments)]
    return _checked(subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=patience), check)


def _checked(done: "subprocess.CompletedProcess[str]", check: int | None) -> "subprocess.CompletedProcess[str]":
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that all test processes share and nobody writes to: the first one that asks for it makes it."""
    own = factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, done = root / f"once-{name}", root / f"once-{name}.done"
    with (root / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 labelled pictures of 32 px in eight class folders."""
    return make_once(tmp_path_factory, "scenes", lambda folder: write_scenes(folder, 48, 32, 0))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Photographs that a clone does not have: LVAE_SHARED_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LVAE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("needs the shared photographs")
    return folder
