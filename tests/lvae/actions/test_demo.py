"""What a demo plans."""

from pathlib import Path

import pytest

from lvae.actions.demo import UPDATES_A_MINUTE, plan_training
from lvae.actions.study.arms import Model
from tests.evaluate import run_examples

QUICK = {"preset": "tiny", "width": "8", "encoder_width": "8", "groups": "1,1", "batch": "1"}
SLOW = {"preset": "tiny", "width": "64", "groups": "8,8", "batch": "64"}


def test_a_machine_too_slow_for_its_minutes_trains_for_less_and_keeps_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, latents = tmp_path / "demo", run_examples.dataset(tmp_path / "latents")
    out.mkdir()
    plan = plan_training(out, latents, Model("latents", SLOW), 2)
    assert 1 <= plan.updates < 2 * UPDATES_A_MINUTE
    assert f"This machine makes {plan.updates:,} updates in the 0:54" in capsys.readouterr().out
    assert plan_training(out, latents, Model("latents", QUICK), 2) == plan


def test_a_machine_that_is_quick_enough_trains_for_as_many_updates_as_any(tmp_path: Path) -> None:
    out, latents = tmp_path / "demo", run_examples.dataset(tmp_path / "latents")
    out.mkdir()
    assert plan_training(out, latents, Model("latents", QUICK), 8).updates == 8 * UPDATES_A_MINUTE
