"""From a trained model to pictures and numbers: sample, decode, score."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import FileOutput, FolderOutput, guard_output
from lvae.manifests.storage.places.inputs import check_input

Record = TypeVar("Record", bound=Any)


@click.command(short_help="Draw latents from a model.")
@shared.RUN
@click.argument("samples", type=click.Path(path_type=Path))
@click.option(
    "--step", default="last", show_default=True, metavar="N|best|last", help="Which checkpoint to sample from."
)
@click.option(
    "--ema", type=types.Number(), metavar="DECAY", help="Which average, of a run that keeps several [its main one]."
)
@click.option(
    "-n", "count", type=types.Whole(1), help="How many samples [50000; with --low-resolution, as many as it has]."
)
@click.option(
    "--seed",
    type=types.Whole(0),
    default=0,
    show_default=True,
    help="Seed of the noise: sample i depends on it and on i alone.",
)
@shared.LABELS
@shared.GUIDANCE
@shared.DRAWS
@shared.MODEL_WEIGHTS
@click.option(
    "--batch", type=types.Whole(1), help="Samples drawn at a time; changes none of them [64; on GPUs what fits]."
)
@click.option("--compile", "compiled", is_flag=True, help="Compile the model first: for many samples on a GPU.")
@shared.LOW_RESOLUTION
@shared.DEVICE
@shared.PRECISION
@shared.JSON
def sample(run: Path, samples: Path, as_json: bool, **asked: Any) -> None:
    """Draw samples from the model of RUN into SAMPLES, a dataset that 'lvae decode' and 'lvae score' read.

    The same command goes on where it was interrupted, and more samples (-n) add to those that are there.

    Where none of guidance, temperature, output temperature and noise is given, samples are drawn as RUN/drawing.json
    says: the models of the package come with one. Giving any of them leaves that file out; giving --labels replaces
    its labels alone.
    """
    guard_output(samples, outputs.SAMPLES, [run, asked["low_resolution"]])
    from lvae.commands.values.model import check_sampling, take_drawing

    asked, drawing = take_drawing(run, asked)
    check_sampling(run, asked)
    if drawing is not None:
        click.echo(drawing, err=True)
    from lvae.actions.evaluate import SampleExecution, run_sample
    from lvae.evaluate.samples.draw import SampleOptions

    execution = _take(asked, SampleExecution)
    run_sample(run, samples, SampleOptions(**asked), execution, as_json)
    shared.suggest("decode", samples, f"{samples}.png", "--limit", 64)


@click.command(cls=shared.EngineCommand, short_help="Latents to pictures.")
@click.argument("latents", metavar="SAMPLES_OR_DATASET", type=places.SAMPLES_OR_DATASET)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--weights", metavar="FILE", help="Weights of the autoencoder [those in SAMPLES_OR_DATASET].")
@click.option(
    "--format",
    type=click.Choice(["png", "npz", "grid"]),
    help="What to write, see above [by the name of OUT: .npz, .png for a grid, else a folder].",
)
@click.option("--split", metavar="NAME", default="train", show_default=True, help="Split of a dataset.")
@click.option("--indices", metavar="0,5,7-20", help="Which latents, by their positions [all].")
@click.option("--limit", type=types.Whole(1), help="Only the first so many.")
@click.option(
    "--batch",
    type=types.Whole(1),
    help="Pictures decoded at a time; changes memory and speed alone [16; not for workers].",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the network.",
)
@click.option(
    "--round",
    "rounding",
    type=click.Choice(["nearest", "truncate"]),
    default="nearest",
    show_default=True,
    help="How numbers become levels 0 to 255; ADM and LDM truncate.",
)
@click.option(
    "--beside",
    multiple=True,
    metavar="IMAGES",
    help="In a grid: pictures from another place beside them (.npz, folder, dataset, ...); repeatable.",
)
@click.option(
    "--columns", type=types.Whole(1), help="In a grid: pictures in a row, of each place [8; 4 with --beside]."
)
@shared.PARTS
@shared.ENGINE
def decode(latents: str, out: Path, **asked: Any) -> None:
    """Decode SAMPLES, or a dataset (its reconstructions, the ceiling of every score), into OUT.

    \b
    png   a folder of numbered files
    npz   `arr_0` uint8 (N, H, W, 3), `arr_1` labels, streamed
    grid  one picture, a row a class where there are classes, else in order; the captions are positions.
          --beside biggan.npz --beside adm/ puts as many pictures from there beside them, class by class where these
          have classes of the same names (or numbers), and cropped to the same size

    With --workers or Beam's options after --, workers decode part by part, here or on a cluster, and the same command
    goes on where it was stopped.
    """
    guard_output(out, _decoded_output(out, asked["format"]), [latents, asked["weights"], *asked["beside"]])
    _guard_parts(out, asked, latents)
    from lvae.commands.values.pictures import check_decoding

    check_decoding(latents, asked)
    from lvae.actions import decode as jobs
    from lvae.actions.evaluate import DecodeOptions, run_decode

    work = _take(asked, jobs.WorkerOptions)
    options = DecodeOptions(**asked)
    if work.is_asked_for:
        jobs.run(latents, out, jobs.decoding_request(latents, out, options), options.device, work)
    else:
        run_decode(latents, out, options)


PICTURES = shared.several(
    click.option("--num", type=types.Whole(2), help="Use only so many pictures of each set, chosen by --seed [all]."),
    click.option("--seed", type=types.Whole(0), default=0, show_default=True, help="Seed for choices and subsets."),
    click.option("--size", type=types.Whole(8), help="Crop pictures of a source to this size [as they are]."),
    click.option(
        "--crop",
        type=click.Choice(["adm", "lsun", "adm-lsun", "center"]),
        default="adm",
        show_default=True,
        help="How to crop to --size.",
    ),
    click.option(
        "--split", metavar="NAME", default="train", show_default=True, help="Split of a DATASET that is compared with."
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where networks compute.",
    ),
)


@click.command(short_help="How close are samples to a reference?", epilog=shared.NETWORKS)
@click.option(
    "--samples",
    required=True,
    multiple=True,
    metavar="SAMPLES|IMAGES",
    help="What is scored: samples, .npz or any source of images. Repeatable, for samples of other seeds: then with "
    "their spread.",
)
@click.option(
    "--reference",
    metavar="DATASET|IMAGES|NPZ",
    help="What they are compared with [the images that a DATASET was made of, pair by pair].",
)
@shared.FEATURES
@shared.MODE
@click.option(
    "--metrics",
    metavar="A,B",
    help="fid,sfid,is,kid,pr,agreement; without Inception frechet,kernel,pr,agreement; of pairs psnr,ssim,rfid [all].",
)
@click.option(
    "--around",
    type=places.DATASET,
    metavar="DATASET",
    help="With --features: its reconstructions, Gaussians and noise beside the scores.",
)
@click.option(
    "--extrapolate",
    is_flag=True,
    help="With --features: also the Fréchet distance that infinitely many samples would have.",
)
@PICTURES
@shared.JSON
def score(as_json: bool, **asked: Any) -> None:
    """Score --samples against --reference.

    \b
    without --features  Fréchet and kernel distance, precision and recall between normalized latents (latent_...);
                        they need no download
    with --features     of the FID Inception network: FID, sFID, KID, inception score, precision and recall;
                        of another network: Fréchet and kernel distance, precision and recall (network_...);
                        of labelled sets also the class agreement, how often the nearest class centre of the network's
                        logits is that of the label
    a DATASET without --reference
                        PSNR and SSIM of its reconstructions, and with --features their rFID
    """
    for place in (*asked["samples"], *([asked["reference"]] if asked["reference"] else [])):
        check_input(place, places.LATENTS_OR_IMAGES.wanted)
    from lvae.commands.values.pictures import check_scoring

    check_scoring(asked)
    from lvae.actions.evaluate import run_score
    from lvae.evaluate.features.open import PictureChoice
    from lvae.evaluate.scores.open import ScoreOptions

    run_score(ScoreOptions(choice=_take(asked, PictureChoice), **asked), as_json)


OF_IMAGES = shared.several(
    click.argument("images", metavar="IMAGES", type=places.LATENTS_OR_IMAGES),
    click.argument("out", metavar="OUT.npz", type=click.Path(path_type=Path)),
    click.option(
        "--features",
        required=True,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar=shared.NETWORK,
        help=shared.NETWORK_HELP,
    ),
    shared.MODE,
    PICTURES,
    click.option(
        "--originals",
        is_flag=True,
        help="With workers: of the images that a DATASET was made of, instead of its reconstructions.",
    ),
    shared.PARTS,
    shared.ENGINE,
)


@click.command(cls=shared.EngineCommand, short_help="Feature statistics of images.", epilog=shared.NETWORKS)
@OF_IMAGES
def reference(images: str, out: Path, **asked: Any) -> None:
    """Write the statistics of IMAGES to OUT.npz, for 'lvae score --reference'.

    IMAGES: any source, an .npz, what 'lvae features' wrote, SAMPLES, or a DATASET (then they are statistics of its
    reconstructions). With --workers or Beam's options after --, workers take SAMPLES or a DATASET part by part.
    """
    _features(images, out, statistics=True, **asked)


@click.command(
    cls=shared.EngineCommand, short_help="Features of images, to score again and again.", epilog=shared.NETWORKS
)
@OF_IMAGES
def features(images: str, out: Path, **asked: Any) -> None:
    """Write the features of IMAGES to OUT.npz, which 'lvae score' takes in place of pictures.

    IMAGES: any source of images, an .npz, SAMPLES, or a DATASET (then they are features of its reconstructions). With
    --workers or Beam's options after --, workers take SAMPLES or a DATASET part by part.
    """
    _features(images, out, statistics=False, **asked)


def _features(images: str, out: Path, **asked: Any) -> None:
    guard_output(out, outputs.NPZ, [images, asked["features"]])
    _guard_parts(out, asked, images)
    from lvae.commands.values.pictures import check_features_of

    check_features_of(images, asked)
    from lvae.actions import decode as jobs
    from lvae.actions.evaluate import FeatureOptions, run_features
    from lvae.evaluate.features.open import PictureChoice

    work = _take(asked, jobs.WorkerOptions)
    options = FeatureOptions(choice=_take(asked, PictureChoice), **asked)
    if work.is_asked_for:
        jobs.run(images, out, jobs.features_request(images, options), options.choice.device, work)
    else:
        run_features(images, out, options)
    shared.suggest("score", "--samples", "SAMPLES", "--reference", out)


def _decoded_output(out: Path, format_: str | None) -> FolderOutput | FileOutput:
    """What OUT is by --format, or by its name."""
    by_name = {".npz": "npz", ".png": "grid"}.get(out.suffix.lower(), "png")
    if (format_ or by_name) == "png":
        return outputs.PICTURES
    return outputs.NPZ if (format_ or by_name) == "npz" else outputs.PNG


def _guard_parts(out: Path, asked: dict[str, Any], source: str) -> None:
    """The folder in which workers leave their parts."""
    if asked["workers"] is not None or asked["beam_options"]:
        guard_output(asked["parts"] or f"{out}.parts", outputs.PARTS, [source])


def _take(asked: dict[str, Any], record: type[Record]) -> Record:
    """Take those options out that are fields of a record, and make one of them."""
    found: Record = record(**{field.name: asked.pop(field.name) for field in fields(record)})
    return found


COMMANDS = (sample, decode, features, reference, score)
