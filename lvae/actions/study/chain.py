"""A study as a chain of our own commands: every one goes on where it was stopped, and results are kept one by one.

OUT/study.json               what decides it, and the seconds of an update
OUT/data/NAME/               datasets; OUT/autoencoders/NAME/ what was fitted for them
OUT/held-out.txt             keys of the pictures set aside, which no autoencoder is fitted on either
OUT/reference.npz            features of these
OUT/arms/ARM/seed-0/         runs, samples and their features
OUT/results/*.json           figures of an arm, seed and reading
OUT/table.md, table.json, page.html
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch

from lvae.actions.study.arms import HELD_OUT, Arm, Design, Model
from lvae.actions.study.plan import StudyPlan
from lvae.evaluate.features.feature_files import read_features
from lvae.evaluate.scores.image_scores import Measure, ReferenceFeatures, compute_figures
from lvae.evaluate.scores.score_table import Figures
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.progress.console import say
from lvae.train.runs.run import read_run_if_there

KEYS = "held-out.txt"
TIME, UPDATES = "equal-time", "equal-updates"  # the two readings
FIRST_SEED = 100  # of the samples that are reported; choices are made on others


@dataclass(frozen=True)
class Result:
    """Figures of an arm, seed and reading. updates: of its models."""

    format: str
    version: int
    updates: tuple[int, ...]
    figures: dict[str, float | None]


@dataclass
class Chain:
    """lvae: the command, called in this process."""

    lvae: click.Command
    out: Path
    plan: StudyPlan
    design: Design
    reference: dict[str, ReferenceFeatures] = field(default_factory=dict)

    def run(self, *words: str | Path) -> None:
        """One command. Stops the study where it was stopped."""
        said = [str(word) for word in words]
        say(f"$ {shlex.join(['lvae', *said])}")
        torch.set_num_threads(1)  # of every command, as of training: last digits depend on it, and a kill must not
        code = self.lvae.main(said, prog_name="lvae", standalone_mode=False)
        if code:
            raise click.exceptions.Exit(int(code))

    def data(self, name: str) -> Path:
        return self.out / "data" / name

    def autoencoder_words(self, name: str) -> list[str]:
        """Words behind 'lvae autoencoder fit' but its steps."""
        size = self.plan.size
        words = [
            "--autoencoder",
            self.design.autoencoders[name],
            "--size",
            str(size),
            "--shorter-side",
            f"{size}-{size}",
        ]
        return [*words, "--validation", HELD_OUT, "--workers", "0", "--without-keys", str(self.out / KEYS)]

    def fit_autoencoder(self, name: str, updates: int) -> Path:
        place = self.out / "autoencoders" / name
        every = ["--log-every", "10", "--save-every", "100", "--validate-every", str(max(1, updates))]
        words = [*self.autoencoder_words(name), "--steps", str(updates), *every]
        self.run("autoencoder", "fit", self.plan.images, place, *words)
        return place / "autoencoder.safetensors"

    def encode(self, name: str, updates: dict[str, int]) -> None:
        made = self.design.data[name]
        weights = (
            [] if made.fitted is None else ["--weights", str(self.fit_autoencoder(made.fitted, updates[made.fitted]))]
        )
        self.run("encode", self.plan.images, self.data(name), *made.encode, *weights)

    def extract(self, pictures: Path, out: Path, *words: str) -> None:
        if not out.exists():
            self.run("features", pictures, out, "--features", self.plan.network, *words)

    def train(self, place: Path, model: Model, seed: int, updates: int) -> None:
        """Up to so many updates; nothing where there are more already."""
        before = read_run_if_there(place)
        if before is not None and before.training.updates > updates:
            return
        settings = {**model.settings}
        words = ["--preset", settings.pop("preset"), "--steps", str(updates), "--seed", str(seed), "--threads", "1"]
        words += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        often = str(max(1, min(500, updates // 4)))
        quiet = ["--save-every", often, "--validate-every", "0", "--preview", "none", "--log-every", often]
        self.run("train", self.data(model.data), place, *words, *quiet)

    def place(self, arm: str, seed: int) -> Path:
        return self.out / "arms" / arm.replace(" ", "-").replace("=", "") / f"seed-{seed}"

    def samples(self, arm: str, seed: int, reading: str) -> Path:
        return self.place(arm, seed) / f"samples-{reading}"

    def draw(self, arm: Arm, seed: int, reading: str, *words: str) -> Path:
        """Samples of the last model of an arm; of a stack, of what its first model drew."""
        place, out = self.place(arm.name, seed), self.samples(arm.name, seed, reading)
        common = ["-n", str(self.plan.count), "--seed", str(FIRST_SEED + seed)]
        if len(arm.models) == 1:
            self.run("sample", place / "run-0", out, *common, *words)
            return out
        low = place / f"low-{reading}"
        self.run("sample", place / "run-0", low, *common, *words)
        self.run("sample", place / "run-1", out, *common, "--low-resolution", low)
        return out

    def make(self, arm: Arm, seed: int, reading: str, updates: tuple[int, ...]) -> Result:
        """Train, draw and score, unless the result is there."""

        def draw() -> Path:
            for number, (model, count) in enumerate(zip(arm.models, updates, strict=True)):
                self.train(self.place(arm.name, seed) / f"run-{number}", model, seed, count)
            return self.draw(arm, seed, reading)

        return self.keep_scores(arm.name, seed, reading, updates, draw)

    def keep_scores(
        self, arm: str, seed: int, reading: str, updates: tuple[int, ...], draw: Callable[[], Path]
    ) -> Result:
        """The result that is there, or the scores of what `draw` makes: samples, or a file of features."""

        def score() -> Figures:
            made = draw()
            features = made if made.suffix == ".npz" else made.with_name(f"{made.name}.npz")
            if made != features:
                self.extract(made, features)
            return self.score(features, self.out / "reference.npz")

        return self.keep(arm, seed, reading, updates, score)

    def keep(self, arm: str, seed: int, reading: str, updates: tuple[int, ...], make: Callable[[], Figures]) -> Result:
        """The result that is there, or one made now; as it is read, so that a table is the same either way."""
        name = f"results/{arm.replace(' ', '-').replace('=', '')}-seed-{seed}-{reading}.json"
        folder = Folder(self.out)
        data = folder.read_if_there(name)
        if data is None:
            data = records.dumps(Result("latent-vae-study-result", 1, updates, dict(make())))
            folder.write(name, data)
        return records.parse(Result, data, f"{self.out}/{name}")

    def score(self, features: Path, reference: Path) -> Figures:
        """Figures of stored features against others. LvaeError where a file was damaged."""
        found = read_features(features)
        if found is None:
            raise LvaeError(features, "holds no features", "Remove it, and run the same command again.")
        if str(reference) not in self.reference:
            other = read_features(reference)
            if other is None:
                raise LvaeError(reference, "holds no features", "Remove it, and run the same command again.")
            self.reference[str(reference)] = ReferenceFeatures(str(reference), other.features, None)
        return compute_figures(found.features, str(features), self.reference[str(reference)], Measure(found.network))
