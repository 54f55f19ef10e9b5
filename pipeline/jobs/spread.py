"""Steps done by workers: group by group, shard by shard, check by check, until each has left its file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from lvae.manifests.parts.plan import Plan
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam.steps import STEPS, Place
from lvae.pipeline.beam.work import StepsToDo, ranges_of
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.submit import run
from lvae.pipeline.engines.tasks import Pending, Tasks
from lvae.pipeline.progress.display import Display

Finished = Callable[[int], bool]

# Of a dataset with less than this the command folds and checks by itself: starting workers would take longer.
SMALL_BYTES, SMALL_LATENTS = 256 << 20, 1 << 17


@dataclass(frozen=True)
class Spread:
    """A dataset and those who work on it. scratch: where steps leave what they leave, see pipeline/beam/steps.py."""

    folder: Folder
    scratch: Folder
    plan: Plan
    engine: Engine
    display: Display

    @cached_property
    def small(self) -> bool:
        encoding = self.plan.encoded()
        latents = self.plan.listing.images * encoding.image.orientations
        size = latents * prod(encoding.raw_shape) * np.dtype(encoding.raw_dtype).itemsize
        return latents <= SMALL_LATENTS and size <= SMALL_BYTES

    def do(self, step: str, numbers: Sequence[int], finished: Finished, view: str = "") -> int:
        """Have workers do a step with every number that is not finished; how many those were."""
        engine, plan = self.engine, self.plan.sha256
        here, scratch = self.folder.address, self.scratch.address
        tasks = Tasks(
            numbers=numbers,
            finished=finished,
            name=lambda number: f"{step} {number}",
            describe=lambda number: f"{step} {number}",
            work=lambda some: StepsToDo(here, scratch, step, view, plan, ranges_of(some, engine.tasks), engine.command),
        )
        made, total = len(Pending(self.scratch, tasks).update()), len(numbers)
        if made:
            doing, unit = STEPS[step].doing, STEPS[step].unit
            with self.display.progress(doing, total, unit, total - made) as bar:
                run(self.scratch, tasks, engine, lambda _, left: bar.at(total - len(left)), self.display.say)
        return made

    def do_here(self, step: str, numbers: Sequence[int], finished: Finished, view: str = "") -> int:
        """The same in this process."""
        place, made = Place(self.folder, self.scratch, self.plan, view, self.engine.command), 0
        for number in numbers:
            if not finished(number):
                STEPS[step].do(place, number)
                made += 1
        return made

    def do_small(self, step: str, numbers: Sequence[int], finished: Finished, view: str = "") -> int:
        """The same where that is faster."""
        return (self.do_here if self.small else self.do)(step, numbers, finished, view)
