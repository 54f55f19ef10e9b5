"""What a worker does with one element: a call into encode or manifests, and counters around it.

Elements are part numbers and shard numbers; what comes out is a receipt, a few hundred bytes as JSON.
"""

import errno
import fcntl
import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam.metrics import Metrics

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.plan import Plan, read_plan
from lvae.manifests.storage import TEMPORARY, Folder
from lvae.manifests.timings import Timing, write_timing
from lvae.manifests.views import read_view, write_shard
from lvae.pipeline.progress import Reporter

if TYPE_CHECKING:
    from lvae.encode.encoder import Encoder
    from lvae.encode.sources import Reader

NAMESPACE = "lvae"
WATCH_INTERVAL = 1.0


class EncodePart(beam.DoFn):  # type: ignore[misc]
    """Part number -> receipt, as JSON. The network is loaded with the first part, once a process."""

    def __init__(self, dataset: str, devices: tuple[str, ...], submitter: int | None):
        self.dataset, self.devices, self.submitter = dataset, devices, submitter
        self.images = Metrics.counter(NAMESPACE, "images")
        self.rejected = Metrics.counter(NAMESPACE, "rejected")

    def process(self, part: int) -> Iterator[bytes]:
        _die_with(self.submitter)
        from lvae.encode.part import encode_part

        folder = Folder(self.dataset)
        reporter = Reporter(folder, f"part {part}")
        with _failures(reporter):
            reporter.working(0)
            plan = _plan(self.dataset)
            encoder = _encoder(self.dataset, self.devices)
            segment = plan.listing.place(part).segment
            reader = _reader(plan.listing.segments[segment].kind, plan.origins[segment].source)
            start = time.monotonic()
            receipt = encode_part(folder, plan, part, encoder, reader, reporter.working)
            with suppress(OSError):  # advice only: the part is finished without it
                write_timing(folder, Timing(part, receipt.rows, time.monotonic() - start, time.time()))
            reporter.finished()
        self.images.inc(receipt.rows)
        self.rejected.inc(len(receipt.rejected))
        yield records.dumps(receipt)


class WriteShard(beam.DoFn):  # type: ignore[misc]
    """(split, number) -> receipt, as JSON."""

    def __init__(self, dataset: str, view: str, submitter: int | None):
        self.dataset, self.view, self.submitter = dataset, view, submitter
        self.latents = Metrics.counter(NAMESPACE, "latents")

    def process(self, shard: tuple[str, int]) -> Iterator[bytes]:
        _die_with(self.submitter)
        split, number = shard
        folder = Folder(self.dataset)
        reporter = Reporter(folder, f"shard {split} {number}")
        with _failures(reporter):
            reporter.working(0)
            receipt = write_shard(folder, _plan(self.dataset), read_view(folder, self.view), split, number)
            reporter.finished()
        self.latents.inc(receipt.count)
        yield records.dumps(receipt)


@contextmanager
def _failures(reporter: Reporter) -> Iterator[None]:
    """Tell the submitting command why a task gave up, then let the engine know as well."""
    try:
        yield
    except LvaeError as error:
        reporter.failed("user", str(error))
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reporter.failed("user", "no space left on the disk. Free some, then run the same command again to go on.")
        else:
            reporter.failed("storage", f"{type(error).__name__}: {error}")
        raise
    except MemoryError:
        raise  # as good as killed for want of memory: tried again, then alone, then named
    except Exception:
        reporter.failed("bug", traceback.format_exc())
        raise


@lru_cache(maxsize=1)
def _plan(dataset: str) -> Plan:
    plan = read_plan(Folder(dataset))
    if plan is None:
        raise LvaeError(f"{dataset}: has no plan.json.")
    return plan


@lru_cache(maxsize=1)
def _encoder(dataset: str, devices: tuple[str, ...]) -> "Encoder":
    from lvae.encode.autoencoder import load
    from lvae.encode.encoder import Encoder, weights_in

    folder = Folder(dataset)
    encoding = _plan(dataset).encoded()
    network = load(encoding.autoencoder.architecture, weights_in(folder, encoding))
    return Encoder(encoding, network, _claim_device(folder, devices))


@lru_cache(maxsize=1)
def _reader(kind: str, location: str) -> "Reader":
    from lvae.encode.sources import open_reader

    return open_reader(kind, location)


def _claim_device(folder: Folder, devices: tuple[str, ...]) -> str:
    """A device of this process's own: the first that no other process of this job holds; shared where all are held."""
    if len(devices) == 1:
        return devices[0]
    for device in devices:
        path = folder.local(f"{TEMPORARY}/device-{device.replace(':', '-')}")
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return device  # the lock is held, and the descriptor open, until this process ends
    return devices[os.getpid() % len(devices)]


@lru_cache(maxsize=1)
def _die_with(submitter: int | None) -> None:
    """End this worker when the command that started it is gone, however that ended. None: workers elsewhere."""
    if submitter is None or submitter == os.getpid():
        return

    def watch() -> None:
        while True:
            try:
                os.kill(submitter, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(WATCH_INTERVAL)

    threading.Thread(target=watch, daemon=True).start()
