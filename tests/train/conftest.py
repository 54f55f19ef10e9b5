"""A little dataset for whole runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import lvae, make_once


@pytest.fixture(scope="session")
def latents(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8x8 latents of 3 channels of 48 scenes and their mirrors in eight classes, a fifth of them held out."""
    settings = ("--autoencoder", "pixels-f4", "--size", "32", "--mirror", "--split", "val=20%", "--workers", "1")
    return (
        make_once(tmp_path_factory, "latents", lambda root: lvae("encode", scenes, root / "latents", *settings))
        / "latents"
    )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tests run beside one another: threads that wait for each other would take most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
