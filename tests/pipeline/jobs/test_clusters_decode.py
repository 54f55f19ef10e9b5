"""Pictures and features on other people's engines: the bytes of one process, with workers that die."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lvae.encode.scenes.make import write_scenes
from lvae.manifests.parts.decoded_parts import PARTS
from tests.conftest import SMALL_KL, lvae_process
from tests.pipeline.cluster import Dask, Portable, dask, portable
from tests.pipeline.faults import start, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.xdist_group("pictures")]
pytest.importorskip("distributed")

PATIENCE = 240  # seconds: other work may go on beside the tests
JOB = ("--part-size", "32", "--shared-path")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_scenes(folder / "scenes", 200, 64, 5)
    settings = ("--size", "64", "--shard-size", "64", "--workers", "1")
    lvae_process(
        "encode", folder / "scenes", folder / "out", *settings, "--autoencoder", SMALL_KL, "--weights", "random:0"
    )
    return folder / "out"


@pytest.fixture(scope="module")
def right(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("right") / "images.npz"
    lvae_process("decode", dataset, out)
    return out.read_bytes()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with dask(tmp_path_factory.mktemp("dask")) as found:
        yield found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portable]:
    with portable(tmp_path_factory.mktemp("pool")) as service:
        yield service


def test_the_portable_path_decodes_the_bytes_of_one_process(
    dataset: Path, right: bytes, pool: Portable, tmp_path: Path
) -> None:
    lvae_process("decode", dataset, tmp_path / "images.npz", *JOB, *pool.options)
    assert (tmp_path / "images.npz").read_bytes() == right


def test_features_on_dask_are_those_of_one_process(dataset: Path, cluster: Dask, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):  # torch prefers torch.export, whose files it unpickles
        traced = torch.jit.trace(_Means(), torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    traced.save(str(tmp_path / "network.pt"))
    for name, more in (("one", ()), ("many", (*JOB, *cluster.options))):
        lvae_process("features", dataset, tmp_path / f"{name}.npz", "--features", tmp_path / "network.pt", *more)
    assert (tmp_path / "many.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


class _Means(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mean((2, 3))


def test_a_killed_worker_and_a_killed_command_on_dask_cost_nothing_but_time(
    dataset: Path, right: bytes, cluster: Dask, tmp_path: Path
) -> None:
    out = tmp_path / "images.npz"
    command: tuple[str | Path, ...] = ("decode", dataset, out, *JOB, *cluster.options)
    job = start(*command)
    wait_for("a receipt", lambda: receipts(out), PATIENCE)
    cluster.workers[0].kill()
    cluster.workers[0].wait()
    job.kill()
    job.communicate()
    cluster.mend()
    code, told = _run(*command)
    assert code == 0, told
    assert out.read_bytes() == right
    assert not (tmp_path / "images.npz.parts").exists()


def receipts(out: Path) -> list[Path]:
    return list((out.parent / f"{out.name}.parts" / PARTS).glob("part-*.json"))


def _run(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "lvae", *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stderr


def test_workers_that_would_not_see_the_parts_are_refused(dataset: Path, cluster: Dask, tmp_path: Path) -> None:
    code, told = _run("decode", dataset, tmp_path / "images.npz", *cluster.options)
    assert code == 1
    assert "Say --shared-path if they do" in told
