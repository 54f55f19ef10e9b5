"""From what `lvae score` was given to one job: what is compared, by what, and how long it takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lvae.evaluate.features.feature_network import FeatureNetwork, open_network
from lvae.evaluate.features.open import PictureChoice, ScoredPath, open_path, open_pictures
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures.decode import load_decoder
from lvae.evaluate.scores import latent_scores
from lvae.evaluate.scores.alike import describe_other_classes, refuse_unequal_counts, refuse_unlike
from lvae.evaluate.scores.image_scores import (
    Measure,
    Progress,
    check_sizes,
    image_scores,
    reference_of,
    rivals_of,
)
from lvae.evaluate.scores.metric_names import LATENT_METRICS, METRICS, OWN_METRICS, PAIRED_METRICS, parse_metrics
from lvae.evaluate.scores.real_level import RIVAL_SETS
from lvae.evaluate.scores.reconstruction_scores import reconstruction_scores
from lvae.evaluate.scores.score_table import Scores
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.views.selection import TRAIN

GIVE_FEATURES = "Give --features FILE (the FID Inception weights, or a TorchScript network), or datasets of latents."


@dataclass(frozen=True)
class ScoreOptions:
    """What a user asks for. reference: None for a dataset's own images. around: a dataset, for what stands beside."""

    samples: tuple[str, ...]
    reference: str | None
    features: Path | None
    mode: Mode
    metrics: str | None
    around: str | None
    extrapolate: bool
    choice: PictureChoice


@dataclass(frozen=True)
class ScoreJob:
    """What is about to be computed: `total` of `unit`, told to the progress that `run` takes."""

    name: str
    total: int
    unit: str
    run: Callable[[Progress], Scores]


def open_score(options: ScoreOptions) -> ScoreJob:
    """Open what is compared. LvaeError for what cannot be."""
    choice = options.choice
    split = choice.split if options.reference is None else TRAIN
    samples = [open_path(path, split) for path in options.samples]
    refuse_unlike([one.dataset for one in samples if one.dataset is not None], choice.num)
    reference = None if options.reference is None else open_path(options.reference, choice.split)
    if options.features is not None:
        network: FeatureNetwork | None = open_network(options.features, options.mode, choice.device)
    else:
        network = None if samples[0].features is None else samples[0].features.network
    if reference is None:
        return _score_reconstructions(samples, network, options)
    if network is None:
        job = _score_latents(samples, reference, options)
    else:
        job = _score_pictures(samples, reference, network, options)
    if samples[0].dataset is None or reference.dataset is None:
        return job
    note = describe_other_classes(samples[0].dataset, reference.dataset)
    job = job if note is None else _with_note(job, note)
    same = [one.path for one in samples if one.dataset is not None and _is_same(one.dataset, reference.dataset)]
    if not same:
        return job
    return _with_note(job, f"{same[0]} is the reference itself: such figures do not say how near samples come to it")


def _is_same(one: Dataset, other: Dataset) -> bool:
    """Whether both hold the same latents of the same images."""
    return (one.manifest.id, one.name) == (other.manifest.id, other.name)


def _with_note(job: ScoreJob, note: str) -> ScoreJob:
    def run(progress: Progress) -> Scores:
        found = job.run(progress)
        return replace(found, warnings=(note, *found.warnings))

    return replace(job, run=run)


def _score_reconstructions(
    samples: list[ScoredPath], network: FeatureNetwork | None, options: ScoreOptions
) -> ScoreJob:
    dataset, choice = samples[0].dataset, options.choice
    if len(samples) != 1 or dataset is None:
        raise LvaeError("--reference", "only a DATASET can be scored without one, by the images that it was made of")
    known = PAIRED_METRICS if network is not None else PAIRED_METRICS[:2]
    names = parse_metrics(options.metrics, known, "a dataset against its images (rfid needs --features)")
    measure, decoder = Measure(network, names, choice.seed), load_decoder(dataset)

    def run(progress: Progress) -> Scores:
        return reconstruction_scores(dataset, decoder, measure, choice.num, choice.device, progress)

    return ScoreJob("comparing", len(dataset) if choice.num is None else choice.num, "pictures", run)


def _score_latents(samples: list[ScoredPath], reference: ScoredPath, options: ScoreOptions) -> ScoreJob:
    if options.around is not None or options.extrapolate:
        raise LvaeError(
            "", "--around and --extrapolate belong to scores by a network's features", "Give --features FILE."
        )
    problem, choice = "pictures are scored by a network's features", options.choice
    sets = [one.require_dataset(problem, GIVE_FEATURES) for one in samples]
    other = reference.require_dataset(problem, GIVE_FEATURES)
    if other.manifest.origin == "samples" and all(one.manifest.origin == "images" for one in sets):
        raise LvaeError(
            reference.path,
            "holds samples, and what --samples names was made of images",
            "Swap the two, or name images.",
        )
    names = parse_metrics(options.metrics, LATENT_METRICS, "latent space") or LATENT_METRICS
    latent_scores.refuse_repeats(sets)

    def run(progress: Progress) -> Scores:
        return latent_scores.latent_scores(sets, other, choice.num, choice.seed, names, progress=progress)

    return ScoreJob("scoring", len(sets) + 3 * RIVAL_SETS, "sets", run)


def _score_pictures(
    samples: list[ScoredPath], reference: ScoredPath, network: FeatureNetwork, options: ScoreOptions
) -> ScoreJob:
    known = METRICS if network.name == "inception" else OWN_METRICS
    names = parse_metrics(options.metrics, known, f"the {network.name} network")
    choice = options.choice
    stacks = [open_pictures(one, choice) for one in samples]
    refuse_unequal_counts(options.samples, [len(stack) for stack in stacks])
    stored = reference.statistics
    whole = choice if stored is None else replace(choice, num=None)
    pictures = open_pictures(reference, whole) if reference.has_pictures else None
    check_sizes(stacks[0], pictures, reference.path)
    rivals = []
    if options.around is not None:
        around = Dataset.open(options.around)
        rivals = rivals_of(around, load_decoder(around), stacks[0].count, choice.seed, choice.device)
        if reference.dataset is not None and _is_same(around, reference.dataset):
            rivals = [rival for rival in rivals if rival.name != "ceiling"]  # its distance would be 0
    measure = Measure(network, names, choice.seed, options.extrapolate)

    def run(progress: Progress) -> Scores:
        against, notes = reference_of(reference.path, stored, pictures, network, progress)
        return image_scores(stacks, against, measure, rivals, notes, progress)

    total = sum(map(len, stacks)) + (0 if pictures is None else len(pictures))
    return ScoreJob("features", total + sum(len(one) for rival in rivals for one in rival.sets), "images", run)
