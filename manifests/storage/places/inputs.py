"""What a command is given where it wants a dataset, a run or images; and what to say where it is something else."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import RESUME, did_you_mean
from lvae.manifests.storage.places.kinds import FOLDERS, Kind, kind_of

PATTERN = frozenset("*?[{")  # letters of patterns, which name many files
NOT_IMAGES = frozenset(
    {Kind.DATASET, Kind.UNFINISHED, Kind.SAMPLES, Kind.RUN, Kind.AUTOENCODER_RUN, Kind.EXPORT, Kind.PARTS}
    | {Kind.WEIGHTS, Kind.PAGE}
)
MADE = FOLDERS - {Kind.EMPTY, Kind.IMAGES, Kind.FOLDER}  # by commands: two arguments may be swapped


@dataclass(frozen=True)
class Input:
    """name: with its article. kinds: what it may be. make: the command that makes one, but for its end, `word`."""

    name: str
    kinds: frozenset[Kind]
    make: str = ""
    word: str = "DATASET"


ENCODE, TRAIN, SAMPLE = "lvae encode SOURCE", "lvae train DATASET", "lvae sample RUN"
DATASET = Input("a dataset", frozenset({Kind.DATASET, Kind.SAMPLES}), ENCODE)
BEGUN = Input("a dataset", frozenset({Kind.DATASET, Kind.SAMPLES, Kind.UNFINISHED}), ENCODE)
RUN = Input("a run", frozenset({Kind.RUN}), TRAIN, "RUN")
DATASET_OR_RUN = Input("a dataset or a run", frozenset({*DATASET.kinds, Kind.RUN}), ENCODE)
RUN_OR_SAMPLES = Input("a run or samples", frozenset({*DATASET.kinds, Kind.RUN}), TRAIN, "RUN")
SAMPLES_OR_DATASET = Input("samples or a dataset", DATASET.kinds, SAMPLE, "SAMPLES")
IMAGES = Input("a source of images", frozenset(Kind) - NOT_IMAGES - {Kind.MISSING})
PUBLISHED = Input(
    "a published checkpoint",
    frozenset({Kind.WEIGHTS, Kind.EXPORT, Kind.FOLDER, Kind.ARCHIVE, Kind.TABLE, Kind.ARRAYS, Kind.FILE}),
)
LATENTS_OR_IMAGES = Input("a dataset, samples or images", IMAGES.kinds | DATASET.kinds, SAMPLE, "SAMPLES")


def check_input(place: str | Path, wanted: Input, usage: str = "", names: Iterable[str] = ()) -> Kind:
    """The kind of what is there; LvaeError where it is not what is wanted.

    usage: of the command, for swapped words. names: what may be named without being here.
    """
    text = str(place)
    if "://" in text:
        return Kind.UNKNOWN  # a store may be away: whoever opens it waits
    if wanted in (IMAGES, LATENTS_OR_IMAGES) and (text.startswith("synthetic:") or PATTERN & set(text)):
        return Kind.UNKNOWN
    found = kind_of(place)
    if found in wanted.kinds or found == Kind.UNKNOWN:
        return found
    raise wrong_kind(place, wanted, found, usage, names)


def wrong_kind(place: str | Path, wanted: Input, found: Kind, usage: str = "", names: Iterable[str] = ()) -> LvaeError:
    """The error for something else than what was wanted."""
    make = f"Make one with '{wanted.make} {{}}'." if wanted.make else ""
    if found == Kind.MISSING:
        near = next(_near(Path(place), wanted), None)
        otherwise = did_you_mean(str(place), names, make.format(place))
        advice = f"Did you mean {near}?" if near else otherwise
        return LvaeError(place, f"no such file or folder, where {wanted.name} is wanted", advice)
    if found == Kind.UNFINISHED and Kind.DATASET in wanted.kinds:
        return LvaeError(place, "is not finished", RESUME)
    advice = f"Write '{usage}'." if usage and found in MADE else make.format(wanted.word)
    if found == Kind.IMAGES and Kind.DATASET in wanted.kinds:
        advice = f"Encode the images first: 'lvae encode {place} DATASET'."
    return LvaeError(place, f"is {found.value}, not {wanted.name}", advice)


def _near(place: Path, wanted: Input) -> Iterator[Path]:
    """What has a similar name, and is of a kind that is wanted."""
    try:
        names = [path.name for path, _ in zip(place.parent.iterdir(), range(2000), strict=False)]
    except OSError:
        return
    for name in difflib.get_close_matches(place.name, names, 5, 0.7):
        if kind_of(place.parent / name) in wanted.kinds:
            yield place.parent / name
