import threading
import time
from pathlib import Path

import pytest

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.progress import reports as module
from lvae.pipeline.progress.reports import PROGRESS, PartsDone, Report, Reporter, Throttle, read_reports


def test_what_is_done_counts_finished_parts_and_what_workers_say_of_waiting_ones() -> None:
    done = PartsDone([10, 10, 10, 5], [1, 3])
    assert done.now([], [1, 3]) == 20
    working = [Report("working", "part 1", 4), Report("working", "part 3", 2), Report("done", "part 0", 0)]
    assert done.now(working, [1, 3]) == 26
    assert done.now(working, [3]) == 32, "what is finished must not count twice"
    assert done.now(working, []) == 35


def test_two_workers_at_one_part_count_once() -> None:
    done = PartsDone([10], [0])
    assert done.now([Report("working", "part 0", 4), Report("working", "part 0", 7)], [0]) in (4, 7)


def test_what_is_dear_is_not_due_again_soon_unless_it_has_to_be() -> None:
    def dear(throttle: Throttle) -> Throttle:
        assert throttle.due
        with throttle:
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
        return throttle

    assert not dear(Throttle(0.001)).due
    soon = dear(Throttle(0.001, longest=0.1))
    time.sleep(0.15)
    assert soon.due


def test_a_report_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    Reporter(folder, "part 1", "attempt").working(3)
    (whole,) = (tmp_path / PROGRESS).glob("*.json")
    for name, data in (
        ("torn", whole.read_bytes()[:30]),
        ("empty", b""),
        ("bytes", b"\xff\xfe"),
        ("list", b"[1]"),
        ("unknown", b'{"kind": "sleeping", "task": "part 1", "done": 1}'),
        ("nan", whole.read_bytes().replace(b'"done": 3', b'"done": NaN')),
        ("more", whole.read_bytes().replace(b"{", b'{"of another version": 1, ')),
    ):
        (tmp_path / PROGRESS / f"{name}.json").write_bytes(data)
    (tmp_path / PROGRESS / "folder.json").mkdir()
    (tmp_path / PROGRESS / "gone.json").symlink_to(tmp_path / "nowhere")
    assert [(one.task, one.done) for one in read_reports(folder)] == [("part 1", 3)]


def test_why_a_worker_gave_up_travels_whole(tmp_path: Path) -> None:
    with Reporter(Folder(tmp_path), "part 1", "attempt") as reporter:
        reporter.failed("user", LvaeError("a\udcff.png", "cannot be used", "Leave it out."))
    (found,) = read_reports(Folder(tmp_path), "attempt")
    assert (found.kind, found.error().problem, found.error().advice) == ("user", "cannot be used", "Leave it out.")
    assert "a" in found.where


def test_a_first_batch_counts_as_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerators may compile it, for minutes."""
    monkeypatch.setattr(module, "_computed", threading.Event())
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    reporter, phases = Reporter(Folder(tmp_path), "part 1", "attempt"), []
    for phase in ("reading", "computing", "reading", "computing", "writing"):
        reporter.enter(phase)
        reporter.working(1)
        phases += [one.phase for one in read_reports(Folder(tmp_path))]
    assert phases == ["reading", "loading", "reading", "computing", "writing"]
