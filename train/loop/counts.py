"""What is counted of updates, and what the counts decide: whether one is applied, and when a threshold gives in."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

TRUSTING_UPDATES = 1000  # while the model still settles, large gradients are no sign of trouble
GIVE_IN_AFTER = 25  # updates skipped one after another because the gradient's norm exceeds the threshold
EASING = 0.99  # of a raised threshold, which each applied update leaves
MEASURED = ("loss_nats", "reconstruction_nats", "rate_nats", "spectral", "gradient_norm", "learning_rate")


class Decision(NamedTuple):
    """What becomes of an update; bool scalars. Neither finite nor applied: its numbers are useless."""

    applied: Tensor
    finite: Tensor


def first_counts(threshold: float, groups: int) -> dict[str, Tensor]:
    """The counts before the first update.

    applied, skipped: updates so far. too_large, useless: skipped one after another because the gradient's norm exceeds
    `threshold`, or because it or the loss is no finite number. sums, summed: of what was measured since the last line
    of the log, over updates with finite numbers.
    """
    zero = torch.zeros((), dtype=torch.int32)
    names = ("applied", "skipped", "too_large", "useless", "summed")
    return {
        **{name: zero.clone() for name in names},
        "threshold": torch.tensor(threshold, dtype=torch.float32),
        "sums": torch.zeros(len(MEASURED) + groups, dtype=torch.float32),
    }


def decide(norm: Tensor, total: Tensor, counts: Mapping[str, Tensor]) -> Decision:
    """Apply an update unless its gradient explodes. Numbers that are not finite are never applied, early or late."""
    finite = torch.isfinite(norm) & torch.isfinite(total)
    small = (norm < counts["threshold"]) | (counts["applied"] < TRUSTING_UPDATES)
    return Decision(finite & small, finite)


def count_update(
    counts: Mapping[str, Tensor], decision: Decision, norm: Tensor, values: Tensor, keep: Tensor, least: float = 0.0
) -> dict[str, Tensor]:
    """The counts after an update. keep: 1 to add to the sums so far, 0 to begin them anew.

    Where too many updates in a row were skipped for the norm of their gradient, the threshold gives in: it becomes
    twice that norm, so that a run cannot stand still for ever. It comes down again to `least` as updates are applied.
    """
    applied, finite = decision
    too_large = torch.where(finite & ~applied, counts["too_large"] + 1, 0 * counts["too_large"])
    too_large = torch.where(finite, too_large, counts["too_large"])
    gives_in = too_large >= GIVE_IN_AFTER
    threshold = counts["threshold"]
    lowered = (threshold * EASING).clamp(min=least) if least else threshold
    threshold = torch.where(applied & (threshold > least), lowered, threshold)
    return {
        "applied": counts["applied"] + applied,
        "skipped": counts["skipped"] + ~applied,
        "too_large": torch.where(gives_in, 0 * too_large, too_large),
        "useless": torch.where(finite, 0 * counts["useless"], counts["useless"] + 1),
        "threshold": torch.where(gives_in, 2 * norm, threshold),
        "sums": torch.where(finite, keep * counts["sums"] + values, keep * counts["sums"]),
        "summed": keep * counts["summed"] + finite,
    }
