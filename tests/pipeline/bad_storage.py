"""A web server in a process of its own that misbehaves as it is told, while it is running.

python -m tests.pipeline.bad_storage ROOT MODE_FILE: prints its URL, ends with its stdin. The mode file holds
{"mode": ..., "seed": 0, "time": 1}, and is read at every request; another text starts the mode anew:

- calm: answers.
- flaky: by the seed, one request of six gets a 503, half of the bytes, or a closed connection.
- slow: every answer takes a third of a second.
- stall: once, all answers are held back for 30 s.
- outage: after some requests every one gets a 503, until the mode is another.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.encode.source_examples import serving

STALL_SECONDS = 30.0
SLOW_SECONDS = 0.33
FAULTY_SHARE = 1 / 6
BEFORE_THE_FAULT = 20  # requests


class Misbehaviour:
    """Called at every request, from several threads; see `source_examples.Server.fault`."""

    def __init__(self, mode_file: Path):
        self._mode_file, self._lock = mode_file, threading.Lock()
        self._text, self._since, self._requests, self._draw = "", 0.0, 0, random.Random()

    def __call__(self, _: int) -> str:
        with self._lock:
            self._look()
            self._requests += 1
            late, draw = self._requests > BEFORE_THE_FAULT, self._draw.random()
            if not late:
                self._since = time.monotonic()
        match json.loads(self._text)["mode"]:
            case "flaky" if draw < FAULTY_SHARE:
                if draw < FAULTY_SHARE / 3:
                    raise ConnectionResetError("closed without an answer")
                return "503" if draw < 2 * FAULTY_SHARE / 3 else "drop"
            case "slow":
                time.sleep(SLOW_SECONDS)
            case "stall" if late:
                time.sleep(max(0.0, self._since + STALL_SECONDS - time.monotonic()))
            case "outage" if late:
                return "503"
        return ""

    def _look(self) -> None:
        text = self._mode_file.read_text()
        if text != self._text:
            self._text, self._requests = text, 0
            self._draw = random.Random(json.loads(text)["seed"])


class Storage:
    """The test's side."""

    def __init__(self, url: str, mode_file: Path):
        self.url, self._mode_file, self._times = url, mode_file, 0

    def becomes(self, mode: str, seed: int = 0) -> None:
        """Starts the mode, from its first request, also where it is the last one again."""
        self._times += 1
        unfinished = self._mode_file.with_suffix(".part")
        unfinished.write_text(json.dumps({"mode": mode, "seed": seed, "time": self._times}))
        unfinished.replace(self._mode_file)


@contextmanager
def bad_storage(root: Path, mode_file: Path) -> Iterator[Storage]:
    storage = Storage("", mode_file)
    storage.becomes("calm")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.bad_storage", str(root), str(mode_file)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # connections that it closes itself
        text=True,
    )
    assert server.stdout
    storage.url = server.stdout.readline().strip()
    try:
        yield storage
    finally:
        server.communicate()


if __name__ == "__main__":
    with serving(Path(sys.argv[1])) as serves:
        serves.fault = Misbehaviour(Path(sys.argv[2]))
        print(serves.url, flush=True)
        sys.stdin.read()
