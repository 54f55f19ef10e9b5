"""How a submission is watched; the rest of pipeline/engines is tested by whole commands."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lvae.encode.feeding.settings import Feeding
from lvae.manifests.parts.phases import Phase
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam.work import PartsToEncode
from lvae.pipeline.engines import clusters, supervise
from lvae.pipeline.engines.choose import Engine
from lvae.pipeline.engines.supervise import Liveness
from lvae.pipeline.engines.tasks import Pending, Tasks
from lvae.pipeline.progress.reports import Report

COMPUTING = "import time\nwhile time.process_time() < 3: pass"
WAITING = "import time; time.sleep(120)"


def watched(code: str, folder: Folder) -> str:
    """What is said of a submission to Dask, whose workers are not heard of."""
    tasks = Tasks([0], lambda _: False, str, str, lambda _: PartsToEncode(str(folder), ((0, 1),), Feeding(())))
    engine = Engine(clusters.DASK, (), 1, {})
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        pending = Pending(folder, tasks)
        return supervise.supervise(folder, process, "attempt", pending, [0], engine, lambda *_: None).how
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("code", "said"), [(COMPUTING, "exit code 0"), (WAITING, "no worker got anywhere for 2 s")])
def test_workers_are_waited_for_while_the_submission_computes(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine so busy that loading Beam takes longer than workers may be silent."""
    monkeypatch.setattr(clusters, "PROMPT_SECONDS", 2.0)
    assert watched(code, Folder(tmp_path)) == said


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(supervise, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def look(liveness: Liveness, clock: Clock, seconds: int, phase: Phase, cpu: float = 0.0) -> str | None:
    """What is first said of a worker that gives signs of life for so long, and uses so much of a core for its task."""
    for second in range(seconds):
        clock.now += 1
        report = Report("working", "part 0", 3, "attempt", phase, second * cpu, where=str(second))  # it beats
        if (said := liveness.look([report], 1, 0.0)) is not None:
            return said
    return None


@pytest.mark.parametrize("phase", ["loading", "reading", "writing"])
def test_a_file_server_that_fails_over_and_a_first_compilation_are_no_stall(phase: Phase, clock: Clock) -> None:
    assert look(Liveness(60, 60, "worker"), clock, 300, phase) is None


def test_a_task_that_hangs_is_noticed_after_the_patience_of_its_phase(clock: Clock) -> None:
    assert look(Liveness(60, 60, "worker"), clock, 90, "computing") == "no worker got anywhere computing for 60 s"
    assert look(Liveness(60, 60, "worker"), clock, 700, "reading") == "no worker got anywhere reading for 600 s"


def test_a_task_that_gets_little_of_a_busy_machine_is_no_stall(clock: Clock) -> None:
    assert look(Liveness(60, 60, "worker"), clock, 600, "computing", cpu=0.02) is None


def test_workers_that_stopped_give_no_sign_of_life(clock: Clock) -> None:
    liveness, stopped = Liveness(60, 60, "worker"), [Report("working", "part 0", 3, "attempt", "reading")]
    said = [liveness.look(stopped, 1, 0.0) for _ in range(70) if setattr(clock, "now", clock.now + 1) is None]
    assert said[:60] == [None] * 60 and said[61] == "no worker gave a sign of life for 60 s"


def test_what_the_command_itself_could_not_see_is_no_stall(clock: Clock) -> None:
    liveness = Liveness(60, 60, "worker")
    assert look(liveness, clock, 50, "computing") is None
    clock.now += 600
    liveness.excuse(600)
    assert look(liveness, clock, 5, "computing") is None
