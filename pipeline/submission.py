"""One submission of a Beam job, as a process of its own: `python -m lvae.pipeline.submission SPEC.json`.

The command that starts it watches it from outside (runners.py), and what it has achieved is read from receipts. So
this process may die at any moment without loss.
"""

import ctypes
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from lvae.manifests import records

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Submission:
    """What to run: parts or shards, the other is empty.

    options: Beam's, as on a command line. watched: by a command on this machine, which workers do not outlive.
    """

    dataset: str
    parts: tuple[int, ...]
    shards: tuple[tuple[str, int], ...]
    view: str
    devices: tuple[str, ...]
    options: tuple[str, ...]
    watched: bool


def main(path: str) -> None:
    submission = records.parse(Submission, Path(path).read_bytes(), path)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            return  # the command died before that took effect
    run(submission)


def run(submission: Submission) -> None:
    """Build the graph, run it, wait. Raises whatever the engine raises."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from lvae.pipeline import build
    from lvae.pipeline.transforms import EncodePart, WriteShard

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    submitter = os.getpid() if submission.watched else None
    pipeline = beam.Pipeline(options=PipelineOptions(list(submission.options)))
    if submission.parts:
        build.encode(pipeline, submission.parts, EncodePart(submission.dataset, submission.devices, submitter))
    else:
        build.shards(pipeline, submission.shards, WriteShard(submission.dataset, submission.view, submitter))
    state = pipeline.run().wait_until_finish()
    print(json.dumps({"state": str(state)}))


if __name__ == "__main__":
    main(sys.argv[1])
