"""Damages files of every kind that we read, at random, and tells of whatever is neither a result nor a refusal.

    python tests/encode/fuzz.py [--minutes 10] [--readers zip,tar] [--seed 0] [--findings fuzz-findings]
    python tests/encode/fuzz.py --readers zip FINDING...      # once more, with tracebacks

Allowed are LvaeError and ImageRejected, in one printable line. Findings are other exceptions and warnings, cases that
take more than CPU_SECONDS or PEAK_BYTES, and those that end the process: each is written to a file of its own. Damaged
files that reach a line of ours, of tarfile or of zipfile for the first time are damaged further. Every reader runs in
a process of its own at the lowest priority, so that a case that ends it is found, too; minutes are the processor's.
"""

import argparse
import faulthandler
import hashlib
import os
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lvae.encode

CPU_SECONDS = 5.0  # of one case
WALL_SECONDS = 120.0  # likewise, after which it hangs
PEAK_BYTES = 256 << 20  # beyond what the process had before
ADDRESS_BYTES = 12 << 30  # of the process: what asks for more gets a MemoryError
LARGEST_CASE = 1 << 20
REPAIRED = 0.5  # share of the cases whose checksums are made right again
WATCHED = (os.path.dirname(lvae.encode.__file__), tarfile.__file__, zipfile.__file__)  # noqa: PTH120
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HUGE = (1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
TEXTS = (b"\0", b"\n", b"../", b"/", b'"', b"{", b"[" * 50, b"-1", b"1e999", b"9" * 40, b"\xff\xfe", b"\xed\xa0\x80")


class Mutator:
    """Files damaged by a seed: a few of their bytes changed, moved, put in, cut out, or taken from another one."""

    def __init__(self, seed: int, corpus: list[bytes]):
        self.draw, self.corpus = random.Random(seed), corpus

    def next(self) -> bytes:
        data = bytearray(self.draw.choice(self.corpus))
        for _ in range(1 + int(self.draw.expovariate(0.5))):
            self._damage(data)
        return bytes(data[:LARGEST_CASE])

    def _damage(self, data: bytearray) -> None:
        place = self._place(len(data))
        match self.draw.randrange(12):
            case 0 if data:
                data[min(place, len(data) - 1)] ^= 1 << self.draw.randrange(8)
            case 1 | 2:
                data[place : place + 1] = bytes([self.draw.randrange(256)])
            case 3 | 4 | 5:
                size = self.draw.choice((1, 2, 4, 4, 8))
                data[place : place + size] = self._number(size, len(data))
            case 6:
                data[place : place + self.draw.choice((0, 0, 1, 4))] = self.draw.choice(TEXTS)
            case 7:
                del data[place : place + self._length(data)]
            case 8:
                source = self._place(len(data))
                data[place:place] = data[source : source + self._length(data)]
            case 9:
                source, length = self._place(len(data)), self._length(data)
                data[place : place + length] = data[source : source + length]
            case 10:
                other = self.draw.choice(self.corpus)
                source, length = self._place(len(other)), self._length(other)
                data[place : place + length] = other[source : source + length]
            case 11 if self.draw.random() < 0.2:
                del data[place:]

    def _place(self, size: int) -> int:
        """Anywhere, but rather where the structure is: at the beginning and the end."""
        edge = min(size, 300)
        return self.draw.choice(
            (self.draw.randint(0, size), self.draw.randint(0, edge), size - self.draw.randint(0, edge))
        )

    def _length(self, data: bytes | bytearray) -> int:
        return min(len(data), self.draw.choice((1, 2, 4, 8, 16, 64, 512, 4096)))

    def _number(self, size: int, file_bytes: int) -> bytes:
        near = file_bytes + self.draw.randint(-600, 600)
        value = self.draw.choice((*NUMBERS, *HUGE, near, near, self.draw.randrange(4096), -1, -2))
        return (value & ((1 << 8 * size) - 1)).to_bytes(size, self.draw.choice(("little", "big")))


class Coverage:
    """The lines that were ever reached, in the files that are WATCHED."""

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()

    def run(self, call: Callable[[], object]) -> bool:
        """Whether the call reached a line for the first time."""
        before = len(self.lines)
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(None)
            self.grown = len(self.lines) > before
        return self.grown

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(WATCHED) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


class Verdict(Exception):  # noqa: N818  a finding that is no exception by itself
    """What a case did that it should not."""


def judge(run: Callable[[], object]) -> None:
    """Raises for what is neither a result nor a refusal in one line."""
    from lvae.encode.images import ImageRejected
    from lvae.manifests.errors import LvaeError

    reset_peak()
    before, start = memory("VmRSS"), time.process_time()
    try:
        run()
    except (LvaeError, ImageRejected) as refusal:
        if not str(refusal).isprintable() or len(str(refusal)) > 1000:
            raise Verdict(f"refused, but not in a printable line: {str(refusal)[:300]!r}") from refusal
    seconds, peak = time.process_time() - start, memory("VmHWM") - before
    if seconds > CPU_SECONDS:
        raise Verdict(f"took {seconds:.1f} s")
    if peak > PEAK_BYTES:
        raise Verdict(f"took {peak >> 20} MiB")


def reset_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def memory(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))


def place_of(error: BaseException) -> str:
    """Where an exception came from: the innermost line of ours. The same place is told of once."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(WATCHED[0])] or frames
    what = str(error).split()[0] if isinstance(error, Verdict) else type(error).__name__
    return f"{what} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def work(name: str, seed: int, seconds: float, current: Path, findings: Path) -> None:
    """The process of one reader: case after case until the time is over."""
    from tests.encode.fuzz_targets import TARGETS

    target = TARGETS[name]
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    coverage, corpus, told = Coverage(), target.seeds(), set[str]()
    mutator, cases = Mutator(seed, corpus), 0
    with tempfile.TemporaryDirectory() as folder:
        run = target.runner(Path(folder))
        for data in list(corpus):  # the first of them says which pictures are looked for in all that follow
            coverage.run(lambda data=data: judge(lambda: run(data)))  # type: ignore[misc]
        while time.process_time() < seconds:
            data = mutator.next()
            if mutator.draw.random() < REPAIRED:
                data = target.repair(data)
            current.write_bytes(data)
            cases += 1
            faulthandler.dump_traceback_later(WALL_SECONDS, exit=True)
            try:
                coverage.run(lambda data=data: judge(lambda: run(data)))  # type: ignore[misc]
            except Exception as error:
                if (place := place_of(error)) not in told:
                    told.add(place)
                    keep(findings, name, data, f"{place}: {type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()
            if coverage.grown:
                corpus.append(data)
    print(f"{name}: {cases} cases, corpus {len(corpus)}, {len(coverage.lines)} lines, {len(told)} findings", flush=True)


def keep(findings: Path, name: str, data: bytes, what: str) -> None:
    path = findings / f"{name}-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    print(f"{path}: {what[:500]}", flush=True)


def watch(name: str, minutes: float, seed: int, findings: Path) -> None:
    """Start processes for a reader until its time is over; each that is ended by a case is a finding."""
    before = children_seconds()

    def spent() -> float:
        return children_seconds() - before

    while (left := 60 * minutes - spent()) > 0:
        with tempfile.TemporaryDirectory() as folder:
            current = Path(folder) / "current"
            arguments = ["--child", name, str(seed), str(left), str(current), str(findings)]
            said = Path(folder) / "said"  # by C libraries as well: TIFF's complains on stderr whatever one does
            with said.open("w") as file:
                command = ["nice", "-n", "19", sys.executable, "-m", "tests.encode.fuzz", *arguments]
                process = subprocess.run(command, stderr=file)
            if process.returncode == 0:
                return
            print(said.read_text(errors="replace")[-3000:])
            if not current.exists():
                raise SystemExit(f"{name}: the seeds themselves fail")
            keep(findings, name, current.read_bytes(), f"ended the process ({process.returncode})")
        seed += 1_000_003


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def again(name: str, paths: list[Path]) -> None:
    from tests.encode.fuzz_targets import TARGETS

    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as folder:
        run = TARGETS[name].runner(Path(folder))
        run(TARGETS[name].seeds()[0])
        for path in paths:
            data = path.read_bytes()
            try:
                judge(lambda data=data: run(data))  # type: ignore[misc]
                print(f"{path}: nothing to be told")
            except Exception:
                print(f"{path}:")
                traceback.print_exc()


def main() -> None:
    from tests.encode.fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of the processor, for each reader")
    parser.add_argument("--readers", default=",".join(TARGETS), help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("finding", type=Path, nargs="*", help="files to try again")
    options = parser.parse_args()
    if options.finding:
        again(options.readers, options.finding)
        return
    options.findings.mkdir(parents=True, exist_ok=True)
    before = set(options.findings.iterdir())
    for name in options.readers.split(","):
        watch(name, options.minutes, options.seed, options.findings)
    if found := set(options.findings.iterdir()) - before:
        raise SystemExit(f"{len(found)} findings in {options.findings}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        reader, first_seed, processor_seconds, now, kept = sys.argv[2:]
        work(reader, int(first_seed), float(processor_seconds), Path(now), Path(kept))
    else:
        main()
