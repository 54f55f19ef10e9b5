"""Who opens images, in order: the worker itself, threads of it, or processes that live as long as it does.

On a CPU the worker opens its images itself, since the network wants the same core. For an accelerator processes open
them ahead of it: `torch.utils.data.DataLoader` starts them, hands pixels over in shared memory, and notices when one
dies. Then all of them are started anew, and what was not handed over is opened again.
"""

import logging
import multiprocessing as mp
import os
import shutil
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from lvae.encode.feeding.opening import Chunk, Images, Opened
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SHARED_MEMORY = Path("/dev/shm")
LARGEST_CHUNK = 8  # images that are handed over at once
CHUNKS_A_PROCESS = 2  # under way, at least: one being opened, one waiting
RESTARTS = 2  # in a row, without a single chunk between them
IMPORTED_ONCE = ("torch.utils.data", "lvae.encode.feeding.openers")  # for all processes

_log = logging.getLogger(__name__)


class Opener(Protocol):
    """Opens images in order. chunk: how many a chunk should hold. shared: whether threads may open at the same time."""

    @property
    def chunk(self) -> int: ...
    @property
    def shared(self) -> bool: ...

    def open(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Opened]]]:
        """Every chunk with what became of its rows, in order. Raises what opening raised."""


class InlineOpener:
    """Opens what is asked for when it is asked for."""

    chunk, shared = 1, True

    def __init__(self, images: Images):
        self._images = images

    def open(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Opened]]]:
        for chunk in chunks:
            yield chunk, self._images.open(chunk)


class ThreadOpener:
    """Opens up to `ahead` images before they are asked for."""

    chunk, shared = 1, True

    def __init__(self, images: Images, threads: int, ahead: int):
        self._images, self._threads, self._ahead = images, threads, ahead

    def open(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Opened]]]:
        def open_one(chunk: Chunk) -> tuple[Chunk, list[Opened]]:
            return chunk, self._images.open(chunk)

        return concurrently(open_one, chunks, lanes=self._threads, ahead=self._ahead)


class ProcessOpener:
    """Opens up to `ahead` images before they are asked for, in processes. They live until `close`, or until it ends."""

    shared = False  # one queue to the processes, one back

    def __init__(self, images: Images, processes: int, ahead: int):
        self.chunk = min(max(1, ahead // (CHUNKS_A_PROCESS * processes)), LARGEST_CHUNK)
        self._images, self._processes = images, processes
        self._chunks_each = max(1, ahead // (self.chunk * processes))
        self._loader: Any = None
        self._sampler = _Sampler()

    def open(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, list[Opened]]]:
        waiting, left, fruitless = deque[Chunk](), iter(chunks), 0
        while True:
            try:
                for answer in self._answers(waiting, left):
                    chunk, fruitless = waiting.popleft(), 0
                    yield chunk, _read(answer)
                if waiting:
                    raise _LostError("an end before the last answer")
                return
            except _LostError as lost:
                self.close()
                fruitless += 1
                if fruitless > RESTARTS:
                    # As good as killed for want of memory: tried again by whoever submits the part, then named.
                    raise MemoryError(f"processes that open images die ({lost})") from lost
                _log.warning("processes that open images were lost (%s); starting them anew", lost)

    def close(self) -> None:
        """End the processes; the next `open` starts others."""
        self._loader = None  # which ends them as it goes

    def _answers(self, waiting: deque[Chunk], left: Iterator[Chunk]) -> Iterator["_Answer"]:
        """The answers to the chunks that wait, then to those that are left, which come to wait as they are sent."""

        def send() -> Iterator[Chunk]:
            yield from tuple(waiting)
            for chunk in left:
                waiting.append(chunk)
                yield chunk

        self._sampler.begin(send())
        if self._loader is None:
            self._loader = self._start()
        answers = self._ask(lambda: iter(self._loader))
        while (answer := self._ask(lambda: next(answers, None))) is not None:
            yield answer

    def _ask(self, question: Callable[[], T]) -> T:
        """What the loader says. An answer says what opening raised, so what is raised here means lost processes."""
        try:
            return question()
        except Exception as error:
            if self._sampler.failure is not None:  # of whoever makes the chunks
                raise self._sampler.failure from None
            raise _LostError(f"{type(error).__name__}: {error}") from error

    def _start(self) -> Any:
        from torch.utils.data import DataLoader

        context = mp.get_context("forkserver")  # this process has threads, and perhaps CUDA: neither survives a fork
        main = getattr(sys.modules["__main__"].__spec__, "name", None)  # which a new process imports as well
        context.set_forkserver_preload([*IMPORTED_ONCE, *([main] if main else [])])
        return DataLoader(
            _Opening(self._images),  # type: ignore[arg-type]  # has what it takes, and no length
            batch_size=None,
            sampler=self._sampler,
            collate_fn=_leave,  # type: ignore[arg-type]
            num_workers=self._processes,
            prefetch_factor=self._chunks_each,
            persistent_workers=True,
            worker_init_fn=_end_with_worker,
            multiprocessing_context=context,
        )


class _LostError(Exception):
    """A process ended in the middle of its work, or cannot be heard any more."""


class _Sampler:
    """What the loader sends to its processes next: chunks, made as there is room for them."""

    def __init__(self) -> None:
        self._chunks: Iterator[Chunk] = iter(())
        self.failure: Exception | None = None

    def begin(self, chunks: Iterator[Chunk]) -> None:
        self._chunks, self.failure = chunks, None

    def __iter__(self) -> Iterator[Chunk]:
        try:
            yield from self._chunks
        except Exception as error:
            self.failure = error
            raise


class _Answer(NamedTuple):
    """What a process made of a chunk. pixels: of the images that could be used. reasons: None for those."""

    pixels: "torch.Tensor | None"
    reasons: tuple[str | None, ...]
    contents: tuple[bytes, ...]
    shorter: tuple[int, ...] = ()
    error: Exception | None = None


class _Opening:
    """The side of the processes: chunks in, answers out."""

    def __init__(self, images: Images):
        self._images = images

    def __getitem__(self, chunk: Chunk) -> _Answer:
        import torch

        try:
            opened = self._images.open(chunk)
        except Exception as error:
            return _Answer(None, (), (), error=_make_portable(error))
        pixels = [one.pixels for one in opened if one.pixels is not None]
        stacked = torch.from_numpy(np.stack(pixels)) if pixels else None
        reasons, contents = tuple(one.reason for one in opened), tuple(one.content for one in opened)
        return _Answer(stacked, reasons, contents, tuple(one.shorter for one in opened))


def _end_with_worker(_: int) -> None:
    """Let this process end when the worker does, however that ends: the loader looks for the fork server alone."""
    worker = mp.parent_process()
    assert worker is not None

    def wait() -> None:
        worker.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _leave(answer: _Answer) -> _Answer:
    return answer


def _make_portable(error: Exception) -> Exception:
    """The same failure as something that every process can read: libraries have classes that cannot travel."""
    if isinstance(error, LvaeError):
        return error
    if isinstance(error, MemoryError):
        return MemoryError(str(error))
    if isinstance(error, OSError):
        kind: type[OSError] = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
        if error.errno is None:
            return kind(str(error))
        return kind(error.errno, error.strerror or str(error), error.filename)
    return RuntimeError("".join(traceback.format_exception(error)))


def _read(answer: _Answer) -> list[Opened]:
    if answer.error is not None:
        raise answer.error
    pixels = iter(() if answer.pixels is None else answer.pixels.numpy())
    return [
        Opened(next(pixels) if reason is None else None, reason, content, shorter)
        for reason, content, shorter in zip(answer.reasons, answer.contents, answer.shorter, strict=True)
    ]


def choose_opener(images: Images, decoders: int, ahead: int) -> Opener:
    """Who opens the images of a worker. decoders: how many at a time, 0 for none beside itself. ahead: images."""
    if decoders == 0:
        return InlineOpener(images)
    refusal = _find_refusal(2 * ahead * images.settings.size**2 * 3)
    if refusal is not None:
        _log.warning("%s: images are opened by %s in its place", refusal, counted(decoders, "thread"))
        return ThreadOpener(images, decoders, ahead)
    return ProcessOpener(images, decoders, ahead)


def _find_refusal(bytes_wanted: int) -> str | None:
    """Why this process cannot have processes that open images, if it cannot."""
    if mp.current_process().daemon:
        return "this worker may have no processes of its own"
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < bytes_wanted:
        return f"{SHARED_MEMORY} has less than {bytes_wanted >> 20} MiB (docker run --shm-size makes it larger)"
    return None
