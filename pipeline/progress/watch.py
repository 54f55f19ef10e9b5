"""`lvae watch`: how far a job is that runs elsewhere. It only reads, and needs no lock.

What is finished is asked of the receipts by name, as the plan gives them; how fast it goes, of timings/.
"""

import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import read_manifest_if_whole
from lvae.manifests.messages import counted, duration
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import receipt_name
from lvae.manifests.parts.timings import Timing, images_per_second, read_timing
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.views.view import ViewPlan, finished_shard, read_view
from lvae.pipeline.progress import reports as progress
from lvae.pipeline.progress.display import Display

POLL_SECONDS = 2.0
LOOKING_SHARE = 0.1  # of the time, at most, is spent looking
QUIET_SECONDS = 300.0  # without a finished part: then a rate of before says nothing
TIMINGS = 4096  # of the parts that were finished last


@dataclass(frozen=True)
class State:
    """How far a dataset is.

    images_under_way: of parts that are not finished, as far as workers on the same disk tell. shards: None before it is
    known how many there will be. images_per_second: of all workers, recently; None where nothing tells.
    seconds_since_last_part: by the workers' clocks and this machine's.
    """

    stage: Literal["scanned", "encoding", "writing", "finished"]
    images: int
    images_done: int
    images_under_way: int
    parts: int
    parts_done: int
    shards: int | None
    shards_done: int
    images_per_second: float | None
    seconds_left: float | None
    seconds_since_last_part: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def pace(self) -> str:
        """Rate and time left, as far as they are known; how long nothing came, where that is long."""
        since = self.seconds_since_last_part
        if since is not None and since >= QUIET_SECONDS:
            return f"last part {duration(since)} ago"
        rate = [] if self.images_per_second is None else [f"{self.images_per_second:.1f} images/s"]
        left = [] if self.seconds_left is None else [f"{duration(self.seconds_left)} left"]
        return ", ".join([*rate, *left])

    def __str__(self) -> str:
        match self.stage:
            case "scanned":
                return f"scanned: {counted(self.images, 'image')}; 'lvae encode' has not begun"
            case "encoding":
                parts = f"{self.parts_done} of {counted(self.parts, 'part')}"
                return ", ".join(
                    filter(None, [f"encoding: {self.images_done} of {self.images} images, {parts}", self.pace])
                )
            case "writing" if self.shards is None:
                return f"all of {counted(self.images, 'image')} encoded; the view is being planned"
            case "writing":
                return f"writing shards: {self.shards_done} of {self.shards}"
        return f"finished: {counted(self.images, 'image')} in {counted(self.parts, 'part')}"


class Observer:
    """Looks again and again, and at nothing that is finished twice."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self._plan: Plan | None = None
        self._pending: list[int] = []
        self._timings: deque[Timing] = deque(maxlen=TIMINGS)

    def look(self) -> State:
        plan = read_plan(self._folder)
        if plan is None:
            raise LvaeError(
                self._folder,
                "has no plan.json, so there is nothing to watch",
                "Start 'lvae encode', or wait until it has listed the images.",
            )
        if self._plan is None or self._plan.sha256 != plan.sha256:
            self._plan, self._pending = plan, list(range(plan.listing.parts))
            self._timings.clear()
        self._take_finished()
        manifest = read_manifest_if_whole(self._folder)
        if manifest is not None and manifest.plan_sha256 == plan.sha256:
            return self._state(plan, "finished", None)
        if plan.encoding is None:
            return self._state(plan, "scanned", None)
        if self._pending:
            return self._state(plan, "encoding", None)
        return self._state(plan, "writing", self._view_begun(manifest.view.name if manifest is not None else None))

    def _take_finished(self) -> None:
        finished = [part for part in self._pending if self._folder.size(receipt_name(part)) is not None]
        if finished:
            gone = set(finished)
            self._pending = [part for part in self._pending if part not in gone]
        for part in finished[-TIMINGS:]:
            if (timing := read_timing(self._folder, part)) is not None:
                self._timings.append(timing)

    def _state(
        self, plan: Plan, stage: Literal["scanned", "encoding", "writing", "finished"], view: ViewPlan | None
    ) -> State:
        waiting = sum(plan.listing.place(part).rows for part in self._pending)
        rate = images_per_second(self._timings)
        last = max((timing.ended for timing in self._timings), default=None)
        encoding = stage == "encoding"
        under_way = min(self._under_way(), waiting) if encoding else 0
        return State(
            stage=stage,
            images=plan.listing.images,
            images_done=plan.listing.images - waiting,
            images_under_way=under_way,
            parts=plan.listing.parts,
            parts_done=plan.listing.parts - len(self._pending),
            shards=None if view is None else sum(layout.shards for layout in view.layouts.values()),
            shards_done=0 if view is None else self._shards_done(view),
            images_per_second=rate,
            seconds_left=(waiting - under_way) / rate if rate and encoding else None,
            seconds_since_last_part=None if last is None else max(0.0, time.time() - last),
        )

    def _under_way(self) -> int:
        named = {f"part {part}" for part in self._pending}
        reports = progress.read_reports(self._folder)
        return sum(report.done for report in reports if report.kind == "working" and report.task in named)

    def _view_begun(self, old: str | None) -> ViewPlan | None:
        """The view being written: the only one that no manifest names."""
        names = {name.split("/")[1] for name in self._folder.names("shards") if name.endswith("/view.json")} - {old}
        try:
            return read_view(self._folder, names.pop()) if len(names) == 1 else None
        except LvaeError:
            return None  # swept away between two looks

    def _shards_done(self, view: ViewPlan) -> int:
        shards = ((split, number) for split, layout in view.layouts.items() for number in range(layout.shards))
        return sum(finished_shard(self._folder, view, split, number) is not None for split, number in shards)


def look_once(dataset: str) -> State:
    return Observer(folder_at(dataset)).look()


def watch(dataset: str, display: Display) -> State:
    """Show progress on stderr until the dataset is finished: a bar on a terminal, a line now and then elsewhere."""
    observer = Observer(folder_at(dataset))
    state = observer.look()
    while state.stage != "finished":
        if not sys.stderr.isatty():
            display.say(str(state))
        state = _watch_stage(observer, state, display)
    return state


def _watch_stage(observer: Observer, state: State, display: Display) -> State:
    """Until something else is counted; the first state in which it is."""
    counting = (state.stage, state.images, state.shards)
    shards = state.stage == "writing"
    total, unit = (state.shards or 0, "shards") if shards else (state.images, "images")
    done = state.shards_done if shards else state.images_done
    pause = POLL_SECONDS
    with display.progress("writing shards" if shards else state.stage, total, unit, done, paced=False) as bar:
        while counting == (state.stage, state.images, state.shards):
            bar.at(state.shards_done if shards else state.images_done + state.images_under_way, state.pace)
            time.sleep(pause)
            start = time.monotonic()
            state = observer.look()
            pause = max(POLL_SECONDS, (time.monotonic() - start) * (1 / LOOKING_SHARE - 1))
    return state
