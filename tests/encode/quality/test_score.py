"""Scoring a first stage: against values computed otherwise, and what the command says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from lvae.cli import main
from lvae.encode.autoencoder import build
from lvae.encode.catalogue.architectures import KNOWN
from lvae.encode.catalogue.published import DEFAULT, PUBLISHED
from lvae.encode.networks.base import save_safetensors
from lvae.encode.quality.score import score
from lvae.encode.scenes.make import write_scenes
from lvae.encode.sources.subset import choose, held_out
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)


def said(*arguments: str | Path) -> str:
    """What `lvae autoencoder` prints."""
    done = CliRunner().invoke(main, ["autoencoder", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_scenes(folder, 24, 32, 0)
    return folder


def test_half_size_pixels_score_as_computed_by_hand(pictures: Path) -> None:
    """Averaging 2 x 2 pixels is linear, so the best linear code of as many numbers does at least as well."""
    network = build("pixels-f2")
    result, pairs = score(("pixels-f2", network), choose(str(pictures), None, None), 32)
    paths = sorted(pictures.rglob("*.png"))
    originals = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert {pair[0].tobytes() for pair in pairs} == {one.tobytes() for one in originals}
    errors = [((a.astype(float) - b) ** 2).mean() for a, b in pairs]
    assert result.psnr_db == pytest.approx(float(np.mean([10 * np.log10(255**2 / e) for e in errors])))
    assert result.l1 == pytest.approx(float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs])))
    assert result.linear_psnr_db is not None
    assert result.psnr_db is not None
    assert result.linear_psnr_db >= result.psnr_db
    assert 0 < result.detail_kept < 1
    latents = network.encode(torch.from_numpy(originals).permute(0, 3, 1, 2).float() / 127.5 - 1)
    channel = latents[:, 1].double()
    standard = (channel - channel.mean()) / channel.std(correction=0)
    assert result.channels[1].mean == pytest.approx(float(channel.mean()), abs=1e-5)
    assert result.channels[1].std == pytest.approx(float(channel.std(correction=0)), rel=1e-5)
    assert result.channels[1].excess_kurtosis == pytest.approx(float((standard**4).mean()) - 3, abs=1e-3)


def test_a_dead_channel_is_called_dead(pictures: Path, tmp_path: Path) -> None:
    """One channel of the encoder's last layer is set to nothing; the decoder does not miss it."""
    network = build({"kind": "tiny", "latent_channels": 3, "width": 8, "blocks": 1, "multipliers": [1, 2]})
    last = network.state_dict()["encoder.layers.4.weight"]
    last[1] = 0
    (tmp_path / "weights.safetensors").write_bytes(save_safetensors(network))
    text = said("score", tmp_path / "weights.safetensors", pictures, "--size", "32")
    rows = [line for line in text.splitlines() if " dB" in line and line.split()[0] in ("0", "1", "2")]
    assert [line.endswith("DEAD") for line in rows] == [False, True, False]


def test_only_what_is_held_out_is_scored_and_the_linear_code_is_made_from_the_rest(pictures: Path) -> None:
    chosen = choose(str(pictures), None, None)
    result, _ = score(("pixels-f4", build("pixels-f4")), chosen, 32, share=0.4)
    assert result.images == sum(held_out(row.key, 0.4) for row in chosen.rows) < 24
    assert result.linear_from == "the pictures not held out"
    with pytest.raises(LvaeError, match="no picture is held out at that share"):
        score(("pixels-f4", build("pixels-f4")), chosen, 32, share=0.0)


def test_the_command_prints_json_and_draws_a_grid(pictures: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    answer = json.loads(said("score", "pixels-f4", pictures, "--size", "32", "--grid", grid, "--json"))
    assert {"psnr_db", "ssim", "l1", "linear_psnr_db", "detail_kept", "channels"} <= set(answer)
    assert answer["images"] == 24
    with Image.open(grid) as image:
        assert image.width > 400


def test_pictures_that_cannot_be_opened_are_counted(tmp_path: Path) -> None:
    write_scenes(tmp_path / "source", 16, 16, 0)
    (tmp_path / "source" / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(40))
    result, _ = score(("pixels", build("pixels")), choose(str(tmp_path / "source"), None, None), 16)
    assert result.images == 16
    assert sum(result.left_out.values()) == 1
    assert result.psnr_db is None


def test_sizes_that_do_not_fit_are_refused(pictures: Path) -> None:
    with pytest.raises(LvaeError, match="--size 30: pixels-f4 needs a multiple of its downsampling factor"):
        score(("pixels-f4", build("pixels-f4")), choose(str(pictures), None, None), 30)


def test_every_known_first_stage_is_listed() -> None:
    listed = {entry["name"]: entry for entry in json.loads(said("list", "--json"))}
    assert set(listed) == set(KNOWN) | set(PUBLISHED)
    for name, entry in listed.items():
        assert entry["here"]
        assert entry["source"]
        assert entry["licence"] or entry["kind"] == "pixels", name
    assert listed[DEFAULT]["here"] == "shipped"
    assert listed["kl-f8"]["parameters"] == 83653863  # facts: of the published file
    assert (listed["sd-vae-ft-mse"]["factor"], listed["sd-vae-ft-mse"]["channels"]) == (8, 4)


def test_the_table_shows_every_name() -> None:
    text = said("list")
    for name in set(KNOWN) | set(PUBLISHED):
        assert f"{name} " in text
