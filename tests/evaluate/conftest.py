"""A little dataset and a run on it, one of each for a module."""

from pathlib import Path

import pytest

from lvae.manifests.dataset import Dataset
from tests.evaluate import run_examples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run_examples.dataset(tmp_path_factory.mktemp("data") / "dataset")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    return run_examples.run(tmp_path_factory.mktemp("run") / "run", data)
