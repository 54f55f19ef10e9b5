"""What one picture of the page is made of: every control's value, and the command that makes the same picture."""

import math
import shlex
from dataclasses import dataclass
from typing import Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig

FARTHEST = 4.0  # standard deviations that a slider moves a channel
MOST_GUIDANCE = 20.0
MOST_SEED = (1 << 53) - 1  # what JavaScript counts exactly
MOST_MOVES = 256


@dataclass(frozen=True)
class Subject:
    """Where a picture begins: the sample of a seed, a position in the dataset, or an image that was dropped in."""

    kind: Literal["sample", "index", "image"] = "sample"
    number: int = 0
    image: str = ""


@dataclass(frozen=True)
class Move:
    """A channel of a group whose noise is shifted by so many standard deviations, everywhere alike."""

    group: int
    channel: int
    value: float


@dataclass(frozen=True)
class View:
    """share: of the way from `subject` to `other`. redraw: resolutions that are drawn anew, by `seed`.

    label: -1 for none. left, right: columns of latents beyond the frame, drawn by `seed`, too.
    """

    subject: Subject
    other: Subject | None
    share: float
    redraw: tuple[int, ...]
    seed: int
    moves: tuple[Move, ...]
    label: int
    guidance_mean: float
    guidance_variance: float
    left: int
    right: int


PLAIN = View(Subject(), None, 0.0, (), 0, (), -1, 0.0, 0.0, 0, 0)


def parse_view(data: bytes, config: ModelConfig) -> View:
    """What a browser sent; LvaeError for anything that is no view of this model."""
    view = records.parse(View, data, "the page")
    check_view(view, config)
    return view


def check_view(view: View, config: ModelConfig) -> None:
    groups, most = sum(config.groups), config.resolution
    numbers = [view.share, view.guidance_mean, view.guidance_variance, *(move.value for move in view.moves)]
    subjects = [view.subject, *([view.other] if view.other is not None else [])]
    places = {(move.group, move.channel) for move in view.moves}
    wrong = {
        "numbers that are finite": not all(math.isfinite(number) for number in numbers),
        "a share between 0 and 1": not 0 <= view.share <= 1,
        f"a class below {config.classes}": not -1 <= view.label < max(config.classes, 0),
        "resolutions that the model has": not set(view.redraw) <= set(config.resolutions),
        f"at most {most} columns beyond the frame": not (0 <= view.left <= most and 0 <= view.right <= most),
        "guidance that is not larger": max(abs(view.guidance_mean), abs(view.guidance_variance)) > MOST_GUIDANCE,
        "seeds from 0 on": not all(0 <= seed <= MOST_SEED for seed in (view.seed, *(one.number for one in subjects))),
        "channels that the model has, each once": len(view.moves) > MOST_MOVES
        or len(places) != len(view.moves)
        or not all(0 <= group < groups and 0 <= channel < config.z_channels for group, channel in places),
        f"moves of at most {FARTHEST:g}": any(abs(move.value) > FARTHEST for move in view.moves),
    }
    for wanted, is_wrong in wrong.items():
        if is_wrong:
            raise LvaeError("", f"a picture asks for {wanted}, and this one does not")
    if (view.left or view.right) and config.resolutions[-1] != 1:
        raise LvaeError("", "this model cannot go on beyond the frame: its lowest resolution is not 1x1")
    if (view.guidance_mean or view.guidance_variance) and not (config.classes and config.hierarchical_prior):
        raise LvaeError("", "guidance needs a model with classes and a hierarchical prior, and this one has not both")


def parse_subject(text: str) -> Subject:
    """sample:SEED, index:POSITION, or an image file."""
    kind, colon, number = text.partition(":")
    if colon and kind in ("sample", "index") and number.isascii() and number.isdigit() and len(number) < 17:
        return Subject("sample" if kind == "sample" else "index", int(number))
    return Subject("image", 0, text)


def parse_move(text: str) -> Move:
    """GROUP:CHANNEL=VALUE."""
    place, equals, value = text.partition("=")
    group, colon, channel = place.partition(":")
    try:
        if not (equals and colon and group.isdigit() and channel.isdigit() and len(group) < 6 and len(channel) < 6):
            raise ValueError
        return Move(int(group), int(channel), float(value))
    except ValueError:
        raise LvaeError(f"--move {text:.60}", "write GROUP:CHANNEL=VALUE, like 3:0=1.5") from None


def command_of(view: View, run: str, dataset: str | None, names: dict[str, str]) -> str:
    """The command that writes the same picture. names: of the images that were dropped in, by their marks."""
    words = ["lvae", "explore", run, "--picture", "picture.png"]
    if dataset is not None:
        words += ["--dataset", dataset]
    words += ["--from", _word(view.subject, names)]
    if view.other is not None:
        words += ["--to", _word(view.other, names), "--share", _number(view.share)]
    if view.redraw:
        words += ["--redraw", ",".join(map(str, view.redraw))]
    for move in view.moves:
        words += ["--move", f"{move.group}:{move.channel}={_number(move.value)}"]
    words += _given("--seed", view.seed) + ([] if view.label < 0 else ["--label", str(view.label)])
    words += _given("--guidance-mean", view.guidance_mean) + _given("--guidance-variance", view.guidance_variance)
    words += _given("--left", view.left) + _given("--right", view.right)
    return shlex.join(words)


def _given(option: str, value: float) -> list[str]:
    return [option, _number(value)] if value else []


def _word(subject: Subject, names: dict[str, str]) -> str:
    if subject.kind == "image":
        return names.get(subject.image, subject.image)
    return f"{subject.kind}:{subject.number}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
