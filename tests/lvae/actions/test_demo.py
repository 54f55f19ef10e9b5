"""What a demo plans."""

import json
from pathlib import Path

import pytest

from lvae.actions.demo import UPDATES_A_MINUTE, plan_training, updates_within
from lvae.actions.study.arms import Model
from tests.conftest import lvae
from tests.evaluate import run_examples

QUICK = {"preset": "tiny", "width": "8", "encoder_width": "8", "groups": "1,1", "batch": "1"}
SLOW = {"preset": "tiny", "width": "64", "groups": "8,8", "batch": "64"}


def test_a_demo_trains_for_as_many_updates_as_it_planned_at_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, latents = tmp_path / "demo", run_examples.dataset(tmp_path / "latents")
    out.mkdir()
    plan = plan_training(out, latents, Model("latents", SLOW), 2)
    assert 1 <= plan.updates <= 2 * UPDATES_A_MINUTE
    assert f"{plan.updates:,} updates, as many as fit into 1:08 here" in capsys.readouterr().out
    assert plan_training(out, latents, Model("latents", QUICK), 2) == plan
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "updates"), [(1e-5, 8 * UPDATES_A_MINUTE), (0.5, 547), (1000.0, 1)])
def test_slow_machines_make_fewer_updates_and_quick_ones_no_more_than_others(seconds: float, updates: int) -> None:
    assert updates_within(8, seconds) == updates


def test_a_demo_of_other_minutes_says_which_it_has(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    plan = {"format": "latent-vae-demo", "version": 1, "minutes": 10.0, "updates": 4000}
    (tmp_path / "demo" / "demo.json").write_text(json.dumps(plan))
    done = lvae("demo", "demo", "--minutes", "0.1", check=1, cwd=tmp_path)
    said = "--minutes 0.1: demo was begun with --minutes 10. Give that, or another folder."
    assert said in done.stderr and done.stdout == ""
