"""Faults drawn by seed, at random moments of a job; then the same command until it ends by itself.

Encoding has a process beside each worker that opens its images.

| fault | in-process, 2 workers | Dask, 2 workers (Beam's job service: its own) |
|---|---|---|
| kill: command, worker, both workers, worker and command | yes | yes |
| kill: scheduler | the process that holds Beam's runner | the scheduler |
| pause for seconds (SIGSTOP, SIGCONT): command, worker, scheduler | yes | yes |
| kill, pause for seconds: a process that opens images for a worker | yes | yes |
| stop a worker for good (SIGSTOP) | yes | yes |
| slow a worker down (SIGSTOP and SIGCONT in turn) | yes | yes |
| full disk | where a small file system can be mounted | the same |
| failing writes | command and workers | command and workers |
| every execution twice | a second submission beside the command's | the same, to the same scheduler |
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lvae.encode.feeding.settings import Feeding
from lvae.encode.scenes.make import write_scenes
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.parts.decoded_parts import read_decode_plan
from lvae.manifests.parts.plan import read_plan_if_whole
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.view import read_view
from lvae.pipeline.beam.work import PartsToDecode, PartsToEncode, StepsToDo, Submission, ranges_of
from tests.conftest import SMALL_KL, lvae_process
from tests.pipeline.cluster import Dask, Portable
from tests.pipeline.faults import busy, children, contents, opening_processes, receipts, worker_processes

PICTURES, PART_SIZE, PARTS, SHARDS = 96, 6, 16, 2
DECODED, DECODED_PART = 256, 32
DISK_MIB = 100
HANG_SECONDS = 120.0  # 60 s without progress end a submission; to take it off an engine and ask its workers, some 35 s
FAILING_WRITES = Path(__file__).parent / "failing_writes"
SETTINGS = ("--size", "64", "--part-size", str(PART_SIZE), "--shard-size", "64", "--shared-path")
NETWORK = ("--autoencoder", SMALL_KL, "--weights", "random:0")

PEOPLE = ("command", "worker", "workers", "worker and command", "scheduler", "opener")
FAULTS = (
    *(f"kill {who}" for who in PEOPLE),
    *(f"pause {who}" for who in ("command", "worker", "scheduler", "opener")),
    "stop worker",
    "slow worker",
    "full disk",
    "failing writes",
    "everything twice",
)


class Engine(Protocol):
    """Where the job runs, and whom a fault can meet there."""

    name: str

    def options(self) -> tuple[str, ...]: ...
    def submission_options(self) -> tuple[str, ...]: ...
    def workers(self, command: int) -> list[int]: ...
    def scheduler(self, command: int) -> list[int]: ...
    def mend(self, stopped: bool = False) -> None: ...


class InProcess:
    name = "in-process"

    def options(self) -> tuple[str, ...]:
        return ("--workers", "2")

    def submission_options(self) -> tuple[str, ...]:
        return ("--runner=FnApiRunner", "--direct_running_mode=in_memory")

    def workers(self, command: int) -> list[int]:
        return worker_processes(command)

    def scheduler(self, command: int) -> list[int]:
        return children(command)

    def mend(self, stopped: bool = False) -> None:
        """Each command starts its own."""


class OnDask:
    name = "dask"

    def __init__(self, cluster: Dask):
        self._cluster = cluster

    def options(self) -> tuple[str, ...]:
        return self._cluster.options

    def submission_options(self) -> tuple[str, ...]:
        runner = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"
        return (runner, f"--dask_client_address={self._cluster.address}", "--dask_partition_size=1")

    def workers(self, command: int) -> list[int]:
        return [worker.pid for worker in self._cluster.workers if worker.poll() is None]

    def scheduler(self, command: int) -> list[int]:
        return [self._cluster.scheduler.pid] if self._cluster.scheduler.poll() is None else []

    def mend(self, stopped: bool = False) -> None:
        self._cluster.mend(stopped)


class OnPortable:
    name = "portable"

    def __init__(self, service: Portable):
        self._service = service

    def options(self) -> tuple[str, ...]:
        return self._service.options

    def submission_options(self) -> tuple[str, ...]:
        return ("--runner=PortableRunner", *self._service.options[2:])

    def workers(self, command: int) -> list[int]:
        return self._service.workers

    def scheduler(self, command: int) -> list[int]:
        return [self._service.service.pid] if self._service.service.poll() is None else []

    def mend(self, stopped: bool = False) -> None:
        self._service.mend(stopped)


@dataclass(frozen=True)
class Outcome:
    """One seed. faults: those that met the job. codes: of the commands, the last one 0. quiet: the longest time in
    which neither a receipt nor a submission appeared or ended. last_words: of the commands that failed."""

    engine: str
    seed: int
    faults: tuple[str, ...]
    codes: tuple[int, ...]
    seconds: float
    quiet: float
    last_words: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """pictures: a source. right: name -> sha256 of every file of its dataset. latents: another dataset. images: the
    archive of its pictures. All from undisturbed runs."""

    pictures: Path
    right: dict[str, str]
    latents: Path
    images: Path

    @classmethod
    def make(cls, root: Path) -> "World":
        """Or what was made there before."""
        pictures, right, latents, images = (root / name for name in ("pictures", "right", "latents", "images.npz"))
        if not images.exists():
            write_scenes(pictures, PICTURES, 64, 5)
            patience = 240 * busy()
            lvae_process("encode", pictures, right, *SETTINGS, *NETWORK, "--workers", "1", patience=patience)
            size = ("--size", "64", "--workers", "1")
            lvae_process("encode", f"synthetic:{DECODED}?size=64", latents, *size, *NETWORK, patience=patience)
            lvae_process("decode", latents, images, patience=patience)
        assert len(Dataset.open(right).labels) == PICTURES
        assert len(Dataset.open(latents).labels) == DECODED
        assert len(receipts(right)) == PARTS
        return cls(pictures, contents(right), latents, images)


class Work(Protocol):
    """A job in the folder `place`."""

    name: str

    def command(self, place: Path) -> tuple[str | Path, ...]: ...
    def progress(self, place: Path) -> float:
        """From 0 to 1 by parts, on to 2 by what they become."""

    def submission(self, place: Path, options: tuple[str, ...], attempt: str) -> Submission | None:
        """What the command has submitted, or will; None where that cannot be told yet."""

    def check(self, place: Path, story: str) -> None:
        """AssertionError where the result is not that of an undisturbed run."""


class Encoding:
    name = "encoding"

    def __init__(self, world: World):
        self._world = world

    def command(self, place: Path) -> tuple[str | Path, ...]:
        return ("encode", self._world.pictures, place / "out", *SETTINGS, *NETWORK, "--decode-workers", "1")

    def progress(self, place: Path) -> float:
        shards = len(list((place / "out").glob("shards/*/shard-*.json")))
        return len(receipts(place / "out")) / PARTS + shards / SHARDS

    def submission(self, place: Path, options: tuple[str, ...], attempt: str) -> Submission | None:
        folder = Folder(place / "out")
        plan = read_plan_if_whole(folder)
        if plan is None:
            return None
        views = [path.parent.name for path in folder.local("").glob("shards/*/view.json")]
        layouts = read_view(folder, views[0]).layouts.items() if views else ()
        shards = ranges_of(range(sum(layout.shards for _, layout in layouts)), 8)
        parts = ranges_of(range(plan.listing.parts), 8)
        work = (
            StepsToDo(folder.address, folder.address, "shard", views[0], plan.sha256, shards, "")
            if shards
            else PartsToEncode(folder.address, parts, Feeding(("cpu",), decoders=1))
        )
        return Submission(work, options, attempt, watched=False)

    def check(self, place: Path, story: str) -> None:
        right, found = self._world.right, contents(place / "out")
        differing = sorted(name for name in found | right if found.get(name) != right.get(name))
        assert not differing, f"{story}: other bytes in {differing}"
        lvae_process("verify", "--deep", place / "out", patience=240 * busy())


class Decoding:
    name = "decoding"

    def __init__(self, world: World):
        self._world = world

    def command(self, place: Path) -> tuple[str | Path, ...]:
        job = ("--part-size", str(DECODED_PART), "--shared-path")
        return ("decode", self._world.latents, place / "images.npz", *job)

    def progress(self, place: Path) -> float:
        if (place / "images.npz").exists():
            return 2.0
        done = len(list((place / "images.npz.parts" / "parts").glob("part-*.json"))) * DECODED_PART / DECODED
        with suppress(FileNotFoundError):  # not begun, or has just got its name
            done += (place / ".images.npz.unfinished").stat().st_size / self._world.images.stat().st_size
        return done

    def submission(self, place: Path, options: tuple[str, ...], attempt: str) -> Submission | None:
        folder = Folder(place / "images.npz.parts")
        plan = read_decode_plan(folder)
        if plan is None:
            return None
        work = PartsToDecode(folder.address, ranges_of(range(plan.parts), 8), ("cpu",))
        return Submission(work, options, attempt, watched=False)

    def check(self, place: Path, story: str) -> None:
        same = (place / "images.npz").read_bytes() == self._world.images.read_bytes()
        assert same, f"{story}: other bytes"


WORKS: dict[str, Callable[[World], Work]] = {"encoding": Encoding, "decoding": Decoding}


def write_switch(root: Path) -> Path:
    """While this file exists, writes to the disk under this folder fail now and then."""
    return root / "writes-fail"


def failing_writes(root: Path) -> dict[str, str]:
    """The environment in which they can."""
    return {"PYTHONPATH": str(FAILING_WRITES), "LVAE_FAILING_WRITES": f"{root / 'disk'}:{write_switch(root)}"}


@contextmanager
def disk(place: Path) -> Iterator[bool]:
    """A folder of its own: a small file system, or a plain one where none can be mounted. Says which."""
    place.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)]
    small = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield small
    finally:
        if small:
            subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)  # executions that nobody waits for may still write


def run(engine: Engine, seed: int, work: Work, root: Path) -> Outcome:
    """Hurt the job, give the command until it ends by itself, compare; AssertionError where anything is wrong.

    root: where the engine's workers were told that writes may fail.
    """
    place = root / "disk" / f"{seed}-{uuid.uuid4().hex[:8]}"
    named = engine.name if work.name == "encoding" else f"{engine.name} {work.name}"
    with disk(place) as small:
        job = _Job(engine, work, root, place, random.Random(f"{named} {seed}"), small)
        try:
            job.to_its_end()
        finally:
            job.clear_up()
        work.check(place, job.story())
    return job.outcome(seed)


class _Job:
    """The command, again and again, and the faults that are still to meet it."""

    def __init__(self, engine: Engine, work: Work, root: Path, place: Path, draw: random.Random, small: bool):
        self._engine, self._work, self._root, self._draw = engine, work, root, draw
        self._place, self._filler = place, place / "filler"
        possible = [fault for fault in FAULTS if small or fault != "full disk"]
        moments = sorted(draw.uniform(-0.3, 1.4) for _ in range(draw.choice((1, 2, 2, 3))))
        self._waiting = [(moment, draw.choice(possible)) for moment in moments]
        self._met, self._codes, self._last_words = list[str](), list[int](), list[str]()
        self._stopped, self._doubles = list[int](), list["subprocess.Popen[bytes]"]()
        self._begin = self._changed_at = time.monotonic()
        self._quiet, self._state = 0.0, object()

    def to_its_end(self) -> None:
        while not self._codes or self._codes[-1] != 0:
            assert len(self._codes) < 8, f"does not end by itself: {self.story()}"
            self._once()

    def _once(self) -> None:
        arguments = (*self._work.command(self._place), *self._engine.options())
        log = self._root / f"{len(self._codes)}.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lvae", *map(str, arguments)],
                cwd=Path(__file__).parents[2],
                env=os.environ | failing_writes(self._root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            while self._waiting and self._until(self._waiting[0][0]):
                _, fault = self._waiting.pop(0)
                self._met.append(f"{fault} at {self._progress():.2f}")
                self._hurt(fault)
                self._watch(self._draw.uniform(0, 5))
                self._engine.mend()
            self._watch(float("inf"))
        finally:
            self._process.kill()
            self._process.wait()
            self._restore()
        self._codes.append(self._process.returncode)
        said = log.read_text(errors="replace").replace("\r", "\n").splitlines()
        self._last_words.append(said[-1] if said else "")

    def _until(self, moment: float) -> bool:
        """Wait for a share of the work to be done (before 0: for up to ten seconds), and a little; False at the end."""
        self._watch(self._draw.uniform(0, 10) if moment < 0 else float("inf"), lambda: self._progress() >= moment > 0)
        return self._watch(self._draw.uniform(0, 0.5))

    def _progress(self) -> float:
        return self._work.progress(self._place)

    def _hurt(self, fault: str) -> None:
        what, _, who = fault.partition(" ")
        match what:
            case "kill":
                for pid in self._people(who):
                    _signal(pid, signal.SIGKILL)
            case "pause":
                self._stop(self._people(who))
                self._watch(self._draw.uniform(1, 8))
                self._go_on()
            case "stop":
                self._stop(self._people(who))
            case "slow":
                victims, end = self._people(who), time.monotonic() + self._draw.uniform(3, 10)
                while time.monotonic() < end and self._process.poll() is None:
                    self._stop(victims)
                    self._watch(0.4)
                    self._go_on()
                    self._watch(0.1)
            case "full":
                with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
                    while True:
                        filler.write(bytes(1 << 12))
                self._watch(self._draw.uniform(1, 15))
                self._restore()
            case "failing":
                write_switch(self._root).touch()
                self._watch(self._draw.uniform(1, 10))
                self._restore()
            case "everything":
                self._submit_again()

    def _people(self, who: str) -> list[int]:
        workers = self._engine.workers(self._process.pid)
        one = [self._draw.choice(workers)] if workers else []
        mine, openers = [self._process.pid], opening_processes(workers)
        return {
            "command": mine,
            "worker": one,
            "workers": workers,
            "worker and command": one + mine,
            "scheduler": self._engine.scheduler(self._process.pid),
            "opener": [self._draw.choice(openers)] if openers else [],
        }[who]

    def _submit_again(self) -> None:
        """To the engine, behind the command's back."""
        attempt = f"double-{len(self._doubles)}"
        submission = self._work.submission(self._place, self._engine.submission_options(), attempt)
        if submission is None:
            return
        spec = self._root / f"{attempt}.json"
        spec.write_bytes(records.dumps(submission))
        with (self._root / f"{attempt}.log").open("wb") as output:
            double = [sys.executable, "-m", "lvae.pipeline.beam.submission", str(spec)]
            self._doubles.append(subprocess.Popen(double, stdout=output, stderr=output))

    def _stop(self, pids: list[int]) -> None:
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        self._stopped += pids

    def _go_on(self) -> None:
        for pid in self._stopped:
            _signal(pid, signal.SIGCONT)
        self._stopped.clear()

    def _restore(self) -> None:
        """What a person would, before giving the command again."""
        write_switch(self._root).unlink(missing_ok=True)
        self._filler.unlink(missing_ok=True)
        if self._process.poll() is not None:
            self._engine.mend(stopped=True)
            self._go_on()

    def clear_up(self) -> None:
        for double in self._doubles:
            with suppress(subprocess.TimeoutExpired):
                double.wait(60)
            double.kill()
            double.wait()

    def _watch(self, seconds: float, condition: Callable[[], bool] = lambda: False) -> bool:
        """Wait; False once the command has ended. AssertionError where nothing happens for long."""
        end = time.monotonic() + seconds
        while self._process.poll() is None:
            now = time.monotonic()
            state = (len(self._codes), self._progress(), children(self._process.pid))
            if state != self._state:
                self._state, self._changed_at = state, now
            self._quiet = max(self._quiet, now - self._changed_at)
            assert now - self._changed_at < HANG_SECONDS * busy(), f"hangs: {self.story()}"
            if now >= end or condition():
                return True
            time.sleep(0.05)
        return False

    def story(self) -> str:
        return json.dumps({"met": self._met, "codes": self._codes, "said": self._last_words})

    def outcome(self, seed: int) -> Outcome:
        seconds = time.monotonic() - self._begin
        words = tuple(self._last_words[:-1])
        return Outcome(self._engine.name, seed, tuple(self._met), tuple(self._codes), seconds, self._quiet, words)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)
