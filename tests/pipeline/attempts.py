"""A process that makes attempts at little datasets, and stops itself (SIGSTOP) in the middle of them.

python -m tests.pipeline.attempts: reads an `Attempt` a line from stdin, prints how it ended. A step is a call that
makes, renames, links or removes a file of the dataset; on a store, the moment before or after a request that writes.
Waiting is shorter than in earnest, so that hundreds of attempts take minutes.
"""

import errno
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import read_manifest
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import finished, orphans, receipt_name
from lvae.manifests.publishing.publish import WrittenView, describe, drop_raw, swap, write_rejected
from lvae.manifests.shards.formats import codec
from lvae.manifests.storage import locks, object_store
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.manifests.storage.object_store import RemoteFolder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.verify.verify import verify
from lvae.manifests.views.combine import Selected, select
from lvae.manifests.views.gather import write_shard
from lvae.manifests.views.index_pieces import join_index, write_index_piece
from lvae.manifests.views.view import (
    ViewPlan,
    ViewSettings,
    plan_view,
    read_view,
    remove_unfinished_shards,
    write_view,
)
from lvae.pipeline.engines import patience
from tests.manifests.dataset_examples import Contents, pending_shards, plan_of, raw_of, write_raw

CONTENTS = Contents(images=40, part_size=20, rejected=frozenset({3, 17}))  # two parts, two shards
LEASE_SECONDS, BEAT_SECONDS = 0.6, 0.1
EVENTS = ("os.mkdir", "os.rename", "os.link", "os.remove")


@dataclass(frozen=True)
class Attempt:
    """what: "part", "shard" or "command". root: of the dataset, a path or URL. number: of the part or shard. seed: of
    the raw latents that it makes. step: at which it stops; 0 for never. format: of the view. dropped: the raw parts go.
    verified: every byte is read again, as `lvae encode` does. patience: in seconds. eio: a seed, a share of file
    operations that fail, and from when to when they do, in seconds from the start."""

    what: str
    root: str
    number: int = 0
    seed: int = 0
    step: int = 0
    format: str = "zarr"
    dropped: bool = False
    verified: bool = False
    patience: float = 60.0
    eio: tuple[int, float, float, float] | None = None


@dataclass(frozen=True)
class End:
    """how: "done", or the class of what it raised. said: the error's line."""

    how: str
    said: str = ""


def settings(attempt: Attempt) -> ViewSettings:
    return ViewSettings(format=attempt.format, shard_size=64)  # type: ignore[arg-type]


def begin(folder: Folder) -> Plan:
    """A dataset without parts."""
    plan = plan_of(folder, CONTENTS)
    folder.write(str(plan.encoded().autoencoder.weights_file), b"weights")
    return plan


def prepare_view(folder: Folder, plan: Plan, wanted: ViewSettings) -> tuple[Selected, ViewPlan]:
    selected = select(folder, plan, wanted.selection)
    write_rejected(folder, folder, 1)
    view = plan_view(plan, wanted, selected, selected.receipts.sha256)
    write_view(folder, view)
    return selected, view


def make_parts(folder: Folder, plan: Plan, seed: int) -> None:
    for part in range(plan.listing.parts):
        if finished(folder, plan, part) is None:
            folder.remove(receipt_name(part))
            write_raw(folder, CONTENTS, plan, part, raw_of(replace(CONTENTS, seed=seed), plan, part))


def make_all(attempt: Attempt) -> None:
    """What `lvae encode` does between its submissions, with the workers' part in this process."""
    folder = folder_at(attempt.root)
    with writing(folder):
        folder.sweep()
        plan, wanted = read_plan(folder), settings(attempt)
        assert plan is not None
        manifest = read_manifest(folder)
        if manifest is None or manifest.raw == "kept":
            make_parts(folder, plan, attempt.seed)
            selected, view = prepare_view(folder, plan, wanted)
            remove_unfinished_shards(folder, view)
            prepared = [codec(wanted.format).prepare(folder, view.name, layout) for layout in view.layouts.values()]
            for split, number in pending_shards(folder, view):
                write_shard(folder, plan, view, split, number)
            metadata = [record.path for records in prepared for record in records]
            for split in view.layouts:
                write_index_piece(folder, view, split, 0)
            indices = {split: join_index(folder, view, split) for split in view.layouts}
            swap(folder, describe(folder, plan, wanted, selected, WrittenView(view, metadata, indices)), False)
        for name in orphans(folder):
            folder.remove(name)
        if attempt.verified and (faults := verify(folder, deep=True)):
            raise LvaeError(folder, f"faults: {faults}")
        if attempt.dropped:
            drop_raw(folder)
        folder.sweep()


def carry_out(attempt: Attempt) -> None:
    if attempt.what == "command":
        patience.Patience(attempt.patience, lambda _: None).call(lambda: make_all(attempt))
        return
    folder = folder_at(attempt.root)
    plan = read_plan(folder)
    assert plan is not None
    if attempt.what == "part":
        raw = raw_of(replace(CONTENTS, seed=attempt.seed), plan, attempt.number)
        write_raw(folder, CONTENTS, plan, attempt.number, raw)
    else:
        name = next(name.split("/")[1] for name in folder.names("shards") if name.endswith("/view.json"))
        write_shard(folder, plan, read_view(folder, name), "train", attempt.number)


class Steps:
    """Counts steps and stops at one; lets file operations fail."""

    def __init__(self) -> None:
        self.attempt, self._left, self._begin, self._draw = Attempt("", ""), 0, 0.0, random.Random()

    def arm(self, attempt: Attempt) -> None:
        self.attempt, self._left, self._begin = attempt, attempt.step, time.monotonic()
        self._draw = random.Random(attempt.eio[0] if attempt.eio else 0)

    def pass_one(self) -> None:
        if threading.current_thread() is threading.main_thread() and self._left > 0:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook."""
        if event not in EVENTS and (event != "open" or not (arguments[2] or 0) & os.O_CREAT):
            return
        root, path = self.attempt.root, arguments[0]
        if not root or "://" in root or isinstance(path, int) or not os.fsdecode(path).startswith(root):
            return
        self.pass_one()
        if self.attempt.eio is not None:
            _, share, since, until = self.attempt.eio
            if since <= time.monotonic() - self._begin < until and self._draw.random() < share:
                raise OSError(errno.EIO, os.strerror(errno.EIO), os.fsdecode(path))

    def around(self, name: str) -> None:
        """Before and after every call of a method of stores' folders."""
        call = getattr(RemoteFolder, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            self.pass_one()
            found = call(*arguments, **more)
            self.pass_one()
            return found

        setattr(RemoteFolder, name, counted)


def ending(call: Callable[[], None]) -> End:
    try:
        call()
    except Exception as error:
        return End(type(error).__name__, str(error))
    return End("done")


def shorten_waiting() -> None:
    locks.LEASE_SECONDS, locks.BEAT_SECONDS = LEASE_SECONDS, BEAT_SECONDS
    object_store.DELAYS = (0.02, 0.05)
    patience.FIRST_SECONDS, patience.LONGEST_SECONDS = 0.05, 0.4
    if "AWS_ENDPOINT_URL" in os.environ:
        from s3fs import S3FileSystem  # type: ignore[import-not-found]

        S3FileSystem.retries = 1


def main() -> None:
    shorten_waiting()
    steps = Steps()
    for name in ("_send", "remove"):
        steps.around(name)
    sys.addaudithook(steps.hear)
    for line in sys.stdin:
        attempt = Attempt(**json.loads(line))
        steps.arm(attempt)
        end = ending(lambda attempt=attempt: carry_out(attempt))  # type: ignore[misc]
        steps.arm(Attempt("", ""))
        print(json.dumps(asdict(end)), flush=True)


if __name__ == "__main__":
    main()
