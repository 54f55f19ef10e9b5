"""Doing a step with a range of numbers, in a worker."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import apache_beam as beam
from apache_beam.metrics import Metrics

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.open import folder_at
from lvae.pipeline.beam.steps import STEPS, Place
from lvae.pipeline.beam.transforms import NAMESPACE, Job, load_plan, run_task
from lvae.pipeline.beam.work import Range, StepsToDo


class DoStep(beam.DoFn):  # type: ignore[misc]
    """A range of numbers -> which of them are done, as JSON. `work` without its numbers."""

    def __init__(self, job: Job, work: StepsToDo):
        self.job, self.work = job, replace(work, numbers=())
        self.done = Metrics.counter(NAMESPACE, f"{work.step} done")

    def process(self, numbers: Range) -> Iterator[bytes]:
        here = replace(self.job, dataset=self.work.scratch)  # where the command looks for signs of life
        for number in range(*numbers):
            with run_task(here, f"{self.work.step} {number}") as (_, reporter):
                reporter.enter("reading")
                STEPS[self.work.step].do(_place(self.job, self.work), number)
            self.done.inc()
            yield records.dumps({"step": self.work.step, "number": number})


@lru_cache(maxsize=1)
def _place(job: Job, work: StepsToDo) -> Place:
    """One for all tasks of a submission: what is read once serves all of them."""
    folder = folder_at(work.dataset)
    scratch = folder if work.scratch == work.dataset else folder_at(work.scratch)
    plan = load_plan(work.dataset, job.plan_sha256).before_append(work.plan)
    if plan is None:
        raise LvaeError(work.dataset, "holds another plan than was submitted", "Run the same command again.")
    return Place(folder, scratch, plan, work.view, work.command)
