"""Samples seen by EfficientNet-Lite0, where it is installed: scores in latent space flatter."""

from pathlib import Path
from typing import Any

from lvae.encode.quality.efficientnet import NAME, SHA256
from lvae.evaluate.analysis.sweep_figures import describe_setting, lower_is_better, metric_title
from lvae.evaluate.features.efficientnet import MODE
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.pictures.streams import decoded_stack
from lvae.evaluate.report.cache import load_or_make
from lvae.evaluate.report.inputs import ReportInputs
from lvae.evaluate.report.page import Numbers, WithCaption
from lvae.evaluate.report.run_sections import describe_seeds
from lvae.evaluate.scores.image_scores import Measure, image_scores, reference_of, rivals_of
from lvae.evaluate.scores.real_level import REAL, REAL_IN_WORDS
from lvae.evaluate.scores.score_table import group_verdicts, in_order
from lvae.manifests.dataset import Dataset

ROWS = {"linear": "class Gaussians, decoded", REAL: REAL_IN_WORDS}


def show_network_scores(inputs: ReportInputs, data: Dataset) -> WithCaption:
    """The decoded samples of the best setting beside decoded class Gaussians, against decoded training latents."""
    count, seed = min(inputs.options.count, len(data)), inputs.options.seed
    sets = [inputs.samples[inputs.best, one] for one in inputs.options.seeds]
    names = [str(one.folder) for one in sets]

    def make() -> dict[str, Any]:
        network = open_network(Path(NAME), "adm")
        stacks = [decoded_stack(one, inputs.network, None) for one in sets]
        pictures = decoded_stack(data, inputs.network, count, seed)
        reference, notes = reference_of(str(data.folder), None, pictures, network, lambda _: None)
        around = rivals_of(data, inputs.network, inputs.options.count, seed, "cpu")
        rivals = [rival for rival in around if rival.name == "linear"]
        return image_scores(stacks, reference, Measure(network, seed=seed), rivals, notes).as_dict()

    key = {"samples": [one.manifest.id for one in sets], "dataset": data.manifest.id, "count": count}
    kept = load_or_make(inputs.cache, f"scores-{MODE}", {**key, "sha256": SHA256}, make)
    metrics = in_order([metric for metric in kept["verdicts"] if "_std" not in metric])
    headings = [f"{metric_title(metric)}\u00a0{'↓' if lower_is_better(metric) else '↑'}" for metric in metrics]
    rows = [(f"samples, {describe_setting(inputs.best)}", [_cell(kept, metric) for metric in metrics], False)]
    rows += [(words, [_cell(kept, f"{name}_{metric}") for metric in metrics], True) for name, words in ROWS.items()]
    verdicts = "; ".join(group_verdicts({name: kept["verdicts"][name] for name in metrics}))
    caption = (
        f"Features of EfficientNet-Lite0 ({MODE}), not FID: {inputs.options.count} pictures a "
        f"set{describe_seeds(inputs)}, against {count} decoded training latents. Samples against class Gaussians: "
        f"{verdicts}."
    )
    samples = " ".join(f"--samples {name}" for name in names)
    command = f"lvae score {samples} --reference {inputs.dataset_name} --features {NAME} --num {count}"
    return WithCaption(
        Numbers("Scores by a network", headings, rows), caption, f"{command} --around {inputs.dataset_name}"
    )


def _cell(found: dict[str, Any], name: str) -> str:
    mean, spread = found.get(name), found.get(f"{name}_std")
    if mean is None:
        return "not available"
    return f"{mean:.4g}" + ("" if spread is None else f" ± {spread:.2g}")
