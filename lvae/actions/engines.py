"""Where a job runs, from options of the command line: on this machine's cores or GPUs, or on an engine elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from lvae.encode.feeding.settings import Feeding
    from lvae.pipeline.engines.choose import Engine

T = TypeVar("T")


def choose(beam_options: tuple[str, ...], workers: int | None, patience: float) -> "Engine":
    """workers: 0 in the engine where None is said. patience: seconds to wait for a storage that fails."""
    from lvae.manifests.machine import keep_memory
    from lvae.pipeline.engines.choose import choose_engine
    from lvae.pipeline.progress.console import say

    return replace(choose_engine(beam_options, workers or 0, keep_memory(), say), patience=patience)


def wait_for_storage(patience: float, job: Callable[[], T]) -> T:
    """Run a job that can be repeated; where the storage fails, wait and run it again, for up to so many seconds."""
    from lvae.pipeline.engines.patience import Patience
    from lvae.pipeline.progress.console import say

    return Patience(patience, say).call(job)


def wait_for_store(dataset: str, patience: float, job: Callable[[], T]) -> T:
    """The same for a job that looks at a dataset: where it lies on this machine's disks, what fails is told at once."""
    return wait_for_storage(patience, job) if "://" in dataset else job()


def workers_for(engine: "Engine", devices: Sequence[str]) -> int:
    """As many as were asked for, or one a core, or one a GPU."""
    from lvae.encode.feeding.cores import cores

    return engine.workers or (cores() if tuple(devices) == ("cpu",) else len(devices))


def ready(
    engine: "Engine", devices: Sequence[str], dataset: str, source: str | None, local: Sequence[str], shared: bool
) -> "Engine":
    """The engine with its workers counted, or looked at where they are elsewhere. LvaeError where they will not do.

    dataset: the folder that workers write to. source: what they read, if that is files. local: paths that all of them
    must see, which `shared` says they do.
    """
    if engine.in_process:
        return replace(engine, workers=workers_for(engine, devices))
    for path in local:
        if not shared and "://" not in path and not path.startswith("synthetic:"):
            raise LvaeError(path, "workers elsewhere may not see this path", "Say --shared-path if they do.")
    examine(engine, dataset, source)
    return engine


def examine(engine: "Engine", dataset: str, source: str | None) -> None:
    """Whether an engine on other machines is there and fit, before anything is begun."""
    from lvae.manifests.storage.open import folder_at
    from lvae.pipeline.engines import clusters
    from lvae.pipeline.progress.console import say

    if engine.in_process:
        return
    if source is not None:
        source = (
            None if source.startswith("synthetic:") else source if "://" in source else str(Path(source).absolute())
        )
    clusters.examine(engine.runner, engine.options, folder_at(dataset).address, source, say)


def devices_for(engine: "Engine", options: dict[str, Any]) -> tuple[str, ...]:
    """Of this machine; for workers elsewhere as they are to understand them, and whether they are there is for those
    to say."""
    from lvae.encode.devices import choose_device, choose_devices, devices_here

    numbers, device = options.get("devices"), options["device"]
    if not engine.in_process:
        return (device,) if numbers is None else tuple(f"cuda:{number.strip()}" for number in numbers.split(","))
    if numbers is not None:
        return choose_devices(numbers)
    return devices_here() if device == "auto" else (choose_device(device),)


def feeding_for(engine: "Engine", devices: tuple[str, ...], decoders: int | None, prefetch: int) -> "Feeding":
    """How workers are fed. Those on this machine share its cores; those elsewhere know theirs themselves."""
    from lvae.encode.devices import is_accelerator
    from lvae.encode.feeding.cores import cores
    from lvae.encode.feeding.settings import Feeding

    if decoders is None and engine.in_process and is_accelerator(devices[0]):
        decoders = max(1, cores() // workers_for(engine, devices))
    return Feeding(devices, decoders, prefetch)
