"""`lvae demo`: one run through everything there is, small enough to watch. Each step is a command of its own."""

import contextlib
import io
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import click
import torch

from lvae.actions.study.arms import CONDITIONAL, Model
from lvae.actions.study.timing import time_model
from lvae.encode.quality import efficientnet
from lvae.evaluate.pictures.decode import write_whole
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import duration
from lvae.manifests.storage.folder import Folder

PLAN = "demo.json"
PICTURES, SIZE = 1000, 32
UPDATES_A_MINUTE = 1000  # of the whole demo, at most
TRAINED = 0.57  # of the minutes, at most; scores and the report take the rest
TIMED = 16  # updates, before it
THREADS = 2  # that train, at most: a batch is two slices, and operations so small gain nothing from more
SEEDS = (0, 1, 2)
SCORED = 2000  # samples of each seed; of 500, kernel distances are noise
MEASURED = 1000  # latents whose residuals are taken
SEEN = 1000  # of each set, by the feature network; fewer in a shorter demo
TEMPERATURE = 1.15  # of the draws: after so few updates samples vary less than pictures do
OUTPUT_TEMPERATURE = 0.5  # share of the predicted deviation, as correlated noise: means alone are smooth
MODEL = {
    "preset": "tiny",
    "groups": "2,2,1",
    "batch": "16",
    "ema": "0.99",  # a hundred updates: a longer average lags behind so short a training
    "learning_rate_schedule": "cosine",
    "learning_rate_minimum": "1e-5",
    "spectral_weight": "0",  # what it guards against comes later than this training ends
    "rate_lower": "150",  # percent; the paper's 66.7 is too dear for a few minutes (tests/benchmarks/recipe_search.md)
}
NIGHT = 0.2  # by day alone a Gaussian a class is as near as real pictures are, and no model can be told from it


@dataclass(frozen=True)
class DemoPlan:
    """OUT/demo.json. minutes: as asked for. updates: of training, which the schedule of the model is made for."""

    format: Literal["latent-vae-demo"]
    version: Literal[1]
    minutes: float
    updates: int


class Step(NamedTuple):
    """What is done, and the words of the command behind `lvae`."""

    what: str
    command: list[str]
    json: Path | None = None  # where its standard output is kept; what is there already is not made again


def run(lvae: click.Command, out: Path, images: Path | None, workers: int | None, minutes: float) -> None:
    """Draw (or take) pictures, encode, check, train, sample, score, report. Again: goes on where it was stopped."""
    _refuse_other_minutes(out, minutes)
    threads = torch.get_num_threads()
    for step in _steps(out, images, workers, minutes):
        torch.set_num_threads(threads)  # training takes two; what follows in this process has all of them
        click.secho(f"\n{step.what}", bold=True)
        to = [] if step.json is None else [">", str(step.json)]
        click.secho(f"  $ {shlex.join(['lvae', *step.command])} {' '.join(to)}".rstrip(), dim=True)
        if step.json is None:
            _invoke(lvae, step.command)
            continue
        if not step.json.exists():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                _invoke(lvae, step.command)
            write_whole(step.json, printed.getvalue().encode())
        _show_verdicts(json.loads(step.json.read_bytes()))
    click.secho(f"\nOpen {out / 'report.html'}", bold=True)


def _refuse_other_minutes(out: Path, minutes: float) -> None:
    """LvaeError where the demo was begun with others: the run's schedule is made for them."""
    plan = _read_plan(out)
    if plan is not None and plan.minutes != minutes:
        problem = f"{out} was begun with --minutes {plan.minutes:g}"
        raise LvaeError(f"--minutes {minutes:g}", problem, "Give that, or another folder.")


def _read_plan(out: Path) -> DemoPlan | None:
    data = Folder(out).read_if_there(PLAN)
    return None if data is None else records.parse(DemoPlan, data, f"{out}/{PLAN}")


def plan_training(out: Path, dataset: Dataset, model: Model, minutes: float) -> DemoPlan:
    """The plan that is there, or one with as many updates as this machine makes in the time for them."""
    plan = _read_plan(out)
    if plan is None:
        updates = updates_within(minutes, time_model(dataset, model, out, _threads(), TIMED))
        plan = DemoPlan("latent-vae-demo", 1, minutes, updates)
        Folder(out).write(PLAN, records.dumps(plan))
        time = duration(minutes * 60 * TRAINED)
        click.echo(f"{updates:,} updates, as many as fit into {time} here; with more --minutes samples are sharper.")
    return plan


def updates_within(minutes: float, seconds: float) -> int:
    """How many updates of so many seconds a demo of these minutes makes."""
    return max(1, min(round(minutes * UPDATES_A_MINUTE), int(minutes * 60 * TRAINED / seconds)))


def _threads() -> int:
    return min(THREADS, torch.get_num_threads())


def _invoke(lvae: click.Command, command: list[str]) -> None:
    code = lvae.main(command, prog_name="lvae", standalone_mode=False)
    if code:
        raise click.exceptions.Exit(int(code))


def _show_verdicts(scores: dict[str, object]) -> None:
    """The samples' figures beside those of the class Gaussians."""
    verdicts = scores["verdicts"]
    assert isinstance(verdicts, dict)
    for metric, verdict in verdicts.items():
        ours, theirs = scores.get(metric), scores.get(f"linear_{metric}")
        if isinstance(ours, float) and isinstance(theirs, float) and "_std" not in metric:
            said = f"samples {ours:.4g}, class Gaussians {theirs:.4g}: {verdict}"
            click.echo(f"  {metric.replace('_', ' ')}: {said}")


def _steps(out: Path, images: Path | None, workers: int | None, minutes: float) -> Iterator[Step]:
    source, dataset, model = str(images or out / "scenes"), str(out / "latents"), str(out / "run")
    if images is None:
        world = ["--count", str(PICTURES), "--size", str(SIZE), "--night", str(NIGHT)]
        yield Step("Draw labelled pictures, a fifth of them at night", ["scenes", source, *world])
    encode = ["encode", source, dataset, "--size", str(SIZE), "--mirror", "--split", "val=5%"]
    encode += [] if workers is None else ["--workers", str(workers)]
    yield Step("Encode them once, with their mirror images, and set a twentieth aside", encode)
    yield Step("Check every byte", ["verify", "--deep", dataset])
    yield Step("Make the statistics anew and compare", ["stats", "--check", dataset])
    looks = ["--preview", str(out / "reconstructions.png"), "--histogram", str(out / "latents.png")]
    yield Step("Look at originals beside reconstructions, and at the channels", ["inspect", dataset, *looks])
    latents = Dataset.open(dataset)
    settings = {**MODEL, **(CONDITIONAL if latents.classes is not None else {"hierarchical_prior": "true"})}
    updates = str(plan_training(out, latents, Model(dataset, settings), minutes).updates)
    train = ["train", dataset, model, "--preset", settings.pop("preset"), "--steps", updates]
    train += ["--threads", str(_threads())]
    for name, value in {**settings, "decay_updates": updates}.items():
        train += ["--set", f"{name}={value}"]
    yield Step("Train a deep VAE on the latents", [*train, "--validate-every", "500", "--save-every", "250"])
    yield Step(
        "Measure how what the model leaves out hangs together", ["residuals", model, dataset, "-n", str(MEASURED)]
    )
    samples = [str(out / f"samples-{seed}") for seed in SEEDS]
    for seed, where in zip(SEEDS, samples, strict=True):
        drawn = ["sample", model, where, "-n", str(SCORED), "--seed", str(seed), "--device", "cpu"]
        drawn += ["--temperature", f"{TEMPERATURE:g}"]
        drawn += ["--output-temperature", f"{OUTPUT_TEMPERATURE:g}", "--output-noise", "correlated"]
        yield Step("Draw samples in one pass of the network", drawn)
    grid = ["decode", samples[0], str(out / "samples.png"), "--limit", "64"]
    yield Step("Decode some of them", grid)
    score = ["score", *(word for where in samples for word in ("--samples", where)), "--reference", dataset]
    yield Step("Score them beside what a Gaussian a class would draw", score)
    report = ["report", model, str(out / "report.html"), "--dataset", dataset, "-n", "128", "--repeats", "2"]
    if efficientnet.is_installed():
        seen, by_network = max(20, min(SEEN, round(SEEN * minutes / 5))), out / "scores-efficientnet-lite0.json"
        asked = ["--features", efficientnet.NAME, "--around", dataset, "--num", str(seen), "--json"]
        yield Step("Score their pictures by a network that knows photographs", [*score, *asked], by_network)
        report += ["--scores", str(by_network)]
    yield Step("One page with all of it", report)
