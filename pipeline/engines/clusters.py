"""What engines on other machines need: options set that are traps, a look before the job, and one after a stall."""

import importlib.util
import socket
from collections.abc import Callable, Sequence

from lvae.manifests.errors import LvaeError

DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
PORTABLE = "PortableRunner"

PARTITIONS = 10_000  # that a Dask scheduler is given at once, at most: it needs about a millisecond for each
CONNECT_SECONDS = 10.0
STARTING_SECONDS = 900.0  # for an engine to start machines, before a worker is heard of
PROMPT_SECONDS = 60.0  # the same, where the workers are there already


def refuse_incomplete(runner: str, options: Sequence[str]) -> None:
    """LvaeError for options without which a runner would start something else, or hang."""
    if runner == DASK:
        if importlib.util.find_spec("distributed") is None or importlib.util.find_spec("dask") is None:
            raise LvaeError("--runner=dask", "needs the package distributed. pip install 'latent-vae[dask]'")
        if not (_value(options, "--dask_client_address") or _value(options, "--dask_scheduler_file")):
            raise LvaeError(
                "--runner=dask",
                "needs a scheduler",
                ("Start one ('lvae encode --help-runner dask'), and say --dask_client_address=tcp://HOST:8786."),
            )
    if runner == PORTABLE and not _value(options, "--job_endpoint"):
        raise LvaeError(
            "--runner=portable",
            "needs a job service",
            "Start one ('lvae encode --help-runner portable'), and say --job_endpoint=HOST:8099.",
        )


def options_for(runner: str, options: Sequence[str], tasks: int) -> tuple[str, ...]:
    """What a runner has to be told for so many tasks, and the user has not."""
    if runner != DASK:
        return ()
    added = []
    if not (_value(options, "--dask_partition_size") or _value(options, "--dask_npartitions")):
        added.append(f"--dask_partition_size={-(-tasks // PARTITIONS)}")  # by default 128 tasks are one
    if not _value(options, "--dask_connection_timeout"):
        added.append(f"--dask_connection_timeout={CONNECT_SECONDS:.0f}")
    return tuple(added)


def starting_seconds(runner: str) -> float:
    """How long no worker need be heard of at first."""
    return PROMPT_SECONDS if runner in (DASK, PORTABLE) else STARTING_SECONDS


def examine(runner: str, options: Sequence[str], dataset: str, source: str | None, say: Callable[[str], None]) -> None:
    """Look at an engine before anything is begun: LvaeError where it is out of reach or its workers are not fit.

    dataset: its address. source: of images, if workers are to read some.
    """
    if runner == DASK:
        from lvae.pipeline.engines import dask as dask_cluster

        dask_cluster.examine(_dask_address(options), dataset, source, say)
    elif runner == PORTABLE:
        endpoint = _value(options, "--job_endpoint")
        if endpoint != "embed":
            _refuse_silent("--job_endpoint", endpoint)
        if _value(options, "--environment_type").upper() == "EXTERNAL":
            _refuse_silent("--environment_config", _value(options, "--environment_config"))


def retire_unresponsive_workers(runner: str, options: Sequence[str], log: Callable[[str], None]) -> None:
    """After a stall, and before the same tasks are submitted again."""
    if runner == DASK:
        from lvae.pipeline.engines import dask as dask_cluster

        dask_cluster.retire_unresponsive_workers(_dask_address(options), log)


def _dask_address(options: Sequence[str]) -> str:
    """The scheduler's address, or the file that says it."""
    return _value(options, "--dask_client_address") or _value(options, "--dask_scheduler_file")


def _value(options: Sequence[str], name: str) -> str:
    """Of `--name=value` or `--name value`; "" where it is not given."""
    for position, option in enumerate(options):
        if option.startswith(f"{name}="):
            return option.removeprefix(f"{name}=")
        if option == name and position + 1 < len(options):
            return options[position + 1]
    return ""


def _refuse_silent(option: str, place: str) -> None:
    """LvaeError where nobody listens at HOST:PORT."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise LvaeError(f"{option}={place}", "write HOST:PORT")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise LvaeError(
            f"{option}={place}", f"nothing answers there ({error})", "Is it started, and reachable?"
        ) from error
