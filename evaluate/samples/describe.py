"""What samples were drawn with, in a few words for titles and captions."""

from collections.abc import Sequence

from lvae.manifests import records
from lvae.manifests.publishing.samples import SAMPLES, SamplesPlan
from lvae.manifests.storage.folder import Folder


def weight(values: Sequence[float]) -> str:
    """One number where all resolutions have the same; "1.5 (0 at the lowest)", or all of them, otherwise."""
    if len(set(values)) == 1:
        return f"{values[0]:g}"
    if len(set(values[1:])) == 1:
        return f"{values[-1]:g} ({values[0]:g} at the lowest resolution)"
    return ",".join(f"{value:g}" for value in values)


def guidance(means: Sequence[float], variances: Sequence[float]) -> str:
    """Weights of the paper's convention, 0 being off."""
    if not any((*means, *variances)):
        return "no guidance"
    return f"guidance of means {weight(means)}, of variances {weight(variances)}"


def settings(plan: SamplesPlan) -> str:
    """Model and settings of samples."""
    weights = "averaged" if plan.weights == "ema" else "last"
    words = [f"update {plan.step}, {weights} weights", guidance(plan.guidance_mean, plan.guidance_variance)]
    if plan.output_temperature:
        kind = "" if plan.residuals_sha256 is None else ", correlated noise"
        words += [f"output temperature {plan.output_temperature:g}{kind}"]
    words += [f"temperature {weight(plan.temperature)}", f"labels {plan.labels}", f"seed {plan.seed}"]
    return "; ".join(words)


def plan_of(folder: Folder) -> SamplesPlan | None:
    """What SAMPLES say of themselves, None for other datasets."""
    data = folder.read_if_there(SAMPLES)
    return None if data is None else records.parse(SamplesPlan, data, f"{folder}/{SAMPLES}")
