"""OUT/study.json: what decides a study, and how many updates every model makes in its time, measured once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lvae.actions.study.arms import Arm, Design
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import first_difference
from lvae.manifests.storage.folder import Folder

PLAN = "study.json"
FEWEST = 2


@dataclass(frozen=True)
class StudyPlan:
    """minutes: of training, of all models together. network_sha256: of the features. count: pictures of an arm, seed.

    autoencoder, weights: of the latents that no arm fits an autoencoder for, as 'lvae encode' takes them.
    seconds: of one update, of every model by arm, and of every autoencoder by name; empty until they were measured.
    """

    format: Literal["latent-vae-study"]
    version: Literal[1]
    table: str
    images: str
    minutes: float
    size: int
    seeds: int
    count: int
    network: str
    network_sha256: str
    seconds: dict[str, tuple[float, ...]]
    autoencoder: str = records.later("default")
    weights: str | None = records.later(None)


@dataclass(frozen=True)
class Budget:
    """Updates of every model by arm in equal time; and how many the slowest one makes."""

    time: Mapping[str, tuple[int, ...]]
    equal: int


def begin(out: Path, asked: StudyPlan) -> StudyPlan:
    """The plan that is there, or this one. LvaeError where OUT holds another study or something else."""
    folder = Folder(out)
    data = folder.read_if_there(PLAN)
    if data is None:
        if out.exists() and any(out.iterdir()):
            raise LvaeError(out, "holds something else than a study", "Name another folder.")
        folder.write(PLAN, records.dumps(asked))
        return asked
    before = records.parse(StudyPlan, data, f"{out}/{PLAN}")
    difference = first_difference(replace(before, seconds={}), asked)
    if difference:
        name, old, new = difference
        problem = f"holds a study of other settings: {name} was {old!r:.80} and is {new!r:.80} now"
        raise LvaeError(out, problem, "Name another folder, or give the old settings.")
    return before


def keep_seconds(out: Path, plan: StudyPlan, name: str, measure: Callable[[], tuple[float, ...]]) -> StudyPlan:
    """The plan with the seconds of an update under this name, measured where nobody did before."""
    if name in plan.seconds:
        return plan
    plan = replace(plan, seconds={**plan.seconds, name: measure()})
    Folder(out).write(PLAN, records.dumps(plan))
    return plan


def share_first_stages(plan: StudyPlan, design: Design) -> dict[str, int]:
    """Updates of every autoencoder, in its share of its arm's time over all seeds."""
    found = {}
    for arm in design.arms:
        name = design.data[arm.models[0].data].fitted
        if name is not None:
            seconds = plan.minutes * 60 / len(design.arms) * arm.first_stage
            found[name] = max(FEWEST, int(seconds / plan.seconds[name][0]))
    return found


def share_time(plan: StudyPlan, design: Design) -> Budget:
    """Every arm and seed has the same time; the models of a stack, and an autoencoder, share theirs."""
    own = plan.minutes * 60 / (len(design.arms) * plan.seeds)
    updates = {arm.name: _updates(arm, own * (1 - arm.first_stage), plan.seconds[arm.name]) for arm in design.arms}
    return Budget(updates, min(min(each) for each in updates.values()))


def _updates(arm: Arm, seconds: float, per_update: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(max(FEWEST, int(seconds / len(arm.models) / each)) for each in per_update)
