"""Models of the package: a run by name, wherever a run stands."""

import json
from pathlib import Path

import numpy as np
import pytest

from lvae import Run
from lvae.manifests.errors import LvaeError
from lvae.train.packaged import make as making
from lvae.train.runs import packaged
from lvae.train.runs.run import find_run
from tests.conftest import lvae
from tests.evaluate import run_examples


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with one model in it."""
    data = run_examples.dataset(tmp_path / "data")
    run = run_examples.run(tmp_path / "run", data)
    lvae("residuals", run, data.folder.root, "--device", "cpu")
    drawing = {"format": "latent-vae-drawing", "version": 1, "output_temperature": 0.5, "output_noise": "correlated"}
    (run / "drawing.json").write_text(json.dumps(drawing))
    for module in (packaged, making):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "package")
    making.make(run, "toys", autoencoder=False)
    monkeypatch.chdir(tmp_path)
    return "toys"


def test_a_model_is_sampled_by_its_name(named: str, tmp_path: Path) -> None:
    assert packaged.packaged_names() == [named]
    plain = ("-n", "4", "--device", "cpu", "--output-temperature", "0")
    lvae("sample", named, "samples", *plain)
    lvae("sample", "run", "trained", *plain)
    ours, trained = (run_examples.latents(tmp_path / name) for name in ("samples", "trained"))
    np.testing.assert_allclose(ours, trained, atol=0.02)  # float16 weights
    lvae("sample", named, "as-it-says", "-n", "4", "--device", "cpu")
    correlated = ("--output-temperature", "0.5", "--output-noise", "correlated")
    lvae("sample", named, "correlated", "-n", "4", "--device", "cpu", *correlated)
    lvae("sample", "run", "trained-correlated", "-n", "4", "--device", "cpu", *correlated)
    ours, trained = (run_examples.latents(tmp_path / name) for name in ("correlated", "trained-correlated"))
    np.testing.assert_allclose(ours, trained, rtol=0.01, atol=0.02)  # what was measured of the run goes with it
    np.testing.assert_array_equal(run_examples.latents(tmp_path / "as-it-says"), ours)
    lvae("outpaint", named, "data", "wider.png", "--indices", "0", "--device", "cpu")
    assert Run.open(named).sample(2).pixels.shape[0] == 2
    assert lvae("inspect", named).stdout.startswith(f"{named}: ")


def test_what_cannot_be_done_with_it_is_refused_by_its_name(named: str) -> None:
    for words, said in (
        (("report", named), "is part of the package"),
        (("residuals", named, "data"), "is part of the package"),
        (("plot", named), "is part of the package"),
        (("sample", named, "samples", "--step", "8"), "has no checkpoint of step 8"),
        (("sample", named, "samples", "--ema", "0.5"), "keeps no average of decay 0.5"),
    ):
        refused = lvae(*words, check=1)
        assert refused.stderr.startswith(f"lvae: {named}: {said}"), refused.stderr


def test_a_folder_of_the_name_goes_first_and_what_is_not_there_is_said(named: str, tmp_path: Path) -> None:
    (tmp_path / named).mkdir()
    with pytest.raises(LvaeError, match="is not a run"):
        find_run(named)
    assert "no such file or folder" in lvae("sample", "nothing", "samples", check=1).stderr


def test_the_models_of_the_package_draw_pictures_and_have_a_card() -> None:
    for name in packaged.packaged_names():
        assert (packaged.FOLDER / name / "README.md").stat().st_size > 500
        assert sum(path.stat().st_size for path in (packaged.FOLDER / name).rglob("*") if path.is_file()) < 10 << 20
        pixels = Run.open(name).sample(2, output_temperature=0.3).pixels
        assert pixels.shape[0] == 2 and pixels.std() > 5
    assert "drawn-scenes" in packaged.packaged_names()
