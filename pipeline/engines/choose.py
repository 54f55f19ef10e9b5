"""Choose the engine of a job, and check the options that it is given."""

import importlib
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from lvae.manifests.errors import LvaeError
from lvae.pipeline.engines import clusters
from lvae.pipeline.engines.patience import DEFAULT_SECONDS

IN_PROCESS = "FnApiRunner"

# The in-process runner deals tasks out beforehand; engines elsewhere give a worker the next one when it is free.
TASKS_A_WORKER, TASKS_ELSEWHERE = 16, 1024

RUNNERS = {
    "fnapirunner": IN_PROCESS,
    "directrunner": IN_PROCESS,  # Beam's own choice under this name may download and run another engine
    "dask": clusters.DASK,
    "daskrunner": clusters.DASK,
    "portable": clusters.PORTABLE,
    "portablerunner": clusters.PORTABLE,
    "flink": "FlinkRunner",
    "flinkrunner": "FlinkRunner",
    "spark": "SparkRunner",
    "sparkrunner": "SparkRunner",
    "dataflow": "DataflowRunner",
    "dataflowrunner": "DataflowRunner",
}


@dataclass(frozen=True)
class Engine:
    """How a job is run: the runner by its full name, its options, and how many worker processes on this machine.

    environment: of those, beside the command's. patience: seconds to wait for a storage that fails. shuffle: in how
    many passes shards are written; "auto" means two on an object store. command: names this one among all others.
    """

    runner: str
    options: tuple[str, ...]
    workers: int
    environment: dict[str, str]
    patience: float = DEFAULT_SECONDS
    shuffle: Literal["auto", "one-pass", "two-passes"] = "auto"
    command: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def tasks(self) -> int:
        """How many tasks a job should have at least, so that all workers have some and end at about the same time."""
        return TASKS_A_WORKER * self.workers if self.in_process else TASKS_ELSEWHERE

    @property
    def in_process(self) -> bool:
        return self.runner == IN_PROCESS


def choose_engine(
    beam_options: Sequence[str], workers: int, environment: dict[str, str], say: Callable[[str], None]
) -> Engine:
    """Beam's options from what stands after `--`; LvaeError for a runner or an option that nobody knows.

    Other runners than the in-process one may take options that Beam's Python side does not know: those are warned of.
    """
    name, others = IN_PROCESS, []
    waiting = iter(beam_options)
    for option in waiting:
        if option == "--runner":
            name = next(waiting, "")
        elif option.startswith("--runner="):
            name = option.removeprefix("--runner=")
        else:
            others.append(option)
    runner = RUNNERS.get(name.lower(), name if name in RUNNERS.values() else None)
    if runner is None:
        known = "FnApiRunner, dask, portable, flink, spark, dataflow"
        raise LvaeError(f"--runner={name}", "there is no such runner", f"Choose one of {known}.")
    clusters.refuse_incomplete(runner, others)
    if others:
        _check_options(others, runner, say)
    return Engine(runner, (f"--runner={runner}", *others), workers, environment)


def _check_options(options: Sequence[str], runner: str, say: Callable[[str], None]) -> None:
    unknown = " ".join(unknown_options(options, runner))
    if unknown and runner == IN_PROCESS:
        raise LvaeError("a Beam option after --", f"{unknown} is unknown", "Leave it out, or mend its spelling.")
    if unknown:
        say(f"warning: Beam does not know {unknown}; passed on to {runner.rpartition('.')[2]} unchecked")


def unknown_options(options: Sequence[str], runner: str) -> list[str]:
    """The words that no options class of Beam takes; LvaeError for a value that one refuses.

    runner: where it is named with its module, that module may bring options of its own.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam complains about optional packages while it loads
    try:
        from apache_beam.options.pipeline_options import PipelineOptions

        if "." in runner:
            importlib.import_module(runner.rpartition(".")[0])
        parsers: list[Any] = []
        PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
        parser = parsers[0]
        parser.error = _refuse
        found: list[str] = parser.parse_known_args(list(options))[1]
    finally:
        logging.disable(before)
    return found


def _refuse(message: str) -> NoReturn:
    raise LvaeError("a Beam option after --", str(message), "'lvae encode SOURCE DATASET -- --help' shows them all.")
