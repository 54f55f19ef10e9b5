"""What of another run's weights fits a new model: fine-tuning with other classes, or at another resolution."""

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE

LEAST_SHARE = 0.1  # of the tensors: below, it is another model altogether
NAMED = 8
EMBEDDING = "embed.weight"

logger = logging.getLogger(__name__)


def weights_that_fit(
    model: ModelConfig,
    other: ModelConfig,
    weights: Mapping[str, Tensor],
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """All weights of a new model: those of `other` where one of their resolution, name and shape is there.

    The rest begins as new weights of `seed` do, and is named in a warning. Of an embedding of classes, "no
    label" and the classes that both have are taken. classes: the number in `other` of each class, -1 where it has none
    (default: the same numbers). LvaeError where hardly anything fits.
    """
    rows = range(model.classes) if classes is None else classes
    same = model.classes == other.classes and list(rows) == list(range(model.classes))
    own = HierarchicalVAE(model, seed).state_dict()
    offered = {_rename(name, other, model): tensor for name, tensor in weights.items()}
    left = []
    for name, tensor in own.items():
        found = offered.get(name)
        if found is not None and name == EMBEDDING and not same and found.shape[1:] == tensor.shape[1:]:
            own[name], anew = _unite(tensor, found, rows)
            if anew or other.classes != model.classes:
                left.append(name)
        elif found is not None and found.shape == tensor.shape:
            own[name] = found
        else:
            left.append(name)
    if len(own) - len(left) < LEAST_SHARE * len(own):
        problem = f"of {len(own)} tensors {len(own) - len(left)} fit the new model"
        raise LvaeError("--init", problem, "Take the preset and the widths of that run.")
    if left:
        places = list(dict.fromkeys(_place(name) for name in left))
        shown = ", ".join(places[:NAMED]) + (f" and {len(places) - NAMED} more" if len(places) > NAMED else "")
        logger.warning("%d of %d tensors are taken; the others begin anew: %s", len(own) - len(left), len(own), shown)
    return own


def _place(name: str) -> str:
    """The level, or the layer beside the levels, that a tensor belongs to."""
    parts = name.split(".")
    return ".".join(parts[: {"encoder": 3, "layer_list": 2}.get(parts[0], len(parts))])


def _unite(new: Tensor, old: Tensor, rows: Sequence[int]) -> tuple[Tensor, int]:
    """The rows of the classes that both have, and of "no label", the last one; how many classes begin anew."""
    united = new.clone()
    pairs = [(number, row) for number, row in enumerate(rows) if 0 <= row < len(old) - 1]
    for number, row in pairs:
        united[number] = old[row]
    united[-1] = old[-1]
    return united, len(new) - 1 - len(pairs)


def _rename(name: str, old: ModelConfig, new: ModelConfig) -> str:
    """The name that a level's tensor has in a model of other resolutions; an empty one where that has no such level."""
    for place, before, after in (
        ("encoder.encoder_levels.", old.resolutions, new.resolutions),
        ("layer_list.", old.resolutions[::-1], new.resolutions[::-1]),
    ):
        if name.startswith(place):
            number, _, rest = name.removeprefix(place).partition(".")
            return _at(place, before[int(number)], after, rest)
    return name


def _at(place: str, resolution: int, resolutions: Sequence[int], rest: str) -> str:
    return f"{place}{resolutions.index(resolution)}.{rest}" if resolution in resolutions else ""
