"""Statistics made anew from the latents, beside what the manifest says of them."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import Manifest, no_dataset, read_manifest
from lvae.manifests.messages import counted, printable
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.parts.receipts import receipts
from lvae.manifests.statistics import ChannelMoments, scalar_moments
from lvae.manifests.storage.open import folder_at
from lvae.manifests.verify.shard_statistics import moments_from_shards, shard_tolerance
from lvae.manifests.views.combine import regenerate

EXACT = 1e-9  # of a standard deviation: far above float64's rounding over any number of latents, far below any mistake


@dataclass(frozen=True)
class Regenerated:
    """Statistics from the latents. `by_class` holds (name, moments) in the view's order."""

    dataset: str
    manifest: Manifest
    moments: ChannelMoments
    by_class: list[tuple[str, ChannelMoments]]
    computed_from: Literal["raw", "shards"]

    @property
    def tolerance(self) -> NDArray[np.float64]:
        """A channel's, in its own unit."""
        return EXACT * self.moments.std if self.computed_from == "raw" else shard_tolerance(self.manifest)

    def largest_difference(self) -> float:
        """Of mean and std against the manifest's, in standard deviations."""
        claimed = self.manifest.statistics
        std = np.maximum(self.moments.std, np.finfo(np.float64).tiny)
        differences = [self.moments.mean - np.array(claimed.mean), self.moments.std - np.array(claimed.std)]
        return float(max(np.abs(difference / std).max() for difference in differences))

    def require_agreement(self) -> None:
        difference, claimed = self.largest_difference(), self.manifest.statistics
        pairs = ((self.moments.mean, claimed.mean), (self.moments.std, claimed.std))
        if not all((np.abs(found - np.array(said)) <= self.tolerance).all() for found, said in pairs):
            raise LvaeError(
                self.dataset,
                (
                    f"the manifest's statistics are {difference:.2g} standard deviations off those of "
                    f"the {self.computed_from} latents"
                ),
                f"Run 'lvae verify --deep {self.dataset}' to find the fault.",
            )

    def beside(self, name: str, shift: float, scale: float) -> "Comparison":
        """These statistics beside constants of somebody else, one for all channels."""
        return Comparison(name, shift, scale, self.moments)

    def as_dict(self, by_class: bool) -> dict[str, Any]:
        result = {
            "computed_from": self.computed_from,
            **_numbers(self.moments),
            "manifest": {"mean": self.manifest.statistics.mean, "std": self.manifest.statistics.std},
            "largest_difference_std": self.largest_difference(),
        }
        if by_class:
            result["by_class"] = {name: _numbers(moments) for name, moments in self.by_class}
        return result

    def table(self, by_class: bool) -> str:
        claimed = self.manifest.statistics
        lines = [
            f"{self.dataset}: statistics of {counted(claimed.count, 'latent')}, computed from {self.computed_from}",
            "  channel       mean        std        min        max   manifest's mean         std",
        ]
        columns = (self.moments.mean, self.moments.std, self.moments.minimum, self.moments.maximum)
        for channel, values in enumerate(zip(*columns, claimed.mean, claimed.std, strict=True)):
            lines.append(
                "  {:7d} {:10.6f} {:10.6f} {:10.4f} {:10.4f}        {:10.6f} {:11.6f}".format(channel, *values)
            )
        lines.append(f"  largest difference: {self.largest_difference():.2g} standard deviations")
        if by_class:
            width = max(len(printable(name)) for name, _ in self.by_class)
            for name, moments in self.by_class:
                pairs = "  ".join(f"{m:8.4f} ±{s:7.4f}" for m, s in zip(moments.mean, moments.std, strict=True))
                lines.append(f"  {printable(name):{width}}  {pairs}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """Raw latents beside constants that somebody else normalized such latents with: (raw - shift) / scale."""

    name: str
    shift: float
    scale: float
    moments: ChannelMoments

    def rows(self) -> list[tuple[str, float, float]]:
        """(channel, mean, std), and those of all channels together."""
        channels = zip(self.moments.mean.tolist(), self.moments.std.tolist(), strict=True)
        return [
            *((str(n), mean, std) for n, (mean, std) in enumerate(channels)),
            ("all", *scalar_moments(self.moments)),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Differences are in the unit of the raw latents; `normalized` is what the constants make of them."""
        return {
            "name": self.name,
            "shift": self.shift,
            "scale": self.scale,
            "channels": {
                channel: {
                    "mean_minus_shift": mean - self.shift,
                    "std_minus_scale": std - self.scale,
                    "normalized_mean": (mean - self.shift) / self.scale,
                    "normalized_std": std / self.scale,
                }
                for channel, mean, std in self.rows()
            },
        }

    def table(self) -> str:
        lines = [
            f"  {self.name}: shift {self.shift:g} and scale {self.scale:g} of every channel in the paper",
            "  channel  mean - shift  std - scale  normalized mean         std",
        ]
        for channel, found in self.as_dict()["channels"].items():
            lines.append("  {:>7} {:13.6f} {:12.6f} {:16.6f} {:11.6f}".format(channel, *found.values()))
        return "\n".join(lines)


def _numbers(moments: ChannelMoments) -> dict[str, Any]:
    arrays = {"mean": moments.mean, "std": moments.std, "min": moments.minimum, "max": moments.maximum}
    return {"values": moments.count, **{name: array.tolist() for name, array in arrays.items()}}


def regenerated(dataset: str) -> Regenerated:
    """Read the latents of a dataset's view again: from the raw parts, or without them from the shards."""
    folder = folder_at(dataset)
    manifest, plan = read_manifest(folder), read_plan(folder)
    if manifest is None or plan is None:
        raise no_dataset(folder, dataset, "is not a finished dataset")
    if manifest.raw == "dropped":
        moments, by_label = moments_from_shards(folder, manifest)
    else:
        moments, by_label = regenerate(folder, plan, manifest.view.selection, lambda: receipts(folder, plan))
    classes = manifest.classes
    named = [
        ("(unlabelled)" if label < 0 else classes[label] if classes else str(label), found)
        for label, found in sorted(by_label.items())
    ]
    return Regenerated(dataset, manifest, moments, named, "raw" if manifest.raw == "kept" else "shards")
