"""What stands after `--`."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lvae.cli import main
from lvae.commands.values.types import Duration
from lvae.encode.feeding.settings import Feeding
from lvae.manifests.errors import LvaeError
from lvae.pipeline.beam.graphs import encode
from lvae.pipeline.engines import clusters
from lvae.pipeline.engines.choose import choose_engine
from lvae.pipeline.engines.help import ENGINES
from tests.conftest import lvae


def test_options_that_beam_knows_are_passed_on() -> None:
    options = ["--runner=FlinkRunner", "--parallelism", "3", "--flink_master=here:8081", "--experiments=a"]
    assert choose_engine(options, 2, {}, print).options == ("--runner=FlinkRunner", *options[1:])
    assert choose_engine(["--direct_num_workers=2"], 2, {}, print).in_process


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--foo"], "--foo"), (["--foo=3", "--experiments=a"], "--foo=3"), (["nonsense"], "nonsense"), (["-x"], "-x")],
)
def test_options_that_beam_does_not_know_are_refused(options: list[str], named: str) -> None:
    with pytest.raises(LvaeError, match=f"after --: {named} is unknown"):
        choose_engine(options, 2, {}, print)


def test_a_value_that_beam_refuses_is_refused_in_one_line() -> None:
    with pytest.raises(LvaeError, match="--direct_num_workers: invalid int value: 'many'") as error:
        choose_engine(["--direct_num_workers=many"], 2, {}, print)
    assert "\n" not in str(error.value)


def test_options_that_a_cluster_may_know_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    engine = choose_engine(["--runner=FlinkRunner", "--flinkConfDir=/etc/flink"], 2, {}, print)
    assert "--flinkConfDir=/etc/flink" in engine.options
    assert capsys.readouterr().out.count("\n") == 1


def test_nothing_is_begun_with_an_unknown_option(scenes: Path, tmp_path: Path) -> None:
    arguments = ("--autoencoder", "pixels", "--size", "32", "--", "--foo")
    said = lvae("encode", scenes, tmp_path / "out", *arguments, check=1).stderr
    assert said.startswith("lvae: a Beam option after --: --foo") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["encode", "shard", "decode", "reference --features x", "features --features x"])
def test_words_before_the_dashes_are_no_options_of_beam(command: str) -> None:
    said = CliRunner().invoke(main, [*command.split(), "a", "b", "more", "--", "--runner=dask"])
    assert said.exit_code == 2
    assert "unexpected extra argument" in said.output


@pytest.mark.parametrize(("given", "seconds"), [("2h", 7200), ("30m", 1800), ("90s", 90), ("90", 90), ("0", 0)])
def test_patience_is_told_in_hours_minutes_or_seconds(given: str, seconds: float) -> None:
    assert Duration().convert(given, None, None) == seconds


@pytest.mark.parametrize("given", ["", "h", "-1s", "1.5h", "2d", "nan"])
def test_patience_that_is_no_time_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter, match="no time such as"):
        Duration().convert(given, None, None)


def test_what_a_runner_cannot_do_without_is_asked_for() -> None:
    with pytest.raises(LvaeError, match="needs a job service"):
        choose_engine(["--runner=portable"], 2, {}, print)
    with pytest.raises(LvaeError, match=r"needs (a scheduler|the package distributed)"):
        choose_engine(["--runner=dask"], 2, {}, print)


def test_parts_spread_on_dask_without_a_word() -> None:
    """By default 128 of them are one partition, which goes to one worker."""
    said = ["--dask_client_address=tcp://here:8786"]
    assert "--dask_partition_size=1" in clusters.options_for(clusters.DASK, said, 16)
    assert "--dask_partition_size=500" in clusters.options_for(clusters.DASK, said, 5_000_000)
    assert not any("size" in one for one in clusters.options_for(clusters.DASK, [*said, "--dask_npartitions", "7"], 16))


SUBMISSIONS = {
    "flink": ("--flink_master=here:8081", "--flink_version=2.2", "--parallelism=16"),
    "spark": ("--spark_master_url=spark://here:7077",),
    "dataflow": (
        "--project=p",
        "--region=r",
        "--temp_location=gs://b/tmp",
        "--staging_location=gs://b/stage",
        "--sdk_container_image=image",
        "--sdk_location=container",
        "--machine_type=g2-standard-8",
        "--dataflow_service_option=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver",
        "--experiments=no_use_multiple_sdk_containers",
        "--number_of_worker_harness_threads=1",
        "--max_num_workers=20",
    ),
}
POOL = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")


@pytest.mark.parametrize("runner", SUBMISSIONS)
def test_a_submission_to_an_engine_that_is_not_here_is_built(runner: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As far as it goes without one: Beam knows every option of the recipe, and the job becomes what is sent."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.portable_runner import PortableRunner

    from lvae.pipeline.beam.transforms import EncodeParts, Job

    options = SUBMISSIONS[runner] + (() if runner == "dataflow" else POOL)
    engine = choose_engine([f"--runner={runner}", *options], 2, {}, print)
    assert capsys.readouterr().out == ""  # no option is unknown
    pipeline = beam.Pipeline(options=PipelineOptions([]))
    encode(
        pipeline, [(0, 5)], EncodeParts(Job("s3://b/latents", "0", "attempt", "latent-vae", None), Feeding(("cuda",)))
    )
    sent = PortableRunner.get_proto_pipeline(pipeline, PipelineOptions(list(POOL)))
    assert "Encode parts" in {step.unique_name for step in sent.components.transforms.values()}
    assert {one.urn for one in sent.components.environments.values()} == {"beam:env:external:v1"}
    assert not engine.in_process


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_its_recipe(name: str) -> None:
    said = CliRunner().invoke(main, ["encode", "--help-runner", name])
    assert said.exit_code == 0
    assert f"--runner={name}" in said.output and "Run here:" in said.output and "The same wheel" in said.output
    assert max(map(len, said.output.splitlines())) <= 120


def test_an_engine_that_nobody_knows_has_none() -> None:
    said = CliRunner().invoke(main, ["encode", "--help-runner", "hadoop"])
    assert said.exit_code == 1
