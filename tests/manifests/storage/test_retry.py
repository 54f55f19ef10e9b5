"""Calls that are repeated."""

import pytest

from lvae.manifests.storage.retry import retry


class Storage:
    def __init__(self, *answers: Exception | str):
        self.answers, self.asked = list(answers), 0

    def __call__(self) -> str:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_outage_is_waited_for() -> None:
    storage = Storage(OSError(5, "away"), TimeoutError(), "here")
    assert retry(storage, (0, 0)) == "here"


def test_the_last_failure_is_raised_as_it_came() -> None:
    storage = Storage(OSError(5, "first"), OSError(5, "second"))
    with pytest.raises(OSError, match="second"):
        retry(storage, (0,))


@pytest.mark.parametrize("answer", [FileNotFoundError(), PermissionError(), FileExistsError(), KeyError("bug")])
def test_an_answer_and_a_bug_are_not_asked_for_again(answer: Exception) -> None:
    storage = Storage(answer, "never")
    with pytest.raises(type(answer)):
        retry(storage, (0, 0))
    assert storage.asked == 1
