"""The encoding job on other people's engines, with processes that die: the bytes of a run in this process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lvae.encode.feeding.settings import Feeding
from lvae.encode.scenes.make import write_scenes
from lvae.manifests import records
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam.work import PartsToEncode, Submission, ranges_of
from lvae.pipeline.planning.existing import Existing
from lvae.pipeline.planning.plan import EncodeOptions, prepare
from lvae.pipeline.planning.scan import ScanOptions
from tests.conftest import SMALL_KL, lvae_process
from tests.pipeline.cluster import Dask, Portable, dask, free_port, installed_at, portable
from tests.pipeline.faults import busy, contents, receipts, start, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.xdist_group("clusters")]
pytest.importorskip("distributed")

PICTURES = 96
PART_SIZE = 8
PATIENCE = 240  # seconds: other work may go on beside the tests


def command(
    world: Path | str, dataset: Path | str, engine: Sequence[str] = ("--workers", "1")
) -> tuple[str | Path, ...]:
    settings = ("--size", "64", "--part-size", str(PART_SIZE), "--shard-size", "64", "--shared-path")
    network = ("--autoencoder", SMALL_KL, "--weights", "random:0")
    return ("encode", world, dataset, *settings, *network, *engine)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_scenes(folder, PICTURES, 64, 5)
    return folder


@pytest.fixture(scope="module")
def right(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an undisturbed run in this process."""
    out = tmp_path_factory.mktemp("right") / "out"
    lvae_process(*command(world, out))
    return contents(out)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with dask(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture
def cluster(workers: Dask) -> Dask:
    """Whole again after the test before."""
    workers.mend()
    return workers


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portable]:
    with portable(tmp_path_factory.mktemp("pool")) as service:
        yield service


def test_workers_hold_the_wheel_and_nothing_of_this_tree(tmp_path: Path) -> None:
    assert installed_at(tmp_path).startswith(sys.prefix)


def test_dask_gives_the_bytes_of_the_job_in_one_process(
    world: Path, right: dict[str, str], cluster: Dask, tmp_path: Path
) -> None:
    told = lvae_process(*command(world, tmp_path / "out", cluster.options)).stderr
    assert f"2 workers at {cluster.address}, dashboard http://127.0.0.1" in told
    assert contents(tmp_path / "out") == right


def test_another_dataset_under_the_same_relative_name(
    world: Path, right: dict[str, str], cluster: Dask, tmp_path: Path
) -> None:
    """Workers outlive a job: what they remember of a dataset must not be taken for another one at the same place."""
    for seed in ("1", "0"):
        first, *rest = command(world, "out", cluster.options)
        lvae_process(first, *(f"random:{seed}" if word == "random:0" else word for word in rest), cwd=tmp_path)
        found = contents(tmp_path / "out")
        subprocess.run(["rm", "-r", str(tmp_path / "out")], check=True)
    assert found == right


def test_a_worker_that_is_killed_costs_nothing_but_time(
    world: Path, right: dict[str, str], cluster: Dask, tmp_path: Path
) -> None:
    job = start(*command(world, tmp_path / "out", cluster.options))
    wait_for("a receipt", lambda: receipts(tmp_path / "out"), PATIENCE)
    cluster.workers[0].kill()
    _, told = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, told
    assert contents(tmp_path / "out") == right


@pytest.mark.slow
def test_a_worker_that_stops_without_dying_is_left_behind(
    world: Path, right: dict[str, str], cluster: Dask, tmp_path: Path
) -> None:
    job = start(*command(world, tmp_path / "out", cluster.options))
    wait_for("a receipt", lambda: receipts(tmp_path / "out"), PATIENCE)
    cluster.workers[0].send_signal(signal.SIGSTOP)
    _, told = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, told
    assert "no worker gave a sign of life for 60 s" in told
    assert "no longer counted on" in told
    assert contents(tmp_path / "out") == right


@pytest.mark.parametrize("engine", ["dask", "portable"])
def test_every_task_twice_at_the_same_time_does_no_harm(
    engine: str, world: Path, right: dict[str, str], cluster: Dask, pool: Portable, tmp_path: Path
) -> None:
    """Two submissions of all parts at once; the engine knows nothing of it."""
    chosen = (cluster if engine == "dask" else pool).options
    folder = Folder(tmp_path / "out")
    options = EncodeOptions(SMALL_KL, "random:0", size=64, scan=ScanOptions(part_size=PART_SIZE))
    plan = prepare(folder, Existing(), str(world), options, lambda _: None)
    runner = {"--runner=dask": "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"}
    beam_options = tuple(runner.get(option, option) for option in chosen[1:] if option != "--runner=portable")
    beam_options += ("--runner=PortableRunner",) if engine == "portable" else ("--dask_partition_size=1",)
    work = PartsToEncode(folder.address, ranges_of(range(plan.listing.parts), 8), Feeding(("cpu",)))
    backwards = replace(work, parts=work.parts[::-1])
    running = []
    for submission in (
        Submission(work, beam_options, "one", watched=False),
        Submission(backwards, beam_options, "two", watched=False),
    ):
        spec = tmp_path / f"{submission.attempt}.json"
        spec.write_bytes(records.dumps(submission))
        running.append(subprocess.Popen([sys.executable, "-m", "lvae.pipeline.beam.submission", str(spec)]))
    assert [process.wait(200) for process in running] == [0, 0]
    assert len(receipts(tmp_path / "out")) == plan.listing.parts
    lvae_process(*command(world, tmp_path / "out"))
    assert contents(tmp_path / "out") == right


def test_the_portable_path_gives_the_same_bytes(
    world: Path, right: dict[str, str], pool: Portable, tmp_path: Path
) -> None:
    lvae_process(*command(world, tmp_path / "out", pool.options))
    assert contents(tmp_path / "out") == right


def test_a_killed_command_on_the_portable_path_goes_on_where_it_was(
    world: Path, right: dict[str, str], pool: Portable, tmp_path: Path
) -> None:
    job = start(*command(world, tmp_path / "out", pool.options))
    wait_for("some receipts", lambda: len(receipts(tmp_path / "out")) >= 3, PATIENCE)
    job.kill()
    job.communicate()
    lvae_process(*command(world, tmp_path / "out", pool.options))
    assert contents(tmp_path / "out") == right


# --- what a user can mend, said within half a minute ---------------------------------------------------------------


def refused(*arguments: str | Path, **more: str) -> str:
    begin = time.monotonic()
    environment = os.environ | more
    done = subprocess.run(
        [sys.executable, "-m", "lvae", *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - begin < 30 * busy()
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_scheduler_that_does_not_answer(world: Path, tmp_path: Path) -> None:
    place = f"tcp://127.0.0.1:{free_port()}"
    said = refused(*command(world, tmp_path / "out", ("--", "--runner=dask", f"--dask_client_address={place}")))
    assert said.startswith(f"lvae: {place}: no Dask scheduler answers there")


def test_a_scheduler_without_workers(world: Path, tmp_path: Path) -> None:
    with dask(tmp_path / "empty", workers=0) as empty:
        said = refused(*command(world, tmp_path / "out", empty.options))
    assert said.startswith(f"lvae: {empty.address}: the scheduler has no workers")


def test_no_scheduler_named(world: Path, tmp_path: Path) -> None:
    assert "needs a scheduler" in refused(*command(world, tmp_path / "out", ("--", "--runner=dask")))
    assert "needs a job service" in refused(*command(world, tmp_path / "out", ("--", "--runner=portable")))


def test_a_local_path_without_the_word_that_workers_see_it(world: Path, cluster: Dask, tmp_path: Path) -> None:
    words = [word for word in command(world, tmp_path / "out", cluster.options) if word != "--shared-path"]
    assert "Say --shared-path if they do" in refused(*words)


def test_workers_of_another_package(world: Path, tmp_path: Path) -> None:
    """As after an update of the command alone: their package lies elsewhere and differs by a line."""
    package = Path(installed_at(tmp_path)).parents[2]
    subprocess.run(["cp", "-rL", str(package), str(tmp_path / "lvae")], check=True)
    with (tmp_path / "lvae/encode/crops.py").open("a") as file:
        file.write("# another version\n")
    with dask(tmp_path / "dask", workers=0) as other:
        other.add_worker(PYTHONPATH=str(tmp_path))
        said = refused(*command(world, tmp_path / "out", other.options))
    assert "Install the same wheel everywhere" in said


def test_workers_without_the_package(world: Path, tmp_path: Path) -> None:
    (tmp_path / "lvae").mkdir()
    (tmp_path / "lvae/__init__.py").touch()
    with dask(tmp_path / "dask", workers=0) as bare:
        bare.add_worker(PYTHONPATH=str(tmp_path))
        said = refused(*command(world, tmp_path / "out", bare.options))
    assert "Install the same wheel there" in said


def test_a_job_service_that_does_not_answer(world: Path, pool: Portable, tmp_path: Path) -> None:
    nowhere = f"localhost:{free_port()}"
    for mine in ("--job_endpoint", "--environment_config"):
        options = [f"{mine}={nowhere}" if option.startswith(mine) else option for option in pool.options]
        said = refused(*command(world, tmp_path / "out", options))
        assert said.startswith(f"lvae: {mine}={nowhere}: nothing answers there")
