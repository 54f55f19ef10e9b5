"""What is wrong with the values and options of commands that look at models, told before anything large is imported."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lvae.commands.values.given import note_given, refuse_given
from lvae.commands.values.model import check_labels, read_classes, read_model
from lvae.evaluate.analysis.sweep_settings import combine_settings, parse_numbers
from lvae.evaluate.manipulation.parse import parse_channels, parse_values
from lvae.evaluate.pictures.positions import positions_of
from lvae.evaluate.samples.options import guidance_weights, label_of, temperatures
from lvae.evaluate.scores.metric_names import LATENT_METRICS, METRICS, OWN_METRICS, PAIRED_METRICS, parse_metrics
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset

EFFICIENTNET = "efficientnet-lite0"
OF_A_RUN = ("labels", "weights", "guidance_mean", "guidance_variance", "guidance", "temperature", "precision")
FOR_WORKERS, MOOT = ("originals", "parts", "part_size"), ("shared_path", "patience")  # options of decode


def check_features(features: Path | None) -> None:
    """LvaeError where a feature network is neither a file nor known by its name."""
    if features is None:
        refuse_given("is for a network's features", "mode", advice="Give --features, or leave it out.")
    elif str(features) == EFFICIENTNET:
        refuse_given(f"is for the Inception network; {EFFICIENTNET} has its own", "mode")
    elif not features.is_file():
        raise LvaeError(features, f"no such file. --features is {EFFICIENTNET} or the file of a feature network")


def check_positions(dataset: str, split: str, indices: str | None) -> None:
    """LvaeError for a split or positions that a dataset does not have."""
    if "://" not in dataset:
        positions_of(indices, len(Dataset.open(dataset, split)), None)


def check_decoding(latents: str, asked: dict[str, Any]) -> None:
    check_positions(latents, asked["split"], asked["indices"])
    weights = asked["weights"]
    if weights is not None and "://" not in weights and not Path(weights).exists():
        raise LvaeError(f"--weights {weights}", "no such file", "Leave it out for those of the latents.")
    refuse_for_workers(asked)


def refuse_for_workers(asked: dict[str, Any]) -> None:
    """LvaeError for options of a job of many workers where there is none; a note where they cannot matter."""
    if asked["workers"] is None and not asked["beam_options"]:
        problem = "is for workers"
        note_given(problem, *(name for name in MOOT if name in asked))
        names = [name for name in FOR_WORKERS if name in asked]
        refuse_given(problem, *names, advice="Give --workers N or Beam options, or leave it out.")


def check_scoring(asked: dict[str, Any]) -> None:
    """Metrics by name, and options that the scores of these sets have no use for."""
    metrics, features, reference = asked["metrics"], asked["features"], asked["reference"]
    places = [*asked["samples"], *([] if reference is None else [reference])]
    stored = any(place.endswith(".npz") for place in places)
    if reference is None:
        parse_metrics(metrics, PAIRED_METRICS, "a dataset against its images")
        refuse_given("is for scores with a --reference", "extrapolate", "around")
    elif features is None and not stored:
        parse_metrics(metrics, LATENT_METRICS, "latent space")
    else:
        known = OWN_METRICS if str(features) == EFFICIENTNET else tuple(dict.fromkeys((*METRICS, *OWN_METRICS)))
        parse_metrics(metrics, known, EFFICIENTNET if known == OWN_METRICS else "a feature network")
    if features is not None or not stored:
        check_features(features)
    check_crop(asked, places)
    if is_dataset(places[-1]):
        check_positions(places[-1], asked["split"], None)
    else:
        refuse_given("is of a DATASET that is compared with, and there is none", "split")


def check_crop(asked: dict[str, Any], places: Sequence[str]) -> None:
    if asked["size"] is None:
        refuse_given("says how pictures are cropped to --size", "crop", advice="Give --size, or leave it out.")
    if all(map(is_dataset, places)):
        refuse_given("is for sources of images; pictures of a dataset have its size", "size", "crop")


def check_features_of(images: str, asked: dict[str, Any]) -> None:
    """For `lvae features` and `reference`."""
    check_features(asked["features"])
    check_crop(asked, [images])
    if is_dataset(images):
        check_positions(images, asked["split"], None)
    else:
        refuse_given("is of a DATASET, and these are images", "split")
    if asked["num"] is None:
        refuse_given("chooses which --num are taken", "seed", advice="Give --num, or leave it out.")
    refuse_for_workers(asked)


def check_sweep(run: Path, asked: dict[str, Any]) -> None:
    model, content = read_model(run)
    combine_settings(
        model,
        parse_numbers("--means", asked["means"]),
        parse_numbers("--variances", asked["variances"]),
        parse_numbers("--temperatures", asked["temperatures"]),
        parse_numbers("--output-temperatures", asked["output_temperatures"]) or (),
    )
    check_labels(asked["labels"], model, content)
    if not (model.classes and model.hierarchical_prior):
        refuse_given("is of guidance, which needs a model with classes and a hierarchical prior", "mean_at_1x1")
    reference = asked["reference"]
    if reference is None:
        wanted = "is for scores, which need something to compare with"
        refuse_given(wanted, "features", "split", "num", "mode", advice="Give --reference DATASET, IMAGES or NPZ.")
        return
    check_features(asked["features"])
    if is_dataset(reference):
        check_positions(reference, asked["split"], None)
    else:
        refuse_given("is of a DATASET, and --reference is none", "split")


def check_neighbours(place: Path, dataset: str, asked: dict[str, Any]) -> None:
    check_features(asked["features"])
    check_positions(dataset, asked["split"], None)
    if is_dataset(str(place)):
        refuse_given("is for samples that are drawn now from a RUN, and these are drawn already", *OF_A_RUN)
        check_positions(str(place), "train", asked["indices"])
        if asked["indices"] is not None:
            refuse_given("is how many of the first are taken, and --indices says which", "count")
        return
    refuse_given("is of SAMPLES; of a RUN the first -n are drawn", "indices")
    model, content = read_model(place)
    guidance_weights(model, asked["guidance_mean"], asked["guidance_variance"], asked["guidance"], "extra")
    temperatures(asked["temperature"], len(model.groups))
    check_labels(asked["labels"], model, content)


def check_manipulation(run: Path, sources: Sequence[str], asked: dict[str, Any]) -> None:
    """What traverse, interpolate, outpaint and depths share: a DATASET has positions and labels, files have neither."""
    model, content = read_model(run)
    if len(sources) == 1 and is_dataset(sources[0]):
        check_positions(sources[0], asked["split"], asked["indices"])
    else:
        refuse_given("is of a DATASET, and none is given", "indices", "split", "images")
    for source in sources:
        if not Path(source).exists() and "://" not in source:
            raise LvaeError(source, "no such file or folder", "Name a DATASET, or image files, before OUT.png.")
    if asked["label"] not in (None, "none"):
        label_of(asked["label"], model.classes, read_classes(content).classes)
    if "guidance" in asked:
        weights = (asked["guidance_mean"], asked["guidance_variance"], asked["guidance"], asked["convention"])
        guidance_weights(model, *weights)


def check_images(run: Path, sources: Sequence[str], asked: dict[str, Any], least: int = 1) -> None:
    """For what begins with real images, of one DATASET or in files. least: how many are needed."""
    if not sources:
        raise LvaeError("", "no images are named", "Name a DATASET or image files after RUN.")
    check_manipulation(run, sources, asked)
    if len(sources) == 1 and is_dataset(sources[0]):
        refuse_given("is the class of image files, and images of a DATASET have their own", "label")
        few = asked["indices"] is not None and asked["indices"].strip().isdigit()
    else:
        few = len(sources) < least
        for source in sources:
            if Path(source).is_dir():
                raise LvaeError(source, "is a folder without a dataset", "Give one DATASET, or image files.")
    if few and least > 1:
        raise LvaeError("", "an interpolation needs two images or more", "Name more of them.")


def check_traversal(run: Path, sources: Sequence[str], asked: dict[str, Any]) -> None:
    check_manipulation(run, sources, asked)
    upsampler = read_model(run)[0].low_resolution_factor is not None
    if asked["values"] is not None:
        parse_values(asked["values"])
        refuse_given("says how many values from -2.25 to 2.25, and --values names them", "steps")
    if asked["channels"] is not None:
        parse_channels(asked["channels"])
        refuse_given("is how many images rates are measured over, and --channels needs none", "images")
        if sources and not upsampler:
            raise LvaeError(sources[0], "is not needed: --channels says what is swept", "Leave one of the two out.")
    elif len(sources) != 1 or not is_dataset(sources[0]):
        advice = "Name a DATASET after RUN, or two channels: --channels 0:3,1:5."
        raise LvaeError("", "the most informative channels are found over a dataset", advice)
    if not upsampler:
        refuse_given("chooses images for an upsampler, and this model is none; --index chooses the sample", "indices")
