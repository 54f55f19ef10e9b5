"""Training a model on a dataset's latents, and looking at how it went."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.commands.values.given import refuse_given
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output

CONFIGURABLE = (  # the options that a file of settings may have, too
    *("device", "compile", "deterministic", "threads", "micro_batch", "reduce_precision", "data", "cache"),
    *("save_every", "keep_every", "log_every", "validate_every", "patience", "preview_every", "preview", "wandb"),
)


def _options_by_name(command: click.Command) -> dict[str, click.Option]:
    """The options of a file of settings, by their names in it."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option):
            name = option.opts[0].removeprefix("--").replace("-", "_")
            if name in CONFIGURABLE:
                found[name] = option
    return found


def _take_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Options that the command line does not give are taken from the file."""
    if path is not None and path.exists():
        from lvae.train.runs.config_file import read_config_file

        known, defaults = _options_by_name(context.command), {}
        for name, value in read_config_file(path).options.items():
            if name not in known:
                raise LvaeError(path, f"has an option {name!r:.60}", f"There are {', '.join(sorted(known))}.")
            defaults[str(known[name].name)] = value
        context.default_map = defaults
    return path


@click.command(short_help="Latents to a model.")
@shared.DATASET
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--preset", metavar="NAME", help="Model and training to begin with [tiny]. See below.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another setting of model or training; --dry-run --json lists them.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    is_eager=True,
    callback=_take_config,
    help="Settings and options from this YAML file; others here win. --dry-run writes it where there is none.",
)
@click.option("--conditional", is_flag=True, help="Condition the model on all classes of DATASET (--set classes=all).")
@click.option(
    "--minutes",
    type=types.Number(0, min_open=True),
    help="Save and stop after so many minutes of training; the same command goes on.",
)
@click.option("--steps", type=types.Whole(1), help="Updates of the whole run [the preset's].")
@click.option("--batch", type=types.Whole(1), help="Latents that an update sees, over all devices [the preset's].")
@click.option("--micro-batch", type=types.Whole(1), help="Latents that a device computes at a time [what fits it].")
@click.option("--accumulate", type=types.Whole(1), help="An update sees so many times --batch, in so many portions.")
@click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the run that is there; RUN keeps a record.",
)
@click.option("--seed", type=types.Whole(0), help="Seed for all random draws [0].")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "tf32", "bfloat16"]),
    help="Precision of matrix products [auto: bfloat16 on GPUs and TPUs, float32 on CPUs].",
)
@click.option(
    "--reduce-precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of gradients between ranks; bfloat16 sends half the bytes.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "xla"]),
    default="auto",
    show_default=True,
    help="Several GPUs: torchrun. XLA takes all of a host's.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the model first: minutes, then faster steps [on GPUs].",
)
@click.option("--deterministic", is_flag=True, help="The same bits every time on a GPU, too; slower.")
@click.option("--threads", type=types.Whole(1), help="Threads of a CPU [PyTorch's choice].")
@click.option(
    "--data",
    "placement",
    type=click.Choice(["auto", "disk", "memory", "device"]),
    default="auto",
    show_default=True,
    help="Where latents are kept; auto: where they fit easily.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a DATASET behind a URL is copied; without, tar shards are streamed.",
)
@click.option(
    "--init",
    type=places.RUN,
    metavar="RUN",
    help="Begin with the averaged weights of another run: with what fits of them.",
)
@click.option(
    "--continue-on",
    type=places.DATASET,
    metavar="DATASET",
    help="Go on with this dataset from now on, one that grew or was erased from; RUN keeps a record.",
)
@click.option("--save-every", type=types.Whole(0), default=2500, show_default=True, help="Updates; 0: at the end.")
@click.option(
    "--keep-every",
    type=types.Whole(0),
    default=50_000,
    show_default=True,
    help="Checkpoints at multiples of this are kept; of the others, the best and the last three.",
)
@click.option("--log-every", type=types.Whole(1), default=100, show_default=True, help="Updates.")
@click.option(
    "--validate-every",
    type=types.Whole(0),
    default=2500,
    show_default=True,
    help="Updates; needs a split named val. 0: never.",
)
@click.option(
    "--patience",
    type=types.Whole(0),
    default=0,
    show_default=True,
    help="End after so many validations in a row without a lower loss. 0: never.",
)
@click.option(
    "--preview-every",
    type=types.Whole(0),
    default=2500,
    show_default=True,
    help="Updates; samples go to RUN/previews. 0: at the end.",
)
@click.option(
    "--preview",
    type=click.Choice(["latents", "decoded", "none"]),
    default="latents",
    show_default=True,
    help="Samples in false colours, or through the dataset's autoencoder.",
)
@click.option(
    "--profile",
    type=types.Whole(0),
    default=0,
    metavar="N",
    help="Trace N updates: RUN/profile/trace.json, and a table of where a step goes.",
)
@click.option(
    "--wandb",
    metavar="PROJECT",
    help="Send the log to this project of Weights & Biases, too (extra wandb); WANDB_MODE=offline keeps it in RUN.",
)
@click.option("--dry-run", is_flag=True, help="Show parameters, memory, epochs and the time it takes; train nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="With --dry-run: every setting as JSON, which a file or a pipe gets anyway."
)
def train(dataset: str, run: Path, **options: Any) -> None:
    """Train a deep VAE on the latents of DATASET, into RUN. The same command goes on where it was stopped.

    SIGTERM and Ctrl-C save first, then exit with 130. A run keeps its settings: options that are not given again are
    taken from RUN; others than its own are refused, unless --override says so. How it is executed may change at any
    time: device, number of devices, precisions, micro-batch, compilation. More --steps let a finished run go on.

    \b
    Presets for any square latents:         tiny (two CPU cores), small (one GPU)
    The paper's (Table 5):                  church256-f8, church32-rgb, church256-upsampler, church256-pixels,
                                            bedroom256-f4, bedroom256-f8, bedroom256-f16, imagenet256-f8
    Budget-matched studies of 64 px:        study-latent, study-rgb, study-upsampler, study-pixels,
                                            study-f4, study-f8, study-f16

    Once --minutes are over the run is saved and the command ends; given again, it goes on for as long.
    """
    guard_output(run, outputs.RUN, [dataset, options["init"], options["continue_on"]])
    if not options["dry_run"]:
        refuse_given("is for --dry-run", "as_json", advice="Give --dry-run, or leave it out.")
    if options.pop("conditional"):
        from lvae.train.runs.settings import ALL_CLASSES, parse_pairs, refuse_other

        refuse_other(parse_pairs("--set", options["settings"]), "classes", ALL_CLASSES, "--conditional")
        options["settings"] = (*options["settings"], "classes=all")
    from lvae.commands.values.model import check_training

    check_training(dataset, run, options)
    from lvae.actions.train import TrainOptions
    from lvae.actions.train import train as train_run

    own = _options_by_name(click.get_current_context().command)
    options["meanings"] = {name: (str(option.name), str(option.help)) for name, option in own.items()}
    done = train_run(dataset, run, TrainOptions(**options))
    if not done.is_main:
        shared.keep_silent()
    if not done.finished:
        raise click.exceptions.Exit(shared.INTERRUPTED)
    if done.is_main and not options["dry_run"]:
        shared.suggest("sample", run, "SAMPLES", "-n", 64)


@click.command(short_help="Curves of a run.")
@shared.RUN
@click.argument("out", type=click.Path(path_type=Path), required=False)
def plot(run: Path, out: Path | None) -> None:
    """Draw loss, rate per group, gradient norm, learning rate and throughput of RUN, to OUT [RUN/curves.png]."""
    target = out or run / "curves.png"
    guard_output(target, outputs.PNG, [run])
    from lvae.evaluate.figures.curves import write_curves

    click.echo(f"{target}: {write_curves(run, target)}")


COMMANDS = (train, plot)
