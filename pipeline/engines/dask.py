"""A Dask cluster: is it there, can its workers do the job, and which of them no longer answer?"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.storage.folder import TEMPORARY
from lvae.manifests.storage.open import folder_at
from lvae.pipeline.beam.worker_check import Answer, Question, answer, package

CONNECT_SECONDS = 8.0
WORKERS_SECONDS = 10.0  # for a first worker to arrive
ANSWER_SECONDS = 8.0
RETIRING_SECONDS = 15.0


def examine(scheduler: str, dataset: str, source: str | None, say: Callable[[str], None]) -> None:
    """LvaeError in one sentence, within half a minute, where the job could not go well."""
    _run_quietly(_examine(scheduler, dataset, source, say))


def retire_unresponsive_workers(scheduler: str, log: Callable[[str], None]) -> None:
    """Tell the scheduler that those which do not answer are gone; by itself it would notice after minutes."""
    _run_quietly(_retire(scheduler, log))


def _run_quietly(work: Any) -> None:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what it says of lost connections is told in our own words
    try:
        asyncio.run(work)
    finally:
        logging.disable(before)


async def _examine(scheduler: str, dataset: str, source: str | None, say: Callable[[str], None]) -> None:
    folder, nonce = folder_at(dataset), uuid.uuid4().hex
    probe = f"{TEMPORARY}/probe-{nonce}", nonce.encode()
    async with await _connect(scheduler) as client:
        addresses = await _workers(client, scheduler)
        folder.write(*probe)
        try:
            answers = await _ask_all(client, addresses, answer, Question(package(), dataset, probe, source))
        finally:
            folder.remove(probe[0])
        silent = [address for address, found in answers.items() if found is None]
        if len(silent) == len(answers):
            raise LvaeError(scheduler, f"none of {counted(len(silent), 'worker')} answers", "Start them anew.")
        for address, found in answers.items():
            if isinstance(found, Exception):
                raise _describe_failure(scheduler, address, found)
            if found is not None and found.error is not None:
                raise found.error
        kinds = sorted({found.libraries for found in answers.values() if isinstance(found, Answer)})
        if len(kinds) > 1:
            say(f"warning: workers differ, and the last bits of latents may: {'; '.join(kinds)}")
        for address in silent:
            say(f"warning: the worker {address} does not answer")
        link = client.dashboard_link if "dashboard" in client.scheduler_info()["services"] else "none"
        say(f"dask: {counted(len(answers), 'worker')} at {scheduler}, dashboard {link}")


async def _retire(scheduler: str, log: Callable[[str], None]) -> None:
    async with await _connect(scheduler) as client:
        answers = await _ask_all(client, await _workers(client, scheduler), package)
        silent = [address for address, found in answers.items() if found is None]
        if silent and len(silent) < len(answers):
            log(f"no longer counted on, as they do not answer: {', '.join(silent)}")
            await asyncio.wait_for(client.retire_workers(workers=silent, close_workers=True), RETIRING_SECONDS)


async def _connect(scheduler: str) -> Client:
    """LvaeError where no scheduler answers."""
    place = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    client = Client(**place, asynchronous=True, timeout=CONNECT_SECONDS, set_as_default=False)
    try:
        return await asyncio.wait_for(client, CONNECT_SECONDS + 2)
    except (OSError, ValueError, TimeoutError) as error:
        await client.close(timeout=1)
        raise LvaeError(
            scheduler, "no Dask scheduler answers there", "Is it started, and reachable from this machine?"
        ) from error


async def _workers(client: Client, scheduler: str) -> list[str]:
    """The workers' addresses; LvaeError where none comes."""
    try:
        await asyncio.wait_for(client.wait_for_workers(1), WORKERS_SECONDS)
    except TimeoutError as error:
        raise LvaeError(scheduler, "the scheduler has no workers", f"Start some: dask worker {scheduler}") from error
    return sorted(client.scheduler_info()["workers"])  # as the scheduler has just told them


async def _ask_all(
    client: Client, addresses: list[str], question: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """Every worker's answer by its address: what it says, the exception it raises, or None where nothing comes."""

    async def ask(address: str) -> Any:
        asking = client.run(question, *arguments, workers=[address], on_error="return")
        try:
            return (await asyncio.wait_for(asking, ANSWER_SECONDS))[address]
        except (TimeoutError, OSError):
            return None
        except Exception as error:  # what the worker could not even begin
            return error

    return dict(zip(addresses, await asyncio.gather(*map(ask, addresses)), strict=True))


def _describe_failure(scheduler: str, address: str, error: Exception) -> LvaeError:
    if "ModuleNotFoundError" in repr(error):  # or an exception that only quotes it
        lacking = f"the worker {address} lacks this package ({_first_line(error)})"
        return LvaeError(scheduler, lacking, "Install the same wheel there, and restart it.")
    return LvaeError(scheduler, f"the worker {address} cannot do the job ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
