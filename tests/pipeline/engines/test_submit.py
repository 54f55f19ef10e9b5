"""How a submission is watched; the rest of pipeline/engines/submit.py is tested by whole commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam.work import PartsToEncode
from lvae.pipeline.engines import clusters
from lvae.pipeline.engines import submit as runners
from lvae.pipeline.engines.choose import Engine

COMPUTING = "import time\nwhile time.process_time() < 3: pass"
WAITING = "import time; time.sleep(120)"


def watched(code: str, folder: Folder) -> str:
    """What is said of a submission to Dask, whose workers are not heard of."""
    work = PartsToEncode(str(folder), (0,), ())
    tasks = runners.Tasks([0], lambda _: False, str, str, lambda _: work)
    engine = Engine(clusters.DASK, (), 1, {})
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        waiting = runners.Pending(folder, tasks)
        return runners._watch(folder, process, "attempt", waiting, {0}, engine, lambda *_: None)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("code", "said"), [(COMPUTING, "exit code 0"), (WAITING, "no worker got anywhere for 2 s")])
def test_workers_are_waited_for_while_the_submission_computes(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine so busy that loading Beam takes longer than workers may be silent."""
    monkeypatch.setattr(clusters, "PROMPT_SECONDS", 2.0)
    monkeypatch.setattr(runners, "CPU_SECONDS", 0.2)
    assert watched(code, Folder(tmp_path)) == said
