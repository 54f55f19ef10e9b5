"""Is a worker fit for a job? The same package, and the dataset and the images where the command has them.

Engines that let a command speak with their workers ask
before the job; in all others each worker asks itself with its first task.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.open import folder_at

FOLDERS = ("manifests", "encode", "evaluate", "pipeline")  # whose code workers run
LIBRARIES = ("torch", "numpy", "pillow")  # which have a say in the last bits of latents


@lru_cache
def package() -> str:
    """The version, and the first digits of a hash over the code that workers run: equal where both are."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return f"latent-vae {importlib.metadata.version('latent-vae')}, code {digest.hexdigest()[:12]}"


def libraries() -> str:
    """Versions that should be alike on all workers, for a person."""
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return f"Python {platform.python_version()}, {found}"


def refuse_other_package(expected: str) -> None:
    """LvaeError where this process runs another package than the command that submitted the job."""
    if package() != expected:
        raise LvaeError(
            "",
            f"the worker on {socket.gethostname()} runs {package()}, and this command {expected}",
            "Install the same wheel everywhere, then start the workers anew.",
        )


def find_worker_number() -> int:
    """Which of its engine's workers on this machine this process is, as far as the engine says; otherwise 0.

    Beam numbers its workers in WORKER_ID. Dask's have names, which end in a number where several were started under
    one name; those that were given GPUs of their own, as dask-cuda does, take the first that they see.
    """
    name = os.environ.get("WORKER_ID", "")
    if "distributed.worker" in sys.modules and not name and "CUDA_VISIBLE_DEVICES" not in os.environ:
        from distributed import get_worker

        with suppress(ValueError):  # not in a task of Dask's
            name = str(get_worker().name)
    found = re.search(r"(?:^|[-_])(\d{1,9})$", name)
    return int(found[1]) if found else 0


@dataclass(frozen=True)
class Question:
    """What a command asks of a worker.

    probe: a file of the dataset's folder and what it holds. source: of the images; None where no file is needed.
    """

    package: str
    dataset: str
    probe: tuple[str, bytes]
    source: str | None


@dataclass(frozen=True)
class Answer:
    """error: why the worker cannot do the job, if it cannot."""

    error: LvaeError | None
    libraries: str


def answer(question: Question) -> Answer:
    """A worker's side."""
    error = None
    try:
        refuse_other_package(question.package)
        _refuse_other_view(question)
    except LvaeError as found:
        error = found
    return Answer(error, libraries())


def _refuse_other_view(question: Question) -> None:
    """LvaeError where the dataset's folder or the images are not what the command sees under these names."""
    host, (name, content) = socket.gethostname(), question.probe
    try:
        found = folder_at(question.dataset).read_if_there(name)
    except OSError as error:
        raise LvaeError(question.dataset, f"the worker on {host} cannot read there ({error})") from error
    if found != content:
        raise LvaeError(
            question.dataset, f"the worker on {host} sees another folder there", "Name one on storage that all share."
        )
    if question.source is not None and "://" not in question.source and not _is_there(question.source):
        raise LvaeError(question.source, f"the worker on {host} does not see it", "Put it on storage that all share.")


def _is_there(source: str) -> bool:
    """A path, or a pattern in the folder before its first wild character."""
    fixed = source
    for wild in "*?[{":
        fixed = fixed.split(wild, 1)[0]
    return Path(source).exists() or Path(fixed).parent.exists()
