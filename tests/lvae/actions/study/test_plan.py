"""What a study trains, and how time is shared between its arms."""

from pathlib import Path

import pytest

from lvae.actions.study.arms import UPSAMPLED, design
from lvae.actions.study.plan import StudyPlan, begin, keep_seconds, share_first_stages, share_time
from lvae.actions.study.tables import choose_for
from lvae.evaluate.studies.paper import AUTOENCODER_STACK, LATENT, PIXEL, STACK, TABLES
from lvae.manifests.errors import LvaeError
from lvae.train.config import check_together
from lvae.train.presets import preset
from lvae.train.runs.settings import apply_settings


def plan(**changes: object) -> StudyPlan:
    settings = {"table": "table1", "images": "photos", "minutes": 6.0, "size": 64, "seeds": 2, "count": 100}
    settings |= {"network": "efficientnet-lite0", "network_sha256": "0" * 64, "seconds": {}, **changes}
    return StudyPlan("latent-vae-study", 1, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("table", [*TABLES])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_model_of_every_table_can_be_built(table: str, size: int) -> None:
    asked = design(table, size)
    shapes = {"pixels": (3, size), "reduced": (3, size // 8), UPSAMPLED: (3, size // 8), "latents": (4, size // 4)}
    shapes |= {name: (4, size // int(name[1:])) for name in asked.autoencoders if name != UPSAMPLED}
    for arm in asked.arms:
        for model in arm.models:
            settings = {name: "12" if value == "all" else value for name, value in model.settings.items()}
            channels, side = shapes[model.data]
            chosen = preset(settings.pop("preset"), (channels, side, side))
            check_together(*apply_settings(chosen.model, chosen.training, settings))


@pytest.mark.parametrize("table", ["table1", "ablations"])
def test_latents_of_another_autoencoder_have_models_of_their_size(table: str) -> None:
    f8 = '{"kind": "tiny", "latent_channels": 6, "width": 16, "blocks": 1, "multipliers": [1, 1], "patch": 4}'
    asked = design(table, 64, f8, "f8.safetensors")
    assert asked.data["latents"].encode[-4:] == ("--autoencoder", f8, "--weights", "f8.safetensors")
    for arm in asked.arms:
        for model in (one for one in arm.models if one.data == "latents"):
            settings = {name: "12" if value == "all" else value for name, value in model.settings.items()}
            chosen = preset(settings.pop("preset"), (6, 8, 8))
            check_together(*apply_settings(chosen.model, chosen.training, settings))


def test_arms_and_seeds_have_equal_time_and_a_stack_shares_its_own() -> None:
    seconds = {LATENT: (0.1,), STACK: (0.1, 0.5), AUTOENCODER_STACK: (0.1,), PIXEL: (1.0,), UPSAMPLED: (0.25,)}
    asked, whole = design("table1", 64), plan(seconds=seconds, minutes=8.0)
    budget = share_time(whole, asked)
    assert budget.time == {LATENT: (600,), STACK: (300, 60), AUTOENCODER_STACK: (300,), PIXEL: (60,)}
    assert budget.equal == 60
    assert share_first_stages(whole, asked) == {UPSAMPLED: 240}  # as long as the other stack's two upsamplers


def test_guidance_of_a_seed_is_chosen_by_the_others() -> None:
    distances = {(0.5, 0.0): [1.0, 9.0, 9.0], (1.0, 0.0): [5.0, 5.0, 2.0], (1.5, 3.0): [8.0, 1.0, 8.0]}
    assert [choose_for(seed, distances) for seed in range(3)] == [(1.0, 0.0), (1.0, 0.0), (1.5, 3.0)]
    assert choose_for(0, {(0.5, 0.0): [2.0], (1.0, 0.0): [1.0]}) == (1.0, 0.0)


def test_a_study_keeps_what_it_measured_and_refuses_other_settings(tmp_path: Path) -> None:
    measured = keep_seconds(tmp_path / "study", begin(tmp_path / "study", plan()), LATENT, lambda: (0.5,))
    assert begin(tmp_path / "study", plan()) == measured
    assert keep_seconds(tmp_path / "study", measured, LATENT, lambda: (9.0,)) == measured
    with pytest.raises(LvaeError, match=r"minutes was 6\.0 and is 7\.0 now"):
        begin(tmp_path / "study", plan(minutes=7.0))
    with pytest.raises(LvaeError, match=r"weights was None and is 'other\.safetensors' now"):
        begin(tmp_path / "study", plan(weights="other.safetensors"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(LvaeError, match="something else"):
        begin(tmp_path / "other", plan())
