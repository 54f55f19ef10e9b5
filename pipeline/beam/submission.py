"""One submission of a Beam job, as a process of its own: `python -m lvae.pipeline.beam.submission SPEC.json`.

The command that starts it watches it from outside (pipeline/engines/submit.py), and what it has achieved is read
from receipts. So this process may die at any moment without loss.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.decoded_parts import read_decode_plan
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.storage.open import folder_at
from lvae.pipeline.beam.work import PartsToDecode, PartsToEncode, Submission

if TYPE_CHECKING:
    from lvae.pipeline.beam.transforms import Job

PR_SET_PDEATHSIG = 1


class StoppedError(Exception):
    """The command has asked for an end."""


def main(path: str) -> None:
    submission = records.parse(Submission, Path(path).read_bytes(), path)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            return  # the command died before that took effect
    signal.signal(signal.SIGTERM, _stop)
    run(submission)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise StoppedError


def run(submission: Submission) -> None:
    """Build the graph, run it, wait; asked to stop, take the job off the engine. Raises whatever the engine raises."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from lvae.pipeline.beam import graphs
    from lvae.pipeline.beam.step_transform import DoStep
    from lvae.pipeline.beam.transforms import EncodeParts, MakePictures

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    pipeline = beam.Pipeline(options=PipelineOptions(list(submission.options)))
    job = _describe_job(submission)
    work = submission.work
    if isinstance(work, PartsToEncode):
        graphs.encode(pipeline, work.parts, EncodeParts(job, work.feeding))
    elif isinstance(work, PartsToDecode):
        graphs.decode(pipeline, work.parts, MakePictures(job, work.devices))
    else:
        graphs.do_step(pipeline, work.numbers, DoStep(job, work))
    graphs.check(pipeline)
    result = pipeline.run()
    try:
        state = result.wait_until_finish()
    except StoppedError:
        state = result.cancel()
    print(json.dumps({"state": str(state)}))


def _describe_job(submission: Submission) -> "Job":
    from lvae.pipeline.beam.transforms import Job
    from lvae.pipeline.beam.worker_check import package

    work = submission.work
    folder = folder_at(work.dataset)
    plan = read_decode_plan(folder) if isinstance(work, PartsToDecode) else read_plan(folder)
    if plan is None:
        raise LvaeError(work.dataset, "has no plan")
    return Job(
        dataset=work.dataset,
        plan_sha256=plan.whole_sha256,
        attempt=submission.attempt,
        package=package(),
        submitter=os.getpid() if submission.watched else None,
    )


if __name__ == "__main__":
    main(sys.argv[1])
