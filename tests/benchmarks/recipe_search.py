"""What makes a model of a few minutes sharp and diverse: recipes in turn, scored by a network that knows pictures.

    python tests/benchmarks/recipe_search.py IMAGES OUT [--size 32] [--minutes 10] [--seeds 2] [-n 1000] [--record]

One thing is changed at a time from the demo's recipe: what is trained (each for so many minutes of one thread's own
time, whatever else the machine does) and how the base model is drawn from. Models of `--seeds` seeds are scored against
pictures that they were trained on; the best recipe and the base are then trained anew from other seeds and scored
against pictures set aside, which are the figures to quote. The same command goes on where it was stopped, and writes
all runs that there are to OUT/runs.md, with --record also beside this script, above what was tried by hand.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from machine import describe

from lvae.actions.study.arms import Arm, Data, Design, Model
from lvae.actions.study.chain import Chain, Result
from lvae.actions.study.plan import StudyPlan, begin, keep_seconds
from lvae.actions.study.timing import time_model
from lvae.cli import main as lvae
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.scores.score_table import Line
from lvae.evaluate.studies.paper import FRECHET, KERNEL, PRECISION, RECALL
from lvae.evaluate.studies.table import NAMES
from lvae.manifests.dataset import Dataset

RECORD = Path(__file__).with_suffix(".md")
BY_HAND = "## By hand"  # what the record says from here on is kept
METRICS = (FRECHET, KERNEL, PRECISION, RECALL)
NETWORK, READING = "efficientnet-lite0", "equal-time"
DECAY = "decay_updates"  # the rate falls until the end, whose number depends on the model's speed
BASE = {
    "preset": "tiny",
    "classes": "all",
    "hierarchical_prior": "true",
    "multipliers": "1,2,2",
    "groups": "2,2,4",
    "batch": "16",
    "ema": "0.998",
    "rate_lower": "150",
    "learning_rate_schedule": "cosine",
    "learning_rate_minimum": "1e-5",
}
TRAINED: Mapping[str, Mapping[str, str]] = {
    "base": {},
    "sigma_q 0.03": {"sigma_q": "0.03"},
    "sigma_q 0.15": {"sigma_q": "0.15"},
    "width 24": {"width": "24", "encoder_width": "24"},
    "width 48": {"width": "48", "encoder_width": "48"},
    "groups 4,4,4": {"groups": "4,4,4"},
    "groups 1,2,4": {"groups": "1,2,4"},
    "z 8": {"z_channels": "8"},
    "z 32": {"z_channels": "32"},
    "rates 4,3,2": {"rate_schedule": "constant_per", "rate_per_resolution": "4,3,2"},
    "rates 8,4,1": {"rate_schedule": "constant_per", "rate_per_resolution": "8,4,1"},
    "batch 8": {"batch": "8"},
    "batch 32": {"batch": "32"},
    "rate 1e-3": {"learning_rate": "1e-3"},
    "rate 5e-3": {"learning_rate": "5e-3"},
    "beta2 0.99": {"beta2": "0.99"},
    "constant rate": {"learning_rate_schedule": "constant"},
    "ema 0.99": {"ema": "0.99"},
    "ema 0.9995": {"ema": "0.9995"},
    "no spectral penalty": {"spectral_weight": "0"},
    **{f"rates below {percent} %": {"rate_lower": percent} for percent in ("66.7", "100", "200", "300")},
}
CORRELATED = ("--output-noise", "correlated", "--output-temperature")
DRAWN: Mapping[str, tuple[str, ...]] = {
    **{f"output {share}": ("--output-temperature", share) for share in ("0.1", "0.2", "0.3", "0.4", "0.5")},
    **{f"correlated {share}": (*CORRELATED, share) for share in ("0.3", "0.5", "0.7")},
    "temperature 0.85": ("--temperature", "0.85"),
    "temperature 0.85, output 0.3": ("--temperature", "0.85", "--output-temperature", "0.3"),
    "temperature 1,0.9,0.8": ("--temperature", "1,0.9,0.8"),
    "means 0.5, output 0.3": ("--guidance-mean", "0.5", "--output-temperature", "0.3"),
    "means 1, output 0.3": ("--guidance-mean", "1", "--output-temperature", "0.3"),
    "variances 1.5, output 0.3": ("--guidance-variance", "1.5", "--output-temperature", "0.3"),
}


class Search:
    """The runs that there are, and what makes the others."""

    def __init__(self, images: str, out: Path, options: argparse.Namespace):
        out.mkdir(parents=True, exist_ok=True)
        sha256 = open_network(Path(NETWORK), "adm").sha256
        asked = (options.minutes, options.size, options.seeds, options.n, NETWORK, sha256)
        self.plan = begin(out, StudyPlan("latent-vae-study", 1, "recipes", images, *asked, {}))
        view = ("--size", str(options.size), "--mirror", "--split", "val=10%", "--workers", "1")
        pixels = (*view, "--autoencoder", "pixels", "--normalization", "none")
        self.chain = Chain(lvae, out, self.plan, Design({"latents": Data(view), "pixels": Data(pixels)}, ()))
        self.found: dict[str, list[Result]] = {}

    def prepare(self) -> None:
        for name in self.chain.design.data:
            self.chain.encode(name, {})
        pixels, out = self.chain.data("pixels"), self.chain.out
        held_out = len(Dataset.open(pixels, "val"))
        self.chain.extract(pixels, out / "reference.npz", "--num", str(held_out))
        self.chain.extract(pixels, out / "held-out.npz", "--split", "val")

    def arm(self, name: str) -> tuple[Arm, int]:
        """A recipe, and how many updates it makes in its time."""
        settings = {**BASE, **TRAINED[name]}
        model, scratch = Model("latents", settings), self.chain.out / "trials"
        scratch.mkdir(exist_ok=True)
        data = Dataset.open(self.chain.data("latents"))
        self.plan = keep_seconds(self.chain.out, self.plan, name, lambda: (time_model(data, model, scratch),))
        updates = max(10, int(self.plan.minutes * 60 / self.plan.seconds[name][0]))
        return Arm(name, (replace(model, settings={**settings, DECAY: str(updates)}),)), updates

    def train(self, name: str, seed: int) -> None:
        arm, updates = self.arm(name)
        self.found.setdefault(name, []).append(self.chain.make(arm, seed, READING, (updates,)))

    def draw(self, name: str, seed: int) -> None:
        """From the base model of this seed, in another way."""
        run = self.chain.place("base", seed) / "run-0"
        out = run.parent / f"samples-{name.replace(' ', '-').replace(',', '-')}"

        def sample() -> Path:
            if "correlated" in DRAWN[name]:
                self.chain.run("residuals", run, self.chain.data("latents"))
            self.chain.run("sample", run, out, "-n", str(self.plan.count), "--seed", str(100 + seed), *DRAWN[name])
            return out

        self.found.setdefault(name, []).append(self.chain.keep_scores(name, seed, READING, (), sample))

    def report_best(self) -> list[Line]:
        """The base and the best trained recipe, from other seeds, against the pictures set aside."""
        trained = {name: self.line(name).mean(FRECHET) or 0.0 for name in TRAINED if name in self.found}
        draws = {name: self.line(name).mean(FRECHET) or 0.0 for name in DRAWN if name in self.found}
        best, way = min(trained, key=lambda name: trained[name]), min(draws, key=lambda name: draws[name])
        lines = []
        for name, words in (("base", ()), (best, DRAWN[way])):
            arm, updates = self.arm(name)
            sets = []
            for seed in range(self.plan.seeds, 2 * self.plan.seeds):
                place = self.chain.place(name, seed)
                self.chain.train(place / "run-0", arm.models[0], seed, updates)
                if "correlated" in words:
                    self.chain.run("residuals", place / "run-0", self.chain.data("latents"))
                out = place / f"reported-{len(words)}"
                self.chain.run("sample", place / "run-0", out, "-n", str(self.plan.count), "--seed", str(seed), *words)
                self.chain.extract(out, out.with_suffix(".npz"))
                sets.append(self.chain.score(out.with_suffix(".npz"), self.chain.out / "held-out.npz"))
            lines.append(Line(name if not words else f"{name}, drawn by {way}", "", tuple(sets)))
        return lines

    def line(self, name: str) -> Line:
        return Line(name, "", tuple(one.figures for one in self.found[name]))

    def as_markdown(self, reported: list[Line]) -> str:
        plan = self.plan
        text = (
            f"{plan.minutes:g} minutes of one thread each, {plan.size} px, {plan.count} pictures of a seed, {NETWORK}"
        )
        parts = ["# Recipes", "", f"{describe()}. {text}.", ""]
        parts += ["Against pictures of the training split:", "", *_table([self.line(name) for name in self.found])]
        if reported:
            parts += ["", "From other seeds, against pictures set aside:", "", *_table(reported)]
        missing = [name for name in (*TRAINED, *DRAWN) if len(self.found.get(name, [])) < plan.seeds]
        parts += ["", f"Not finished: {', '.join(missing)}."] if missing else []
        return "\n".join(parts) + "\n"


def _table(lines: list[Line]) -> list[str]:
    rows = [f"| recipe | seeds | {' | '.join([NAMES[one] for one in METRICS])} |", "|" + "---|" * 6]
    for line in lines:
        cells = []
        for metric in METRICS:
            mean, spread = line.mean(metric), line.spread(metric)
            cells.append("" if mean is None else f"{mean:.4g}" + ("" if spread is None else f" ± {spread:.2g}"))
        rows.append(f"| {line.name} | {len(line.sets)} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    search = Search(options.images, options.out, options)
    search.prepare()
    steps = [partial(search.train, "base", seed) for seed in range(options.seeds)]
    steps += [partial(search.draw, name, seed) for name in DRAWN for seed in range(options.seeds)]
    steps += [partial(search.train, name, seed) for name in TRAINED if name != "base" for seed in range(options.seeds)]
    reported: list[Line] = []
    for step in [*steps, lambda: reported.extend(search.report_best())]:
        step()
        text = search.as_markdown(reported)
        (options.out / "runs.md").write_text(text)
        if options.record:
            by_hand = RECORD.read_text().partition(BY_HAND)
            RECORD.write_text(text + "\n" + "".join(by_hand[1:]))


if __name__ == "__main__":
    main()
