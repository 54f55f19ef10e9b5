"""Engines on this machine, as separate as they would be elsewhere: processes that hold the installed wheel and nothing
of this source tree, reached over TCP."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.pipeline.faults import wait_for


def environment() -> dict[str, str]:
    """Without the source tree; `python` is the interpreter of this environment."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return inherited | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


class Processes:
    """Started in a folder of their own, ended together."""

    def __init__(self, root: Path):
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.started = root, list["subprocess.Popen[bytes]"]()

    def start(self, *command: str | Path, **more: str) -> "subprocess.Popen[bytes]":
        log = (self.root / f"{len(self.started)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=self.root,
            env=environment() | more,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Dask(Processes):
    """A scheduler and two workers of one thread. more: their environment, beside that of the tests."""

    def __init__(self, root: Path, workers: int = 2, **more: str):
        super().__init__(root)
        self._more = more
        self.port = free_port()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()
        for _ in range(workers):
            self.add_worker()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def options(self) -> tuple[str, ...]:
        return ("--", "--runner=dask", f"--dask_client_address={self.address}")

    def start_scheduler(self) -> None:
        options = ("--host", "127.0.0.1", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0")
        self.scheduler = self.start("-m", "dask", "scheduler", *options)
        wait_for("the scheduler", lambda: listens(self.port))

    def add_worker(self, **more: str) -> "subprocess.Popen[bytes]":
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.root))
        environment = self._more | more
        self.workers.append(self.start("-m", "dask", "worker", self.address, *options, **environment))
        return self.workers[-1]

    def mend(self, stopped: bool = True) -> None:
        """Everything that was killed, and what was stopped too, anew."""
        if self.scheduler.poll() is not None:
            for worker in self.workers:  # they leave with their scheduler, sooner or later
                worker.kill()
                worker.wait()
            self.start_scheduler()
        alive = []
        for worker in self.workers:
            if stopped and worker.poll() is None and _is_stopped(worker.pid):
                worker.kill()
                worker.wait()
            if worker.poll() is None:
                alive.append(worker)
        missing, self.workers = len(self.workers) - len(alive), alive
        for _ in range(missing):
            self.add_worker()


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def dask(root: Path, workers: int = 2, **more: str) -> Iterator[Dask]:
    cluster = Dask(root, workers, **more)
    try:
        yield cluster
    finally:
        cluster.end()


class Portable(Processes):
    """Beam's job service, and a pool that starts workers for it."""

    def __init__(self, root: Path, **more: str):
        """more: the environment of the workers, beside that of the tests."""
        super().__init__(root)
        self._more = more
        self.job_port, self.pool_port = free_port(), free_port()
        self._start_both()

    def _start_both(self) -> None:
        service = "apache_beam.runners.portability.local_job_service_main"
        self.service = self.start("-m", service, "--port", str(self.job_port))
        pool = ("-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={self.pool_port}")
        self.pool = self.start(*pool, **self._more)
        wait_for("the job service and the pool", lambda: listens(self.job_port) and listens(self.pool_port))

    @property
    def workers(self) -> list[int]:
        """Processes of the pool, which starts some for each job."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pool.pid).children()
            return [one.pid for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        return []

    def mend(self, stopped: bool = True) -> None:
        """What was killed anew; a job service that is gone takes its workers along. stopped: and all that was."""
        if stopped:
            for worker in self.workers:
                if _is_stopped(worker):
                    os.kill(worker, signal.SIGKILL)
        if self.service.poll() is not None or self.pool.poll() is not None:
            self.end()
            wait_for("the ports", lambda: not listens(self.job_port) and not listens(self.pool_port))
            self._start_both()

    @property
    def options(self) -> tuple[str, ...]:
        return (
            "--",
            "--runner=portable",
            f"--job_endpoint=localhost:{self.job_port}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{self.pool_port}",
        )


@contextmanager
def portable(root: Path, **more: str) -> Iterator[Portable]:
    service = Portable(root, **more)
    try:
        yield service
    finally:
        service.end()


def installed_at(root: Path) -> str:
    """Where workers find the package."""
    code = "import json, lvae.pipeline.beam.worker_check as w; print(json.dumps(w.__file__))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment(), capture_output=True, check=True)
    return str(json.loads(done.stdout))
