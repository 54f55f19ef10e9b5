"""What stands after `--`."""

from pathlib import Path

import pytest

from lvae.manifests.errors import LvaeError
from lvae.pipeline.runners import choose_engine
from tests.conftest import lvae


def test_options_that_beam_knows_are_passed_on() -> None:
    options = ["--runner=FlinkRunner", "--parallelism", "3", "--flink_master=here:8081", "--experiments=a"]
    assert choose_engine(options, 2, {}).options == ("--runner=FlinkRunner", *options[1:])
    assert choose_engine(["--direct_num_workers=2"], 2, {}).in_process


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--foo"], "--foo"), (["--foo=3", "--experiments=a"], "--foo=3"), (["nonsense"], "nonsense"), (["-x"], "-x")],
)
def test_options_that_beam_does_not_know_are_refused(options: list[str], named: str) -> None:
    with pytest.raises(LvaeError, match=f"after --: {named} is unknown"):
        choose_engine(options, 2, {})


def test_a_value_that_beam_refuses_is_refused_in_one_line() -> None:
    with pytest.raises(LvaeError, match="--direct_num_workers: invalid int value: 'many'") as error:
        choose_engine(["--direct_num_workers=many"], 2, {})
    assert "\n" not in str(error.value)


def test_options_that_a_cluster_may_know_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    engine = choose_engine(["--runner=FlinkRunner", "--flinkConfDir=/etc/flink"], 2, {})
    assert "--flinkConfDir=/etc/flink" in engine.options
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_begun_with_an_unknown_option(scenes: Path, tmp_path: Path) -> None:
    arguments = ("--autoencoder", "pixels", "--size", "32", "--", "--foo")
    said = lvae("encode", scenes, tmp_path / "out", *arguments, check=1).stderr
    assert said.startswith("lvae: a Beam option after --: --foo") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
