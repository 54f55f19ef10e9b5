"""What a worker does with one element: a call into encode, evaluate or manifests, and counters around it.

Elements are part numbers and shard numbers; what comes out is a receipt, a few hundred bytes as JSON.
"""

import fcntl
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import apache_beam as beam
from apache_beam.metrics import Metrics

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.decoded_parts import DecodePlan, DecodeReceipt, finished_decode, read_decode_plan
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import Receipt, finished
from lvae.manifests.parts.timings import Timing, write_timing
from lvae.manifests.storage.folder import FULL, Folder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.storage.retry import is_outage, retry
from lvae.manifests.storage.scratch import shared_folder
from lvae.pipeline.beam.work import Range
from lvae.pipeline.beam.worker_check import refuse_other_package
from lvae.pipeline.progress.reports import Reporter

if TYPE_CHECKING:
    from lvae.encode.encoder import Encoder
    from lvae.encode.sources.base import Reader
    from lvae.evaluate.decoded_part import PartDecoder

T = TypeVar("T", Plan, DecodePlan)

NAMESPACE = "lvae"
WATCH_INTERVAL = 1.0
FREE_SOME = "Free some, then run the same command again to go on."
SHARING_DELAYS = (0.5, 2.0, 8.0)  # seconds before each further look at a plan that shared storage may show late

_loading = threading.Lock()  # workers may have several threads: one network for all


@dataclass(frozen=True)
class Job:
    """What each task has to know of its submission.

    dataset: a path or URL, the same for all workers. plan_sha256: of all that plan.json says; workers that outlive a
    job notice by it that another one lies there now. attempt: names the submission. package: that of the command.
    submitter: the process that workers on the same machine do not outlive; None for workers elsewhere.
    """

    dataset: str
    plan_sha256: str
    attempt: str
    package: str
    submitter: int | None


class EncodeParts(beam.DoFn):  # type: ignore[misc]
    """A range of part numbers -> receipts, as JSON. The network is loaded with the first part, once a process.

    A part that is finished already, which engines ask for now and then, is not encoded again.
    """

    def __init__(self, job: Job, devices: tuple[str, ...]):
        self.job, self.devices = job, devices
        self.images = Metrics.counter(NAMESPACE, "images")
        self.rejected = Metrics.counter(NAMESPACE, "rejected")

    def process(self, parts: Range) -> Iterator[bytes]:
        for part in range(*parts):
            receipt = self._encode(part)
            self.images.inc(receipt.rows)
            self.rejected.inc(len(receipt.rejected))
            yield records.dumps(receipt)

    def _encode(self, part: int) -> Receipt:
        from lvae.encode.part import encode_part

        with run_task(self.job, f"part {part}") as (folder, reporter):
            plan = load_plan(self.job.dataset, self.job.plan_sha256)
            receipt = finished(folder, plan, part)
            if receipt is None:
                with _loading:
                    encoder = _load_encoder(self.job.dataset, self.job.plan_sha256, self.devices)
                    segment = plan.listing.place(part).segment
                    origin = plan.origins[segment]
                    kind = plan.listing.segments[segment].kind
                    reader = _open_reader(kind, origin.source, origin.addresses, self.job.plan_sha256)
                start = time.monotonic()
                receipt = encode_part(folder, plan, part, encoder, reader, reporter)
                with suppress(OSError):  # advice only: the part is finished without it
                    write_timing(folder, Timing(part, receipt.rows, time.monotonic() - start, time.time()))
        return receipt


class MakePictures(beam.DoFn):  # type: ignore[misc]
    """A range of part numbers -> receipts, as JSON. Networks are loaded with the first part, once a process.

    The job's dataset is the folder of the parts, which says what they are made of.
    """

    def __init__(self, job: Job, devices: tuple[str, ...]):
        self.job, self.devices = job, devices
        self.pictures = Metrics.counter(NAMESPACE, "pictures")

    def process(self, parts: Range) -> Iterator[bytes]:
        for part in range(*parts):
            yield records.dumps(self._make(part))

    def _make(self, part: int) -> DecodeReceipt:
        with run_task(self.job, f"part {part}") as (folder, reporter):
            plan = _load_decode_plan(self.job.dataset, self.job.plan_sha256)
            receipt = finished_decode(folder, plan, part)
            if receipt is None:
                with _loading:
                    maker = _load_part_decoder(self.job.dataset, self.job.plan_sha256, self.devices)
                receipt = maker.make(part, reporter)
        self.pictures.inc(receipt.count)
        return receipt


@contextmanager
def run_task(job: Job, name: str) -> Iterator[tuple[Folder, Reporter]]:
    """The job's folder, with the submitting command told what becomes of a task."""
    _die_with(job.submitter)
    with _loading:
        folder = _open_folder(job.dataset, job.attempt)
    with Reporter(folder, name, job.attempt) as reporter, _report_failures(reporter):
        reporter.working(0)
        refuse_other_package(job.package)
        yield folder, reporter
        reporter.finished()


@contextmanager
def _report_failures(reporter: Reporter) -> Iterator[None]:
    """Tell the submitting command why a task gave up, then let the engine know as well."""
    try:
        yield
    except LvaeError as error:
        reporter.failed("user", error)
        raise
    except OSError as error:
        if error.errno in FULL:
            reporter.failed("user", LvaeError("", "no space left on the disk", FREE_SOME))
        else:
            told = LvaeError("", f"{type(error).__name__}: {error}")
            reporter.failed("storage" if is_outage(error) else "files", told)
        raise
    except MemoryError:
        raise  # as good as killed for want of memory: tried again, then alone, then named
    except Exception:
        reporter.failed("bug", LvaeError("", traceback.format_exc()))
        raise


@lru_cache(maxsize=1)
def _open_folder(dataset: str, attempt: str) -> Folder:
    """One for all tasks of a submission, so that what is fetched from a store is fetched once."""
    return folder_at(dataset)


@lru_cache(maxsize=1)
def load_plan(dataset: str, sha256: str) -> Plan:
    return _read_submitted(read_plan, dataset, sha256)


@lru_cache(maxsize=1)
def _load_decode_plan(folder: str, sha256: str) -> DecodePlan:
    return _read_submitted(read_decode_plan, folder, sha256)


def _read_submitted(read: Callable[[Folder], T | None], dataset: str, sha256: str) -> T:
    """Read the plan that the command submitted: at once, or after a few patient looks."""

    def look() -> T:
        plan = read(folder_at(dataset))
        if plan is not None and plan.whole_sha256 == sha256:
            return plan
        raise LvaeError(
            dataset,
            f"a worker on {os.uname().nodename} does not see the plan that was submitted",
            "Name a dataset on storage that all workers share, and give one command at a time.",
        )

    return retry(look, SHARING_DELAYS, may_help=lambda error: isinstance(error, LvaeError), where=dataset)


@lru_cache(maxsize=1)
def _load_encoder(dataset: str, plan_sha256: str, devices: tuple[str, ...]) -> "Encoder":
    from lvae.encode.autoencoder import load
    from lvae.encode.encoder import Encoder, weights_in

    folder = folder_at(dataset)
    encoding = load_plan(dataset, plan_sha256).encoded()
    network = load(encoding.autoencoder.architecture, weights_in(folder, encoding))
    wanted = encoding.autoencoder.weights_sha256
    if wanted is not None and network.fingerprint != wanted:
        raise LvaeError(
            f"{dataset}/{encoding.autoencoder.weights_file}",
            f"holds other weights on {os.uname().nodename} than the plan names",
            "Put the dataset on storage that all workers share.",
        )
    return Encoder(encoding, network, _claim_device(devices))


@lru_cache(maxsize=1)
def _load_part_decoder(folder: str, plan_sha256: str, devices: tuple[str, ...]) -> "PartDecoder":
    from lvae.evaluate.decoded_part import open_part_decoder

    return open_part_decoder(folder_at(folder), _load_decode_plan(folder, plan_sha256), _claim_device(devices))


@lru_cache(maxsize=1)
def _open_reader(kind: str, location: str, addresses: str, plan_sha256: str) -> "Reader":
    from lvae.encode.sources.open import open_reader

    return open_reader(kind, location, addresses)


@lru_cache(maxsize=1)
def _claim_device(devices: tuple[str, ...]) -> str:
    """A device of this process's own: the first that no other process on this machine holds; shared where all are held.

    "auto" is whatever this machine has, which need not be what the command's has.
    """
    from lvae.encode.devices import choose_device, devices_here

    found = devices_here() if devices == ("auto",) else tuple(map(choose_device, devices))
    if len(found) == 1:
        return found[0]
    for device in found:
        path = shared_folder() / f"lvae-{os.getuid()}-{device.replace(':', '-')}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return device  # the lock is held, and the descriptor open, until this process ends
    return found[os.getpid() % len(found)]


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
