"""What makes a model of a few minutes sharp and diverse: recipes in turn, scored by a network that knows pictures.

    python tests/benchmarks/recipe_search.py scenes IMAGES OUT [--minutes 10] [--seeds 2] [-n 1000]
        [--only NAME:NAME...] [--record]
    python tests/benchmarks/recipe_search.py photographs IMAGES OUT --weights FILE [...]

One thing is changed at a time from a base: the demo's recipe (scenes, 32 px), or one like the packaged model's and
narrower (photographs, 64 px). Every recipe trains for so many minutes of one thread's own time, whatever else the
machine does, and is drawn from in two ways; the base in more. Models of `--seeds` seeds are scored against decoded
latents that they were trained on; the best recipe and the base are then trained anew from other seeds and scored
against latents set aside, which are the figures to quote. The same command goes on where it was stopped, and writes all
runs that there are to OUT/runs.md, with --record also beside this script, in the place of this search's own section.
A search of days is run in parts, `--only "batch 32:z 32"`, which report no best and whose lines are joined by hand.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
from machine import describe

from lvae.actions.study.arms import Arm, Data, Design, Model
from lvae.actions.study.chain import Chain, Result
from lvae.actions.study.plan import StudyPlan, begin, keep_seconds
from lvae.actions.study.timing import time_model
from lvae.cli import main as lvae
from lvae.evaluate.features.feature_files import extract
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.pictures.decode import load_decoder
from lvae.evaluate.pictures.streams import ImageStack
from lvae.evaluate.scores.image_scores import rivals_of
from lvae.evaluate.scores.score_table import Line
from lvae.evaluate.studies.paper import FRECHET, KERNEL, PRECISION, RECALL
from lvae.evaluate.studies.table import NAMES
from lvae.manifests.dataset import Dataset
from lvae.pipeline.progress.console import say

RECORD = Path(__file__).with_suffix(".md")
METRICS = (FRECHET, KERNEL, PRECISION, RECALL)
NETWORK, HELD_OUT = "efficientnet-lite0", "10%"
DECAY = "decay_updates"  # the rate falls until the end, whose number depends on the model's speed
BASE = "base"
CORRELATED = ("--output-noise", "correlated", "--output-temperature")
Ways = Mapping[str, tuple[str, ...]]
Settings = Mapping[str, str]


@dataclass(frozen=True)
class Space:
    """What is searched. ways: how every recipe is drawn from. draws: how the base is, beside these."""

    title: str
    size: int
    base: Settings
    recipes: Mapping[str, Settings]
    ways: Ways
    draws: Ways


SMALL = {
    "preset": "tiny",
    "classes": "all",
    "hierarchical_prior": "true",
    "learning_rate_schedule": "cosine",
    "learning_rate_minimum": "1e-5",
}
SCENES = Space(
    "Drawn scenes, 32 px",
    32,
    {**SMALL, "multipliers": "1,2,2", "groups": "2,2,4", "batch": "16", "ema": "0.998", "rate_lower": "150"},
    {
        "width 48": {"width": "48", "encoder_width": "48"},
        "batch 32": {"batch": "32"},
        "batch 8": {"batch": "8"},
        "batch 64": {"batch": "64"},
        "groups 4,4,4": {"groups": "4,4,4"},
        "groups 2,2,1": {"groups": "2,2,1"},
        "groups 1,2,1": {"groups": "1,2,1"},
        "groups 2,2,1, multipliers 1,1,1": {"groups": "2,2,1", "multipliers": "1,1,1"},
        "groups 2,2,1, batch 24": {"groups": "2,2,1", "batch": "24"},
        "sigma_q 0.15": {"sigma_q": "0.15"},
        "rates 4,3,2": {"rate_schedule": "constant_per", "rate_per_resolution": "4,3,2"},
        "z 32": {"z_channels": "32"},
        "learning rate 5e-3": {"learning_rate": "5e-3"},
        "learning rate kept": {"learning_rate_schedule": "constant"},
        "learning rate kept, ema 0.9995": {"learning_rate_schedule": "constant", "ema": "0.9995"},
        "no spectral penalty": {"spectral_weight": "0"},
        "width 24": {"width": "24", "encoder_width": "24"},
        "sigma_q 0.03": {"sigma_q": "0.03"},
        "ema 0.99": {"ema": "0.99"},
        "ema 0.9995": {"ema": "0.9995"},
        "rates below 100 %": {"rate_lower": "100"},
        "rates below 200 %": {"rate_lower": "200"},
        "multipliers 1,1,1": {"multipliers": "1,1,1"},
        "batch 8, multipliers 1,1,1": {"batch": "8", "multipliers": "1,1,1"},
        "z 8": {"z_channels": "8"},
    },
    {"means": (), "correlated 0.5": (*CORRELATED, "0.5")},
    {
        "independent 0.3": ("--output-temperature", "0.3"),
        "correlated 0.3": (*CORRELATED, "0.3"),
        "correlated 0.8": (*CORRELATED, "0.8"),
        "temperature 0.85, correlated 0.5": ("--temperature", "0.85", *CORRELATED, "0.5"),
        "temperature 1,1,1.2, correlated 0.5": ("--temperature", "1,1,1.2", *CORRELATED, "0.5"),
        "guided means 1, correlated 0.5": ("--guidance-mean", "1", *CORRELATED, "0.5"),
        "guided variances 1.5, correlated 0.5": ("--guidance-variance", "1.5", *CORRELATED, "0.5"),
    },
)
PHOTOGRAPHS = Space(
    "Photographs, 64 px",
    64,
    {
        **SMALL,
        "groups": "3,4,4,2",
        "encoder_blocks": "1,2,2,1",
        "batch": "32",
        "sigma_q": "0.1",
        "ema": "0.998",
        "rate_schedule": "constant_per",
        "rate_per_resolution": "4,4,3,2",
        "rate_lower": "80",
    },
    {
        "width 48": {"width": "48", "encoder_width": "48"},
        "batch 16": {"batch": "16"},
        "learning rate 5e-3": {"learning_rate": "5e-3"},
        "groups 2,3,3,2": {"groups": "2,3,3,2"},
        "rates 8,4,2,1": {"rate_per_resolution": "8,4,2,1"},
        "rates below 120 %": {"rate_lower": "120"},
        "sigma_q 0.2": {"sigma_q": "0.2"},
        "multipliers 1,2,2,1": {"multipliers": "1,2,2,1"},
        "z 32": {"z_channels": "32"},
        "width 24": {"width": "24", "encoder_width": "24"},
        "sigma_q 0.05": {"sigma_q": "0.05"},
        "no spectral penalty": {"spectral_weight": "0"},
        "standard prior": {"hierarchical_prior": "false"},
    },
    {
        "correlated 0.5": (*CORRELATED, "0.5"),
        "guided means 3, correlated 0.8": ("--guidance-mean", "3", *CORRELATED, "0.8"),
    },
    {
        "means": (),
        "guided means 2,2,3,6, temperature 1,1,1,1.5, correlated 0.8": (
            "--guidance-mean",
            "2,2,3,6",
            "--temperature",
            "1,1,1,1.5",
            *CORRELATED,
            "0.8",
        ),
    },
)
SPACES = {"scenes": SCENES, "photographs": PHOTOGRAPHS}


class Search:
    """The runs that there are, and what makes the others."""

    def __init__(self, space: Space, options: argparse.Namespace):
        out, weights = options.out, options.weights
        out.mkdir(parents=True, exist_ok=True)
        sha256 = open_network(Path(NETWORK), "adm").sha256
        asked = (options.minutes, space.size, options.seeds, options.n, NETWORK, sha256)
        self.space = space
        self.plan = begin(out, StudyPlan("latent-vae-study", 1, "recipes", options.images, *asked, {}))
        view = ("--size", str(space.size), "--mirror", "--split", f"val={HELD_OUT}", "--workers", "1")
        autoencoder = ("--weights", weights) if weights else ("--autoencoder", "default")
        self.chain = Chain(lvae, out, self.plan, Design({"latents": Data((*view, *autoencoder))}, ()))
        self.latents = self.chain.data("latents")
        self.lines: dict[tuple[str, str], list[Result]] = {}

    def prepare(self) -> None:
        """Latents, and features of those that models are scored against, of others, and of class Gaussians."""
        self.chain.encode("latents", {})
        count = str(self.plan.count)
        self.chain.extract(self.latents, self.chain.out / "reference.npz", "--num", count, "--seed", "0")
        self.chain.extract(self.latents, self.chain.out / "held-out.npz", "--split", "val")
        aside = f"set aside, {len(Dataset.open(self.latents, 'val'))} of them"
        self._keep(aside, "decoded", 0, (), lambda: self.chain.out / "held-out.npz")
        for seed in range(self.plan.seeds):
            self._keep("class Gaussians", "decoded", seed, (), partial(self._draw_gaussians, seed))

    def train(self, name: str, seed: int) -> None:
        """A recipe, drawn from in every way."""
        arm, updates = self._arm(name)
        place = self.chain.place(name, seed)
        self.chain.train(place / "run-0", arm.models[0], seed, updates)
        self.chain.run("residuals", place / "run-0", self.latents)
        for way, words in self._ways(name).items():
            sample = partial(self._sample, place, way, 100 + seed, words)
            try:
                self._keep(name, way, seed, (updates,), sample)
            except click.exceptions.Exit:  # it said why: a sample that is not finite
                say(f"{name}, seed {seed}, {way}: no samples")

    def report_best(self) -> list[Line]:
        """The base and the best recipe, from other seeds, against what was set aside."""
        whole = [key for key, results in self.lines.items() if len(results) == self.plan.seeds]
        means = {key: self._line(*key).mean(FRECHET) or 0.0 for key in whole if key[0] in (BASE, *self.space.recipes)}
        name, way = min(means, key=lambda key: means[key])
        lines = []
        for one, words in ((BASE, self._ways(BASE)[way]), (name, self._ways(name)[way])):
            arm, updates = self._arm(one)
            sets = []
            for seed in range(self.plan.seeds, 2 * self.plan.seeds):
                place = self.chain.place(one, seed)
                self.chain.train(place / "run-0", arm.models[0], seed, updates)
                self.chain.run("residuals", place / "run-0", self.latents)
                out = self._sample(place, way, seed, words)
                self.chain.extract(out, out.with_name(f"{out.name}.npz"))
                sets.append(self.chain.score(out.with_name(f"{out.name}.npz"), self.chain.out / "held-out.npz"))
            lines.append(Line(f"{one}, {way}", "", tuple(sets)))
        return lines

    def as_markdown(self, reported: list[Line]) -> str:
        plan = self.plan
        said = f"{plan.minutes:g} minutes of one thread a run; {plan.count} pictures of a seed, features of {NETWORK}"
        parts = [f"## {self.space.title}", "", f"{describe()}. {said}.", ""]
        parts += [_listed("The base", self.space.base), ""]
        parts += ["Against decoded latents of the training split:", ""]
        parts += _table([(*key, self._line(*key), results[0].updates) for key, results in self.lines.items()])
        if reported:
            parts += ["", "From other seeds, against decoded latents set aside:", ""]
            parts += _table([(line.name, "", line, ()) for line in reported])
        made = {name for (name, _), results in self.lines.items() if len(results) == plan.seeds}
        missing = [name for name in self.space.recipes if name not in made]
        if any(0 < len(self.lines.get((name, way), ())) < plan.seeds for name in made for way in self._ways(name)):
            parts += ["", "Where there are fewer seeds, a sample of another one was not finite."]
        parts += ["", f"Not run yet: {', '.join(missing)}."] if missing else []
        return "\n".join(parts) + "\n"

    def _arm(self, name: str) -> tuple[Arm, int]:
        """A recipe, and how many updates it makes in its time."""
        settings = {**self.space.base, **self.space.recipes.get(name, {})}
        model, scratch = Model("latents", settings), self.chain.out / "trials"
        scratch.mkdir(exist_ok=True)
        data = Dataset.open(self.latents)
        self.plan = keep_seconds(self.chain.out, self.plan, name, lambda: (time_model(data, model, scratch),))
        updates = max(10, int(self.plan.minutes * 60 / self.plan.seconds[name][0]))
        return Arm(name, (replace(model, settings={**settings, DECAY: str(updates)}),)), updates

    def _ways(self, name: str) -> Ways:
        return {**self.space.ways, **self.space.draws} if name == BASE else self.space.ways

    def _sample(self, place: Path, way: str, seed: int, words: tuple[str, ...]) -> Path:
        out = place / f"samples-{seed}-{way.replace(' ', '-').replace(',', '-')}"
        self.chain.run("sample", place / "run-0", out, "-n", str(self.plan.count), "--seed", str(seed), *words)
        return out

    def _draw_gaussians(self, seed: int) -> Path:
        latents = Dataset.open(self.latents)
        around = rivals_of(latents, load_decoder(latents), self.plan.count, 100 + seed, "cpu")
        stack = next(rival for rival in around if rival.name == "linear").sets[0]
        assert isinstance(stack, ImageStack)
        out = self.chain.out / f"gaussians-{seed}.npz"
        extract(out, stack, open_network(Path(NETWORK), "adm"))
        return out

    def _keep(self, name: str, way: str, seed: int, updates: tuple[int, ...], make: Callable[[], Path]) -> None:
        found = self.chain.keep_scores(name, seed, way.replace(" ", "-").replace(",", "-"), updates, make)
        self.lines.setdefault((name, way), []).append(found)

    def _line(self, name: str, way: str) -> Line:
        return Line(name, "", tuple(one.figures for one in self.lines[name, way]))


def _listed(title: str, settings: Settings) -> str:
    words = " ".join(f"--set {name}={value}" for name, value in settings.items() if name != "preset")
    return f"{title}: `--preset {settings['preset']} {words}`, and the learning rate falls until the end."


def _table(rows: list[tuple[str, str, Line, tuple[int, ...]]]) -> list[str]:
    heads = ("recipe", "drawn by", "updates", "seeds", *(NAMES[one] for one in METRICS))
    text = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, way, line, updates in rows:
        cells = []
        for metric in METRICS:
            mean, spread = line.mean(metric), line.spread(metric)
            cells.append("" if mean is None else f"{mean:.4g}" + ("" if spread is None else f" ± {spread:.2g}"))
        made = f"{updates[0]:,}" if updates else ""
        text.append(f"| {name} | {way} | {made} | {len(line.sets)} | {' | '.join(cells)} |")
    return text


def record(section: str, title: str) -> None:
    """Put a section in the place of the one of this title, or before the first one where there is none."""
    before, *sections = RECORD.read_text().split("\n## ")
    kept = [one for one in sections if one.partition("\n")[0] != title]
    place = next((k for k, one in enumerate(sections) if one.partition("\n")[0] == title), 0)
    kept.insert(place, section.removeprefix("## "))
    RECORD.write_text("\n## ".join([before, *kept]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space", choices=SPACES)
    parser.add_argument("images")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", default="", help="an autoencoder fitted before; else the default one")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--only", default="", help="these recipes, with colons between them, instead of all")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    search = Search(SPACES[options.space], options)
    search.prepare()
    names = options.only.split(":") if options.only else (BASE, *search.space.recipes)
    if unknown := {*names} - {BASE, *search.space.recipes}:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(search.space.recipes)}")
    steps = [partial(search.train, name, seed) for name in names for seed in range(options.seeds)]
    reported: list[Line] = []
    if not options.only:
        steps.append(lambda: reported.extend(search.report_best()))
    for step in steps:
        step()
        text = search.as_markdown(reported)
        (options.out / "runs.md").write_text(text)
        if options.record:
            record(text, search.space.title)


if __name__ == "__main__":
    main()
