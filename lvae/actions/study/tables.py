"""From a chain to the readings of every table."""

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lvae.actions.study.arms import REFERENCE, Arm
from lvae.actions.study.chain import FIRST_SEED, KEYS, TIME, UPDATES, Chain
from lvae.actions.study.pictures import stack_gaussians
from lvae.actions.study.plan import Budget, StudyPlan, keep_seconds, share_first_stages, share_time
from lvae.actions.study.timing import time_autoencoder, time_model
from lvae.encode.training.config import FitConfig
from lvae.evaluate.features.feature_files import extract
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.pictures.decode import DecodeSettings, decode, load_decoder, write_whole
from lvae.evaluate.samples.draw import SampleOptions, draw, prepare
from lvae.evaluate.scores.score_table import Figures
from lvae.evaluate.studies import paper
from lvae.evaluate.studies.paper import FRECHET, SECONDS
from lvae.evaluate.studies.table import Reading
from lvae.manifests.dataset import Dataset
from lvae.train.devices.open import open_device
from lvae.train.runs.run import read_run

MEANS, VARIANCES = (0.5, 1.0, 1.5), (0.0, 1.5, 3.0)  # of guidance, from which table 3 chooses
CHOOSING = 900  # the first seed of samples that choices are made by
TIMED, STEPS = 16, 50  # pictures of a pass that is timed; passes of the denoiser


def encode_all(chain: Chain, scratch: Path) -> StudyPlan:
    """Autoencoders and datasets, and the features of the pictures set aside."""
    scratch.mkdir(parents=True, exist_ok=True)
    plan, design = chain.plan, chain.design
    chain.encode(REFERENCE, {})
    held_out = Dataset.open(chain.data(REFERENCE), "val").keys
    write_whole(chain.out / KEYS, "".join(f"{json.dumps(key)}\n" for key in sorted(set(held_out))).encode())
    for name in design.autoencoders:
        config = FitConfig(json.loads(design.autoencoders[name]), plan.size, (plan.size, plan.size))
        plan = keep_seconds(chain.out, plan, name, partial(_time_stage, plan.images, config, scratch))
    updates = share_first_stages(plan, design)
    for name in design.data:
        if name != REFERENCE:
            chain.encode(name, updates)
    chain.extract(chain.data(REFERENCE), chain.out / "reference.npz", "--split", "val")
    return plan


def time_arms(chain: Chain, plan: StudyPlan, scratch: Path) -> StudyPlan:
    """Seconds of an update of every model."""
    for arm in chain.design.arms:
        plan = keep_seconds(chain.out, plan, arm.name, partial(_time_arm, chain, arm, scratch))
    return plan


def _time_stage(images: str, config: FitConfig, scratch: Path) -> tuple[float, ...]:
    return (time_autoencoder(images, config, scratch),)


def _time_arm(chain: Chain, arm: Arm, scratch: Path) -> tuple[float, ...]:
    return tuple(time_model(Dataset.open(chain.data(one.data)), one, scratch) for one in arm.models)


def train_arms(chain: Chain, budget: Budget) -> list[Reading]:
    """Every arm and seed: first as many updates as the slowest model makes, then all of its time."""
    readings = {UPDATES: dict[str, list[Figures]](), TIME: dict[str, list[Figures]]()}
    for seed, arm in itertools.product(range(chain.plan.seeds), chain.design.arms):
        for reading, updates in ((UPDATES, (budget.equal,) * len(arm.models)), (TIME, budget.time[arm.name])):
            found = chain.make(arm, seed, reading, updates)
            readings[reading].setdefault(arm.name, []).append(found.figures)
    facts = {name: f"{_listed(updates)} updates" for name, updates in budget.time.items()}
    same = dict.fromkeys(facts, f"{budget.equal} updates")
    seconds = chain.plan.minutes * 60 / (len(facts) * chain.plan.seeds)
    words = (
        f"Every arm and seed trains for {seconds:.0f} s of one thread; the models of a stack for a share of it each."
    )
    return [
        Reading("Equal time", words, readings[TIME], facts),
        Reading(
            "Equal updates",
            "Every model makes as many updates as the slowest one in its time.",
            readings[UPDATES],
            same,
        ),
    ]


def compare_guidance(chain: Chain, budget: Budget) -> tuple[list[Reading], str]:
    """Unguided, guided by the weights that other seeds chose, class Gaussians and reconstructions."""
    (arm,) = chain.design.arms
    updates, seeds = budget.time[arm.name], range(chain.plan.seeds)
    figures: dict[str, list[Figures]] = {paper.UNGUIDED: [], paper.GUIDED: [], paper.GAUSSIANS: []}
    figures[paper.UNGUIDED] = [chain.make(arm, seed, TIME, updates).figures for seed in seeds]
    chosen = _choose_guidance(chain)
    for seed in seeds:
        run = chain.place(arm.name, seed) / "run-0"
        words = _guide(run, *chosen[seed])
        draw_guided = partial(_sample, chain, run, seed, paper.GUIDED, words)
        figures[paper.GUIDED].append(chain.keep_scores(paper.GUIDED, seed, TIME, updates, draw_guided).figures)
        gaussians = partial(_draw_gaussians, chain, seed)
        figures[paper.GAUSSIANS].append(chain.keep_scores(paper.GAUSSIANS, seed, TIME, (), gaussians).figures)
    held_out = chain.keep_scores(paper.RECONSTRUCTIONS, 0, TIME, (), partial(_reconstruct, chain))
    figures[paper.RECONSTRUCTIONS] = [held_out.figures]
    real = chain.keep_scores(paper.REAL, 0, TIME, (), partial(_extract_training_pictures, chain))
    figures[paper.REAL] = [real.figures]
    facts = {name: f"{_listed(updates)} updates" for name in (paper.UNGUIDED, paper.GUIDED)}
    weights = "; ".join(
        f"seed {n}: means by {mean:g} but at 1x1, variances by {var:g}" for n, (mean, var) in enumerate(chosen)
    )
    others = "the other seeds' models" if len(chosen) > 1 else "the same model, for want of others"
    said = f"Weights of guidance, chosen on samples of {others}, of other noise, beside other pictures: {weights}."
    return [Reading("Equal time", "The same model, drawn from in two ways.", figures, facts)], said


def _sample(chain: Chain, run: Path, seed: int, name: str, words: Sequence[str], first: int = FIRST_SEED) -> Path:
    out = run.parent / f"samples-{name}"
    chain.run("sample", run, out, "-n", str(chain.plan.count), "--seed", str(first + seed), *words)
    return out


def _guide(run: Path, mean: float, variance: float) -> tuple[str, ...]:
    """Words of `lvae sample`. As in the paper, means are not guided at the lowest resolution, 1x1."""
    above = len(read_run(run).model.groups) - 1
    return "--guidance-mean", ",".join(["0", *[f"{mean:g}"] * above]), "--guidance-variance", f"{variance:g}"


def _choose_guidance(chain: Chain) -> list[tuple[float, float]]:
    """For every seed the weights that bring samples of the other seeds' models nearest to pictures of the train split.

    By the mean Fréchet distance. A single seed's own model chooses, by samples of other noise than those reported.
    """
    (arm,) = chain.design.arms
    reference, seeds = _extract_training_pictures(chain), range(chain.plan.seeds)
    found: dict[tuple[float, float], list[float]] = {}
    for mean, variance in itertools.product(MEANS, VARIANCES):
        for seed in seeds:
            name, run = f"choice-{mean:g}-{variance:g}", chain.place(arm.name, seed) / "run-0"
            features = run.parent / f"samples-{name}.npz"
            if not features.exists():
                chain.extract(_sample(chain, run, seed, name, _guide(run, mean, variance), CHOOSING), features)
            distance = chain.score(features, reference)[FRECHET] or 0.0
            found.setdefault((mean, variance), []).append(distance)
    return [choose_for(seed, found) for seed in seeds]


def choose_for(seed: int, distances: Mapping[tuple[float, float], Sequence[float]]) -> tuple[float, float]:
    """The weights with the smallest mean distance over all seeds but this one. distances: of every seed, by weights."""
    others = [one for one in range(len(next(iter(distances.values())))) if one != seed] or [seed]
    return min(distances, key=lambda weights: float(np.mean([distances[weights][one] for one in others])))


def _extract_training_pictures(chain: Chain) -> Path:
    """Features of as many pictures of the training split as are set aside."""
    out = chain.out / "reference-of-choices.npz"
    held_out = len(Dataset.open(chain.data(REFERENCE), "val"))
    chain.extract(chain.data(REFERENCE), out, "--num", str(held_out), "--seed", str(CHOOSING))
    return out


def _draw_gaussians(chain: Chain, seed: int) -> Path:
    out = chain.out / "arms" / f"gaussians-{seed}.npz"
    extract(out, stack_gaussians(chain, seed), open_network(Path(chain.plan.network), "adm"))
    return out


def _reconstruct(chain: Chain) -> Path:
    out = chain.out / "arms" / "reconstructions.npz"
    chain.extract(chain.data("latents"), out, "--split", "val")
    return out


def time_sampling(chain: Chain) -> list[Reading]:
    """Seconds for 1,000 pictures: one pass, as many passes as a denoiser takes steps, and decoding."""
    (arm,) = chain.design.arms
    run = chain.place(arm.name, 0) / "run-0"
    chain.train(run, arm.models[0], 0, 2)
    found: dict[str, list[Figures]] = {}
    for seed in range(chain.plan.seeds):
        kept = chain.keep("seconds", seed, TIME, (), partial(_time_once, chain, run, seed))
        for name, value in kept.figures.items():
            found.setdefault(name, []).append({SECONDS: value})
    return [Reading("Seconds for 1,000 pictures", "One thread on a CPU; other work does not count.", found, {})]


def _time_once(chain: Chain, run: Path, seed: int) -> dict[str, float]:
    device = open_device("auto", "float32", False, 1, "sampling")
    clock = time.process_time if device.kind == "cpu" else time.perf_counter
    try:
        prepared = prepare(run, SampleOptions(count=TIMED, seed=seed))
        device.place(prepared.model)
        latents = Dataset.open(chain.data("latents"))
        network, indices = load_decoder(latents), range(TIMED)
        raw = latents.denormalize(draw(prepared, indices, device, TIMED))

        def seconds(work: Callable[[], object], times: int) -> float:
            start = clock()
            for _ in range(times):
                work()
            return (clock() - start) / TIMED * 1000

        one = seconds(lambda: draw(prepared, indices, device, TIMED), 10) / 10
        many = seconds(lambda: draw(prepared, indices, device, TIMED), STEPS)
        decoding = seconds(lambda: decode(network, raw, DecodeSettings()), 5) / 5
    finally:
        device.close()
    return {
        paper.ONE_PASS: one,
        paper.FIFTY_STEPS: many,
        paper.DECODING: decoding,
        paper.ONE_PASS_DECODED: one + decoding,
        paper.FIFTY_STEPS_DECODED: many + decoding,
    }


def _listed(updates: Sequence[int]) -> str:
    return " + ".join(map(str, updates))


def read_tables(chain: Chain, table: str, scratch: Path) -> tuple[list[Reading], str]:
    """All readings of a table, and what was chosen on other seeds."""
    plan = encode_all(chain, scratch)
    if table == "table4":
        return time_sampling(chain), ""
    budget = share_time(time_arms(chain, plan, scratch), chain.design)
    return compare_guidance(chain, budget) if table == "table3" else (train_arms(chain, budget), "")
