"""Which weights of guidance and temperatures a sweep goes through."""

from dataclasses import dataclass

import numpy as np

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig

MEANS, VARIANCES, TEMPERATURES = (0.0, 0.75, 1.5, 3.0), (0.0, 1.5, 3.0), (0.9, 0.8, 0.7)


@dataclass(frozen=True)
class Setting:
    """One place of a sweep. mean, variance: weights of guidance, 0 being off. Temperatures are swept without it.

    output: the share of the predicted deviation that is added to the mean.
    """

    mean: float
    variance: float
    temperature: float
    output: float = records.later(0.0)

    @property
    def name(self) -> str:
        if self.output:
            return f"output-{self.output:g}"
        if self.temperature != 1:
            return f"temperature-{self.temperature:g}"
        return f"mean-{self.mean:g}-variance-{self.variance:g}" if self.mean or self.variance else "unguided"


def combine_settings(
    config: ModelConfig,
    means: tuple[float, ...] | None,
    variances: tuple[float, ...] | None,
    temperatures: tuple[float, ...] | None,
    outputs: tuple[float, ...] = (),
) -> tuple[Setting, ...]:
    """No guidance first, then means x variances, then temperatures, of the draws and of the output; each once.

    None: the usual ones.
    """
    guidable = bool(config.classes and config.hierarchical_prior)
    if not guidable and (any(means or ()) or any(variances or ())):
        raise LvaeError(
            "",
            ("guidance needs a model with classes and a hierarchical prior, and this one has not both"),
            "Leave --means and --variances out; its temperature can be swept.",
        )
    for option, numbers in (("--temperatures", temperatures), ("--output-temperatures", outputs)):
        if min(numbers or (0.0,)) < 0:
            raise LvaeError(option, "must not be negative")
    means = means if means is not None else MEANS if guidable else (0.0,)
    variances = variances if variances is not None else VARIANCES if guidable else (0.0,)
    found = [Setting(0.0, 0.0, 1.0)]
    found += [Setting(mean, variance, 1.0) for mean in means for variance in variances]
    found += [
        Setting(0.0, 0.0, temperature) for temperature in (TEMPERATURES if temperatures is None else temperatures)
    ]
    found += [Setting(0.0, 0.0, 1.0, output) for output in outputs]
    return tuple(dict.fromkeys(found))


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Parse "0,1.5,3"; None where the option was not given."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise LvaeError(f"{option} {text:.60}", "write numbers like 0,1.5,3") from None
    if not np.isfinite(values).all():
        raise LvaeError(f"{option} {text:.60}", "every number must be finite")
    return values
