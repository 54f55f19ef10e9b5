"""Only seeds of one setting are pooled."""

from pathlib import Path

import pytest

from tests.conftest import lvae
from tests.evaluate import run_examples


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("alike")
    run_examples.run(root / "run", run_examples.dataset(root / "data"))
    others = {"a": (), "few": ("-n", "30"), "guided": ("--guidance", "paper"), "one": ("--labels", "1")}
    for name, more in others.items():
        lvae("sample", root / "run", root / name, "-n", "40", "--seed", str(len(name)), "--device", "cpu", *more)
    return root


@pytest.mark.parametrize(("other", "said"), [("few", "-n 30"), ("guided", "guidance_mean"), ("one", "--labels 1")])
def test_sets_that_differ_in_more_than_their_seed_are_refused(other: str, said: str, world: Path) -> None:
    done = lvae("score", "--samples", "a", "--samples", other, "--reference", "data", check=1, cwd=world)
    assert said in done.stderr and "not seeds of one setting" in done.stderr


def test_a_reference_of_other_classes_is_told_in_one_line(world: Path, tmp_path: Path) -> None:
    def note(samples: str, reference: Path) -> list[str]:
        done = lvae("score", "--samples", samples, "--reference", reference, "--metrics", "frechet", cwd=world)
        return [line for line in done.stderr.splitlines() if "distances measure this" in line]

    assert note("a", world / "data") == []
    (line,) = note("one", world / "data")
    assert "the samples are of 1 class" in line and "of 3: it alone has classes" in line


def test_a_dataset_against_itself_is_told(world: Path) -> None:
    done = lvae("score", "--samples", "data", "--reference", "data", cwd=world)
    assert "data is the reference itself" in done.stderr and "one below zero is zero within its error" in done.stderr
    other = lvae("score", "--samples", "a", "--reference", "data", "--metrics", "frechet", cwd=world)
    assert "the reference itself" not in other.stderr
