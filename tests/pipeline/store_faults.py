"""Faults of storage and of processes, drawn by seed, over little datasets on a disk and on an S3 server.

- straggler: attempts at parts and shards stop at any step, and go on before, while or after another command finishes
  the dataset and perhaps drops its raw parts.
- lease: a command stops at any step, and goes on or is killed; on a disk a second one is refused or finishes, on S3
  the lease runs out and the second one takes over.
- outage: for a while file operations fail with EIO; on S3 requests get 503, 500, SlowDown or no answer, or are
  carried out unanswered.

Every seed ends in the bytes of an undisturbed run, or in a clear end (one of ENDS) after which the same command
makes them.
"""

import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lvae.manifests.storage.folder import Folder
from tests.pipeline.attempts import LEASE_SECONDS, Attempt, End, begin, make_parts, prepare_view, settings
from tests.pipeline.bad_s3 import Store
from tests.pipeline.faults import NOT_OF_THE_DATASET, contents

WHATS, PLACES = ("straggler", "lease", "outage"), ("disk", "S3")
LAST_STEP = {"disk": {"part": 8, "shard": 19, "command": 110}, "S3": {"part": 5, "shard": 11, "command": 60}}
HANG_SECONDS = 120.0
ENDS = (
    "another lvae command is writing here",
    "another lvae command has taken over while this one was stopped",
    "another command has written it meanwhile",
    "the storage failed for",
)


@dataclass(frozen=True)
class Outcome:
    """One seed. story: what happened, in order."""

    seed: int
    what: str
    place: str
    seconds: float
    story: tuple[str, ...]


class Worker:
    """A process that makes attempts."""

    def __init__(self, environment: dict[str, str]):
        self._environment = environment
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.attempts"],
            cwd=Path(__file__).parents[2],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.stopped = self.busy = False

    def begin(self, attempt: Attempt) -> None:
        assert self._process.stdin is not None and not self.busy
        self._process.stdin.write(json.dumps(asdict(attempt)) + "\n")
        self._process.stdin.flush()
        self.busy = True

    def wait(self, seconds: float = HANG_SECONDS) -> End | None:
        """How the attempt ended; None where it has stopped, or so much time has passed."""
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while self.busy and not self.stopped:
            if select.select([self._process.stdout], [], [], 0.005)[0]:
                self.busy = False
                line = self._process.stdout.readline()
                assert line, "an attempt's process has died"
                return End(**json.loads(line))
            pid, status = os.waitpid(self._process.pid, os.WUNTRACED | os.WNOHANG)
            self.stopped = pid != 0 and os.WIFSTOPPED(status)
            if time.monotonic() > end:
                assert seconds < HANG_SECONDS, "hangs"
                break
        return None

    def go_on(self) -> None:
        self.stopped = False
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._start()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass
class World:
    """Three workers, a store, and what undisturbed commands make: (format, dropped) -> name -> sha256."""

    root: Path
    store: Store
    workers: list[Worker]
    right: dict[tuple[str, bool], dict[str, str]] = field(default_factory=dict)

    def run(self, seed: int) -> Outcome:
        """AssertionError where the seed does not end as it must."""
        what, place = WHATS[seed % 3], PLACES[seed // 3 % 2]
        start, fault = time.monotonic(), _Fault(self, seed, place)
        try:
            getattr(fault, what)()
        except AssertionError as error:
            raise AssertionError(f"{error}; seed {seed}, {what} on {place}: {'; '.join(fault.story)}") from error
        finally:
            fault.clear_up()
        return Outcome(seed, what, place, time.monotonic() - start, tuple(fault.story))

    def begin(self, place: str, name: str) -> str:
        """The path or URL of a dataset without parts."""
        path = self.root / "disk" / name
        begin(Folder(path))
        if place == "disk":
            return str(path)
        self.files().put(f"{path}/", f"latents/{name}/", recursive=True)
        return f"s3://latents/{name}"

    def files(self) -> Any:
        from s3fs import S3FileSystem  # type: ignore[import-not-found]

        url = self.store.environment["AWS_ENDPOINT_URL"]
        return S3FileSystem(key="x", secret="x", endpoint_url=url, use_listings_cache=False)

    def contents(self, root: str) -> dict[str, str]:
        if "://" not in root:
            return contents(Path(root))
        prefix = root.removeprefix("s3://") + "/"
        found = self.files().cat(self.files().find(prefix))
        names = {name.removeprefix(prefix): hashlib.sha256(data).hexdigest() for name, data in found.items()}
        return {name: digest for name, digest in names.items() if not name.startswith(NOT_OF_THE_DATASET)}

    def expected(self, attempt: Attempt) -> dict[str, str]:
        key = (attempt.format, attempt.dropped)
        if key not in self.right:
            root = self.begin("disk", f"right-{attempt.format}-{attempt.dropped}")
            self.workers[0].begin(Attempt("command", root, format=attempt.format, dropped=attempt.dropped))
            assert (end := self.workers[0].wait()) == End("done"), end
            self.right[key] = contents(Path(root))
        return self.right[key]


class _Fault:
    """One seed. first: the command whose dataset it is; the others work at the same."""

    def __init__(self, world: World, seed: int, place: str):
        self._world, self._place, self.story = world, place, list[str]()
        self._draw = random.Random(f"storage {seed}")
        self._first, self._second, self._third = world.workers
        form, dropped = self._draw.choice(("zarr", "webdataset")), self._draw.random() < 0.3
        self._expected = world.expected(Attempt("command", "", format=form, dropped=dropped))
        self._name = f"{seed}-{random.randrange(1 << 40):010x}"
        self._root = world.begin(place, self._name)
        verified = self._draw.random() < 0.2
        self._command = Attempt("command", self._root, format=form, dropped=dropped, verified=verified)

    def straggler(self) -> None:
        draw, sort = self._draw, self._draw.choice(("part", "shard"))
        if sort == "shard":
            self._make_up_to_the_shards()
        stragglers = [self._second, self._third][: draw.randint(1, 2)]
        waking = [draw.choice(("before", "while", "after")) for _ in stragglers]
        for worker, when in zip(stragglers, waking, strict=True):
            seed = draw.randint(0, 1) if when == "after" and sort == "part" else 0
            before_its_receipt = 3 if self._place == "S3" else 2
            step = draw.randint(1, before_its_receipt if seed else LAST_STEP[self._place][sort])
            number = draw.randint(0, 1)
            worker.begin(Attempt(sort, self._root, number, seed, step, self._command.format))
            self._note(f"{sort} {number} seed {seed} stops at {step}, goes on {when}", worker.wait(), worker)
        self._wake(stragglers, waking, "before")
        self._first.begin(self._command)
        self._note("command", self._first.wait(draw.uniform(0, 0.3)), self._first)
        self._wake(stragglers, waking, "while")
        if self._first.busy:
            self._note("command", self._first.wait(), self._first)
        made = self._world.contents(self._root)
        self._wake(stragglers, waking, "after")
        for worker in stragglers:
            worker.wait()
        left = self._world.contents(self._root)
        assert {name: left.get(name) for name in made} == made, "a straggler changed a finished dataset"
        self._finish()

    def _make_up_to_the_shards(self) -> None:
        from lvae.manifests.parts.plan import read_plan

        folder = Folder(self._world.root / "disk" / self._name)
        plan = read_plan(folder)
        assert plan is not None
        make_parts(folder, plan, 0)
        prepare_view(folder, plan, settings(self._command))
        if self._place == "S3":
            self._world.files().put(f"{folder.root}/", f"latents/{self._name}/", recursive=True)

    def lease(self) -> None:
        draw = self._draw
        self._first.begin(
            Attempt(**asdict(self._command) | {"step": draw.randint(1, LAST_STEP[self._place]["command"])})
        )
        self._note("first", self._first.wait(), self._first)
        if self._first.stopped and draw.random() < 0.2:
            time.sleep(draw.uniform(0, 2 * LEASE_SECONDS))
            self._go_on(self._first)
        elif self._first.stopped and draw.random() < 0.3:
            self._first.kill()
            self.story.append("first is killed")
        self._second.begin(self._command)
        self._note("second", self._second.wait(draw.uniform(0, 3 * LEASE_SECONDS)), self._second)
        if self._first.stopped:
            self._go_on(self._first)
        for worker, who in ((self._first, "first"), (self._second, "second")):
            if worker.busy:
                self._note(who, worker.wait(), worker)
        self._finish()

    def outage(self) -> None:
        draw = self._draw
        begins = 1.2 if self._place == "S3" else 0.3
        since, lasts, share = draw.uniform(0, begins), draw.uniform(0.05, 1.5), draw.choice((0.2, 0.6, 1.0))
        limit = draw.choice((0.3, 1.0, 20.0))
        self.story.append(f"{share:.0%} fail from {since:.2f} s for {lasts:.2f} s, patience {limit} s")
        eio = (draw.randrange(1 << 30), share, since, since + lasts) if self._place == "disk" else None
        self._first.begin(Attempt(**asdict(self._command) | {"patience": limit, "eio": eio}))
        early = self._first.wait(since)
        if self._place == "S3":
            self._world.store.fails(share, draw.randrange(1 << 30))
            early = early or self._first.wait(lasts)
            self._world.store.fails(0)
        self._note("first", early or self._first.wait(), self._first)
        self._finish()

    # --- what a seed is made of --------------------------------------------------------------------------------------

    def _go_on(self, worker: Worker) -> None:
        worker.go_on()
        self.story.append("goes on")

    def _wake(self, workers: list[Worker], waking: list[str], when: str) -> None:
        for worker, its in zip(workers, waking, strict=True):
            if its == when and worker.stopped:
                worker.go_on()
                if when == "before":
                    self._note("straggler", worker.wait(), worker)

    def _note(self, who: str, end: End | None, worker: Worker) -> None:
        """Say how an attempt ended. AssertionError where that is none of the clear ends."""
        if end is None:
            self.story.append(f"{who}: {'stopped' if worker.stopped else 'at work'}")
            return
        self.story.append(f"{who}: {end.how} {end.said}".strip())
        clear = end.how == "done" or (end.how == "LvaeError" and any(words in end.said for words in ENDS))
        assert clear, "no clear end"

    def _finish(self) -> None:
        """The same command once more, undisturbed: what it leaves is right."""
        self._first.begin(self._command)
        end = self._first.wait()
        assert end == End("done"), f"the last command: {end}"
        found = self._world.contents(self._root)
        differing = sorted(name for name in found | self._expected if found.get(name) != self._expected.get(name))
        assert not differing, f"other bytes in {differing}"

    def clear_up(self) -> None:
        self._world.store.fails(0)
        for worker in self._world.workers:
            if worker.busy:
                worker.kill()
        shutil.rmtree(self._world.root / "disk" / self._name)


@contextmanager
def make_world(root: Path, store: Store) -> Iterator[World]:
    (root / "disk").mkdir()
    world = World(root, store, [Worker(store.environment) for _ in range(3)])
    try:
        yield world
    finally:
        for worker in world.workers:
            worker.end()
