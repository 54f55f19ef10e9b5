import errno
from types import SimpleNamespace

import pytest

from lvae.manifests.errors import LvaeError
from lvae.pipeline.engines import patience as module
from lvae.pipeline.engines.patience import Patience


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, in seconds; no test takes as long."""
    waited = list[float]()
    time = SimpleNamespace(monotonic=lambda: sum(waited), sleep=waited.append)
    monkeypatch.setattr(module, "time", time)
    return waited


def test_each_wait_is_longer_until_a_limit_and_said_in_a_line(waits: list[float]) -> None:
    said = list[str]()
    patience = Patience(3600, said.append)
    with pytest.raises(LvaeError, match=r"the storage failed for 1:00:00 \(503\).*--patience"):
        while True:
            patience.wait("503")
    assert waits[:9] == [2, 4, 8, 16, 32, 64, 128, 256, 300] and sum(waits) == 3600
    assert len(said) == len(waits) and said[0] == "the storage failed (503); trying again in 0:02, for 1:00:00 at most"


def test_getting_anywhere_begins_anew(waits: list[float]) -> None:
    patience = Patience(10, print)
    for _ in range(20):
        patience.wait("503")
        patience.wait("503")
        patience.reset()
    assert waits == [2, 4] * 20


def test_a_call_is_repeated_while_the_storage_fails_and_for_nothing_else(waits: list[float]) -> None:
    failures: list[Exception] = [TimeoutError(), ConnectionResetError(), OSError(errno.EIO, "503", "s3://b/a")]

    def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert Patience(60, print).call(call) == "done"
    assert waits == [2, 4, 8]
    for error in (FileNotFoundError(), PermissionError(), OSError(errno.ENOSPC, "full"), OSError(errno.EROFS, "ro")):
        failures.append(error)
        with pytest.raises(type(error)):
            Patience(60, print).call(call)
    assert waits == [2, 4, 8]


def test_without_patience_the_first_failure_ends_it(waits: list[float]) -> None:
    with pytest.raises(LvaeError, match="the storage failed"):
        Patience(0, print).wait("503")
    assert not waits
