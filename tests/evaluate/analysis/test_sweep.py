"""`lvae sweep`: one noise under many settings, scored, and never anything twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lvae.evaluate.analysis.sweep import read_sweep
from lvae.evaluate.analysis.sweep_figures import chart_scores
from lvae.evaluate.analysis.sweep_settings import Setting, combine_settings
from lvae.manifests.dataset import Dataset
from tests.evaluate import run_examples
from tests.evaluate.run_examples import latents, lvae, model_config


class Colours(torch.nn.Module):
    """Twelve features: the mean colours of the quarters."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, 2).flatten(1)


SMALL = ("-n", "24", "--pictures", "4", "--device", "cpu")


def test_every_setting_is_sampled_from_the_same_noise(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    lvae("sweep", run, out, *SMALL, "--means", "1.5", "--variances", "0,3", "--temperatures", "0.5", "--seed", "4")
    for name, options in (
        ("unguided", ()),
        ("mean-1.5-variance-3", ("--guidance-mean", "0,1.5", "--guidance-variance", "3")),
        ("temperature-0.5", ("--temperature", "0.5")),
    ):
        lvae("sample", run, tmp_path / name, "-n", "24", "--seed", "4", "--device", "cpu", *options)
        assert np.array_equal(latents(tmp_path / name), latents(out / "samples" / f"{name}-seed-4"))
    record = read_sweep(out)
    assert record is not None
    assert [one.name for one in record.settings] == [
        "unguided",
        "mean-1.5-variance-0",
        "mean-1.5-variance-3",
        "temperature-0.5",
    ]
    with Image.open(out / "sweep.png") as picture:
        assert picture.width > 4 * 64 and picture.height > 4 * 64
    assert not (out / "scores.png").exists()


def near(value: float | None, share: float) -> Any:
    return None if value is None else pytest.approx(value, rel=share)


def test_scores_are_those_of_lvae_score(run: Path, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    options = ("--means", "0", "--variances", "3", "--temperatures", "", "--reference", data.folder, "--repeats", "2")
    done = lvae("sweep", run, out, *SMALL, *options)
    assert "means 0, variances 3" in done.stdout and "real against real" in done.stdout and "±" in done.stdout
    record = read_sweep(out)
    assert record is not None and record.against is not None
    assert [(one.setting.name, one.seed) for one in record.results] == [
        ("unguided", 0),
        ("unguided", 1),
        ("mean-0-variance-3", 0),
        ("mean-0-variance-3", 1),
    ]
    for result in record.results:
        samples = out / "samples" / f"{result.setting.name}-seed-{result.seed}"
        asked = ("--samples", samples, "--reference", data.folder, "--json")
        scored = json.loads(lvae("score", *asked).stdout)
        assert result.scores is not None
        assert result.scores == {name: near(scored[name], 1e-9) for name in result.scores}
        for name in record.metrics:
            real = record.real_spread(name)
            assert real == pytest.approx((scored[f"real_{name}"], scored[f"real_{name}_std"]), rel=1e-9)
    spread = record.spread(Setting(0.0, 3.0, 1.0), "latent_precision")
    assert spread is not None and 0 <= spread.mean <= 1
    assert record.against.count == len(data)
    assert "Fréchet distances of so few" in done.stderr or "too few for a Fréchet distance" in done.stderr
    charts = chart_scores(record)
    assert len(charts) == 3 and all("real against real: " in chart.summary for chart in charts)
    assert (out / "scores.png").exists()


def test_features_of_pictures_score_as_lvae_score_does(run: Path, data: Dataset, tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning):  # torch prefers torch.export, whose files it unpickles
        torch.jit.script(Colours()).save(str(tmp_path / "colours.pt"))
    options = ("--reference", data.folder, "--features", tmp_path / "colours.pt")
    grid = ("--means", "0", "--variances", "3", "--temperatures", "")
    done = lvae("sweep", run, tmp_path / "sweep", *SMALL, *grid, *options)
    assert "Fréchet distance of features" in done.stdout
    record = read_sweep(tmp_path / "sweep")
    assert record is not None and record.against is not None and record.against.count == len(data)
    result = record.results[1]
    asked = ("--samples", tmp_path / "sweep/samples/mean-0-variance-3-seed-0", *options, "--device", "cpu", "--json")
    scored = json.loads(lvae("score", *asked).stdout)
    assert result.scores is not None and len(record.metrics) == 4
    assert result.scores == {name: near(scored[name], 1e-6) for name in result.scores}


def test_what_is_there_is_neither_drawn_nor_scored_again(run: Path, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    grid = ("--means", "1", "--variances", "0", "--temperatures", "")
    lvae("sweep", run, out, *SMALL, *grid)
    written = {path: path.stat().st_mtime_ns for path in (out / "samples").rglob("*") if path.is_file()}
    lvae("sweep", run, out, *SMALL, *grid, "--reference", data.folder)  # scores come later
    before = (out / "sweep.json").read_bytes()
    first = read_sweep(out)
    assert first is not None and all(result.scores is not None for result in first.results)
    pictures = (out / "sweep.png").stat().st_mtime_ns
    lvae("sweep", run, out, *SMALL, *grid, "--reference", data.folder)
    lvae("sweep", run, out, *SMALL, *grid)  # and need not be asked for again
    assert (out / "sweep.json").read_bytes() == before
    assert (out / "sweep.png").stat().st_mtime_ns == pictures
    lvae("sweep", run, out, *SMALL, "--means", "1,2", *grid[2:], "--reference", data.folder)
    record = read_sweep(out)
    assert record is not None and len(record.results) == 3
    assert record.results[:2] == first.results
    assert written == {path: path.stat().st_mtime_ns for path in written}
    done = lvae("sweep", run, out, "-n", "30", "--pictures", "4", "--device", "cpu", check=1)
    assert "count was 24 and is 30 now" in done.stderr


def test_an_interrupted_sweep_goes_on(run: Path, data: Dataset, tmp_path: Path) -> None:
    grid = ("--means", "1", "--variances", "2", "--temperatures", "0.8", "--reference", data.folder)
    lvae("sweep", run, tmp_path / "whole", *SMALL, *grid)
    whole = json.loads((tmp_path / "whole/sweep.json").read_text())
    lvae("sweep", run, tmp_path / "cut", *SMALL, *grid)
    cut = tmp_path / "cut/sweep.json"
    cut.write_text(json.dumps({**whole, "results": whole["results"][:1]}))
    lvae("sweep", run, tmp_path / "cut", *SMALL, *grid)
    assert cut.read_bytes() == (tmp_path / "whole/sweep.json").read_bytes()


def test_means_are_not_guided_at_one_by_one_unless_asked_for(tmp_path: Path, data: Dataset) -> None:
    config = model_config(multipliers=(1, 1), ffn_ratios=(1, 1), groups=(2, 1))
    run = run_examples.run(tmp_path / "run", data, config)
    grid = ("--means", "1", "--variances", "2", "--temperatures", "")
    lvae("sweep", run, tmp_path / "a", *SMALL, *grid)
    lvae("sweep", run, tmp_path / "b", *SMALL, *grid, "--mean-at-1x1")
    spared, all_of_them = read_sweep(tmp_path / "a"), read_sweep(tmp_path / "b")
    assert spared is not None and all_of_them is not None
    assert config.resolutions == (4, 1)
    assert spared.results[1].guidance_mean == (0.0, 1.0)
    assert all_of_them.results[1].guidance_mean == (1.0, 1.0)
    assert spared.results[1].guidance_variance == (2.0, 2.0)


def test_only_the_temperature_of_an_unconditional_model_is_swept(tmp_path: Path, data: Dataset) -> None:
    run = run_examples.run(tmp_path / "run", data, model_config(classes=0))
    lvae("sweep", run, tmp_path / "out", *SMALL, "--temperatures", "0.5", "--output-temperatures", "0.3")
    record = read_sweep(tmp_path / "out")
    assert record is not None and [one.name for one in record.settings] == ["unguided", "temperature-0.5", "output-0.3"]
    done = lvae("sweep", run, tmp_path / "x", *SMALL, "--means", "1", check=1)
    assert "its temperature can be swept" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--means", "much"), "write numbers like"),
        (("--variances", "inf"), "must be finite"),
        (("--temperatures", "0.5,-1"), "must not be negative"),
        (("-n", "2"), "pictures of 2 samples"),
        (("--features", "f.pth"), "Give --reference"),
        (("--reference", "nowhere"), "no such file"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    done = lvae("sweep", run, tmp_path / "s", "--device", "cpu", *options, check=1)
    assert sentence in done.stderr.splitlines()[-1]
    assert not (tmp_path / "s").exists()


def test_a_folder_of_something_else_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "not a place for" in lvae("sweep", run, tmp_path, *SMALL, check=1).stderr


def test_every_setting_stands_once() -> None:
    found = combine_settings(model_config(), (0.0, 1.0), (0.0, 1.0), (1.0, 0.5), (0.0, 0.3))
    assert found == (
        Setting(0.0, 0.0, 1.0),
        Setting(0.0, 1.0, 1.0),
        Setting(1.0, 0.0, 1.0),
        Setting(1.0, 1.0, 1.0),
        Setting(0.0, 0.0, 0.5),
        Setting(0.0, 0.0, 1.0, 0.3),
    )
