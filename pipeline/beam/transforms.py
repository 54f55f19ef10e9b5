"""What a worker does with one element: a call into encode, evaluate or manifests, and counters around it.

Elements are part numbers and shard numbers; what comes out is a receipt, a few hundred bytes as JSON.
"""

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import apache_beam as beam
from apache_beam.metrics import Metrics

from lvae.encode.devices import STAND_IN, device_of, find_devices
from lvae.encode.feeding.cores import cores
from lvae.encode.feeding.settings import Feeding
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.decoded_parts import DecodePlan, DecodeReceipt, finished_decode, read_decode_plan
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import Receipt, finished
from lvae.manifests.parts.timings import Timing, write_timing
from lvae.manifests.storage.folder import FULL, Folder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.storage.retry import is_outage, retry
from lvae.pipeline.beam.work import Range
from lvae.pipeline.beam.worker_check import find_worker_number, refuse_other_package
from lvae.pipeline.progress.reports import Reporter, name_of_part

if TYPE_CHECKING:
    from lvae.encode.feeding.openers import Opener
    from lvae.encode.part import BatchEncoder
    from lvae.evaluate.decoded_part import PartDecoder

T = TypeVar("T", Plan, DecodePlan)

NAMESPACE = "lvae"
WATCH_INTERVAL = 1.0
FREE_SOME = "Free some, then run the same command again to go on."
SHARING_DELAYS = (0.5, 2.0, 8.0)  # seconds before each further look at a plan that shared storage may show late

_loading = threading.Lock()  # workers may have several threads: one network for all
_streaming = threading.Lock()  # and to an accelerator, or from processes that open images, one stream at a time


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

    def __init__(self, job: Job, feeding: Feeding):
        self.job, self.feeding = job, feeding
        self.images = Metrics.counter(NAMESPACE, "images")
        self.rejected = Metrics.counter(NAMESPACE, "rejected")

    def process(self, parts: Range) -> Iterator[bytes]:
        from lvae.encode.part import encode_parts

        with run_task(self.job, name_of_part(parts[0])) as (folder, reporter):
            plan = load_plan(self.job.dataset, self.job.plan_sha256)
            left = {part for part in range(*parts) if finished(folder, plan, part) is None}
            if not left:
                yield from (records.dumps(finished(folder, plan, part)) for part in range(*parts))
                return
            with _loading:
                encoder, opener = _load_encoder(self.job.dataset, self.job.plan_sha256, self.feeding)
            start = time.monotonic()
            with nullcontext() if opener.shared and not encoder.accelerated else _streaming:
                for receipt in encode_parts(folder, plan, range(*parts), encoder, opener, reporter):
                    if receipt.part in left:
                        start = _note_time(folder, receipt, start)
                    self.images.inc(receipt.rows)
                    self.rejected.inc(len(receipt.rejected))
                    yield records.dumps(receipt)


def _note_time(folder: Folder, receipt: Receipt, start: float) -> float:
    """Write down how long a part took since `start`; what the next one takes counts from now."""
    now = time.monotonic()
    with suppress(OSError):  # advice only: the part is finished without it
        write_timing(folder, Timing(receipt.part, receipt.rows, now - start, time.time()))
    return now


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
        with run_task(self.job, name_of_part(part)) as (folder, reporter):
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
def _load_encoder(dataset: str, plan_sha256: str, feeding: Feeding) -> "tuple[BatchEncoder, Opener]":
    """What computes, and what opens images for it: one each for all tasks of a process."""
    from lvae.encode.feeding.openers import choose_opener
    from lvae.encode.feeding.opening import Images

    plan = load_plan(dataset, plan_sha256)
    devices = find_devices(feeding.devices)
    device = device_of(devices, find_worker_number())
    encoder = _open_encoder(dataset, plan, device, plan.listing.images // len(devices))
    decoders = feeding.decoders
    if decoders is None:
        decoders = max(1, cores() // len(devices)) if encoder.accelerated else 0
    return encoder, choose_opener(Images.of(plan), decoders, feeding.prefetch * encoder.batch)


def _open_encoder(dataset: str, plan: Plan, device: str, share: int) -> "BatchEncoder":
    """share: of the images, about, that this worker will have."""
    from lvae.encode.autoencoder import load
    from lvae.encode.feeding.encoder import COMPILED_IMAGES, Encoder, weights_in
    from lvae.encode.feeding.stand_in import StandIn

    folder, encoding = folder_at(dataset), plan.encoded()
    if device.startswith(STAND_IN):
        return StandIn(encoding, device)
    network = load(encoding.autoencoder.architecture, weights_in(folder, encoding))
    wanted = encoding.autoencoder.weights_sha256
    if wanted is not None and network.fingerprint != wanted:
        raise LvaeError(
            f"{dataset}/{encoding.autoencoder.weights_file}",
            f"holds other weights on {os.uname().nodename} than the plan names",
            "Put the dataset on storage that all workers share.",
        )
    return Encoder(encoding, network, device, compiled=share >= COMPILED_IMAGES)


@lru_cache(maxsize=1)
def _load_part_decoder(folder: str, plan_sha256: str, devices: tuple[str, ...]) -> "PartDecoder":
    from lvae.evaluate.decoded_part import open_part_decoder

    device = device_of(find_devices(devices), find_worker_number())
    return open_part_decoder(folder_at(folder), _load_decode_plan(folder, plan_sha256), device)


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
