"""Training a first stage: it learns, it goes on bit for bit after being killed, and bad input gets one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lvae.encode.autoencoder import load, load_file
from lvae.encode.scenes.make import write_scenes
from lvae.encode.training.config import FitConfig
from lvae.encode.training.fit import FitOptions, Fitted, Watcher, fit
from lvae.manifests.errors import LvaeError
from lvae.train.runs.checkpoints import Checkpoints

torch.set_num_threads(1)

TINY: dict[str, Any] = {
    "kind": "tiny",
    "latent_channels": 3,
    "width": 8,
    "blocks": 1,
    "multipliers": [1, 2],
    "patch": 2,
}
KL: dict[str, Any] = {
    "kind": "kl",
    "latent_channels": 3,
    "width": 8,
    "blocks": 1,
    "multipliers": [1, 2],
    "middle_attention": False,
}
VQ = KL | {"kind": "vq", "codes": 64}
UPSAMPLER: dict[str, Any] = {"kind": "upsampler", "width": 8, "blocks": 1, "multipliers": [1, 2], "patch": 2}
SMALL: dict[str, Any] = {"size": 16, "shorter_side": (16, 32), "batch": 4, "validation": 0.2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_scenes(folder, 40, 32, 0)
    return folder


def watcher(said: list[str]) -> Watcher:
    def draw(pairs: Sequence[Any], title: str) -> bytes:
        return f"{len(pairs)} {title}".encode()

    return Watcher(lambda done, total: None, lambda done, total: None, said.append, draw)


def run(pictures: Path, out: Path, config: FitConfig, every: int = 10, start: str | None = None) -> Fitted:
    options = FitOptions(every, every, 1000, "cpu", 0, start=start)
    fitted = fit(str(pictures), out, config, watcher([]), options)
    assert fitted is not None
    return fitted


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in found]


@pytest.mark.parametrize("architecture", [TINY, KL, VQ], ids=["tiny", "kl", "vq"])
def test_every_kind_of_network_learns(pictures: Path, tmp_path: Path, architecture: dict[str, Any]) -> None:
    config = FitConfig(architecture, steps=100, **SMALL | {"learning_rate": 5e-3, "warmup": 10})
    fitted = run(pictures, tmp_path, config)
    errors = [line["l1"] for line in lines(tmp_path) if "l1" in line]
    assert errors[-1] < 0.75 * errors[0]
    network = load_file(tmp_path / "autoencoder.safetensors")
    assert network.fingerprint == fitted.fingerprint
    assert network.architecture["kind"] == architecture["kind"]
    assert json.loads((tmp_path / "architecture.json").read_text()) == architecture


def test_an_upsampler_learns_what_enlarging_alone_does_not_give(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path, FitConfig(UPSAMPLER, steps=80, **SMALL | {"learning_rate": 5e-3, "warmup": 10}))
    network, enlarging = load_file(tmp_path / "autoencoder.safetensors"), load("pixels-f4")
    assert network.architecture == UPSAMPLER
    shown = [np.asarray(Image.open(path)) for path in sorted(pictures.rglob("*.png"))]
    images = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = network.encode(images)
    errors = [float((decoder.decode(latents) - images).abs().mean()) for decoder in (network, enlarging)]
    assert errors[0] < 0.95 * errors[1]


def test_a_codebook_is_used(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path, FitConfig(VQ, steps=60, **SMALL | {"learning_rate": 5e-3, "warmup": 10}))
    network = load_file(tmp_path / "autoencoder.safetensors")
    shown = [np.asarray(Image.open(path)) for path in sorted(pictures.rglob("*.png"))]
    images = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert len(network.indices(network.encode(images)).unique()) > 4  # type: ignore[operator]


def test_latent_noise_reaches_a_deterministic_network_alone(pictures: Path, tmp_path: Path) -> None:
    for name, noise in (("without", 0.0), ("with", 0.5)):
        run(pictures, tmp_path / name, FitConfig(TINY, steps=10, latent_noise=noise, **SMALL))
    assert lines(tmp_path / "without") != lines(tmp_path / "with")


def test_sharpening_joins_after_so_many_updates(pictures: Path, tmp_path: Path) -> None:
    terms = {"contrast_weight": 1.0, "adversarial_weight": 0.5, "discriminator_layers": 1}
    config = FitConfig(TINY, steps=40, sharpen_after=20, **terms, **SMALL)
    run(pictures, tmp_path / "sharp", config)
    run(pictures, tmp_path / "plain", FitConfig(TINY, steps=40, **SMALL))
    sharp, plain = (lines(tmp_path / name) for name in ("sharp", "plain"))
    assert sharp[:2] == plain[:2]
    assert {"contrast", "adversarial", "discriminator"} <= set(sharp[2]) - set(sharp[1])
    assert sharp[3]["l1"] != plain[3]["l1"]


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    options = (
        f"--autoencoder {json.dumps(TINY).replace(' ', '')} --size 16 --shorter-side 16-32 --batch 4 --validation 20% "
        "--steps 80 --log-every 10 --save-every 10 --validate-every 30 --latent-noise 0.1 --contrast-weight 0.5 "
        "--adversarial-weight 0.5 --discriminator-layers 1 --sharpen-after 15 --device cpu"
    )
    return [sys.executable, "-m", "lvae", "autoencoder", "fit", str(pictures), str(out), *options.split(), *more]


def environment() -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": "1"}


def test_a_killed_run_goes_on_to_the_same_bits(pictures: Path, tmp_path: Path) -> None:
    """Killed by the operating system twice; every loss and weight is as if undisturbed, with a loader or without."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    alone = command(pictures, killed, "--workers", "0")
    subprocess.run(command(pictures, undisturbed), env=environment(), check=True, capture_output=True)
    for step in (10, 40):
        process = subprocess.Popen(alone, env=environment(), stderr=subprocess.DEVNULL)
        while not (killed / "checkpoints" / f"step-{step:08d}").exists():
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert lines(killed)[-1]["step"] < 80
    subprocess.run(alone, env=environment(), check=True, capture_output=True)
    assert lines(killed) == lines(undisturbed)
    weights = [(out / "autoencoder.safetensors").read_bytes() for out in (killed, undisturbed)]
    assert weights[0] == weights[1]
    last = "checkpoints/step-00000080"
    for name in ("model", "average", "optimizer", "discriminator", "discriminator_optimizer"):
        assert (killed / last / f"{name}.safetensors").read_bytes() == (
            undisturbed / last / f"{name}.safetensors"
        ).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(
    pictures: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config, said, bar = FitConfig(TINY, steps=30, latent_noise=0.1, **SMALL), list[str](), list[tuple[int, int]]()
    run(pictures, tmp_path / "undisturbed", config)

    def stop(done: int, total: int) -> None:
        bar.append((done, total))
        if done == 12:
            os.kill(os.getpid(), number)

    out = tmp_path / "stopped"
    watcher_ = Watcher(lambda done, total: None, stop, said.append, lambda pairs, title: b"")
    options = FitOptions(10, 10, 1000, "cpu", 0)
    assert fit(str(pictures), out, config, watcher_, options) is None
    (step,) = set(Checkpoints(out / "checkpoints").steps()) - {10}
    assert step in (12, 13)
    assert said[-1] == f"stopped after update {step}; the same command goes on from here"
    assert lines(out)[-1]["step"] == step
    bar.clear()
    assert fit(str(pictures), out, config, watcher_, options) is not None
    assert (bar[0], bar[1], bar[-1]) == ((step, 30), (step + 1, 30), (30, 30))
    assert [line["step"] for line in lines(out) if "l1" in line] == [10, step, 20, 30]
    assert (out / "autoencoder.safetensors").read_bytes() == (
        tmp_path / "undisturbed/autoencoder.safetensors"
    ).read_bytes()


def test_a_finished_run_does_nothing_again(pictures: Path, tmp_path: Path) -> None:
    config = FitConfig(TINY, steps=20, **SMALL)
    first = run(pictures, tmp_path, config)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert run(pictures, tmp_path, config).fingerprint == first.fingerprint
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path, FitConfig(TINY, steps=10, **SMALL))
    with pytest.raises(LvaeError, match=r"was begun with batch 4, not 8\. Give the same settings"):
        run(pictures, tmp_path, FitConfig(TINY, steps=10, **SMALL | {"batch": 8}))


def test_weights_can_be_started_from(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "first", FitConfig(TINY, steps=60, **SMALL | {"learning_rate": 5e-3, "warmup": 10}))
    start = str(tmp_path / "first" / "autoencoder.safetensors")
    run(pictures, tmp_path / "second", FitConfig(TINY, steps=10, **SMALL), start=start)
    assert lines(tmp_path / "second")[0]["l1"] < 0.7 * lines(tmp_path / "first")[0]["l1"]


def blown_up(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor * 1e30 for name, tensor in tensors.items()}


def test_a_loss_that_is_not_finite_stops_the_run(pictures: Path, tmp_path: Path) -> None:
    """The update is named, and the last checkpoint stays as it is."""
    config = FitConfig(TINY, steps=20, **SMALL)

    def stop(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopping = Watcher(lambda done, total: None, stop, str, lambda pairs, title: b"")
        fit(str(pictures), tmp_path, config, stopping, FitOptions(5, 10, 1000, "cpu", 0))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    saved = checkpoints.open(10)
    groups = {group: saved.read(group) for group in saved.groups}
    checkpoints.save(10, groups | {"model": blown_up(groups["model"])}, saved.values)
    with pytest.raises(LvaeError, match="the loss of update 11 is not finite; the checkpoint of update 10 is kept"):
        run(pictures, tmp_path, config, every=5)
    assert checkpoints.steps() == [10]
    load_file(tmp_path / "autoencoder.safetensors")  # which refuses what is not finite


def test_a_loss_that_is_not_finite_from_the_start(pictures: Path, tmp_path: Path) -> None:
    save_file(blown_up(dict(load(TINY, "random:0").state_dict())), tmp_path / "start.safetensors")
    with pytest.raises(LvaeError, match="the loss of update 1 is not finite; there is no checkpoint yet"):
        start = str(tmp_path / "start.safetensors")
        run(pictures, tmp_path / "out", FitConfig(TINY, steps=10, **SMALL), start=start)


def test_bad_sources_get_one_sentence(pictures: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (nothing / "notes.txt").write_text("no picture")
    small = FitConfig(TINY, size=64, shorter_side=(64, 64), steps=10)
    with pytest.raises(LvaeError, match="no images"):
        run(nothing, tmp_path / "out", FitConfig(TINY, steps=10, **SMALL))
    with pytest.raises(LvaeError, match=r"no picture to train on \(40 smaller than the crop of 64 pixels\)\. Name a"):
        run(pictures, tmp_path / "small", small)
    with pytest.raises(LvaeError, match="has no class 'unicorn'"):
        run(pictures, tmp_path / "class", FitConfig(TINY, steps=10, only_classes=("unicorn",), **SMALL))
    with pytest.raises(LvaeError, match="leave none for validation"):
        run(pictures, tmp_path / "few", FitConfig(TINY, steps=10, limit=2, **SMALL | {"validation": 0.01}))


def test_a_size_that_the_network_cannot_halve_is_refused(pictures: Path, tmp_path: Path) -> None:
    config = FitConfig(TINY, steps=10, **SMALL | {"size": 18, "shorter_side": (18, 30)})
    with pytest.raises(LvaeError, match="--size 18: must be a multiple of the network's downsampling factor, 4"):
        run(pictures, tmp_path, config)


def test_validation_takes_a_size_that_the_network_can_halve(pictures: Path, tmp_path: Path) -> None:
    config = FitConfig(TINY, steps=10, **SMALL | {"shorter_side": (16, 30)})
    fitted = run(pictures, tmp_path, config)
    assert fitted.validation_size == 28
    assert fitted.psnr_db is not None


def test_broken_and_small_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    write_scenes(tmp_path / "source", 24, 32, 0)
    Image.new("RGB", (200, 8)).save(tmp_path / "source" / "thin.png")
    (tmp_path / "source" / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(40))
    said: list[str] = []
    config = FitConfig(TINY, steps=10, **SMALL)
    fit(str(tmp_path / "source"), tmp_path / "out", config, watcher(said), FitOptions(10, 10, 10, "cpu", 0))
    assert any("24" in line or "pictures to train on" in line for line in said)
    assert "left out: 1 (smaller than the crop of 16 pixels)" in said
    assert sum(line.startswith("left out: 1") for line in said) == 2


def test_grey_sources_are_trained_on_with_a_word(tmp_path: Path) -> None:
    write_scenes(tmp_path / "source", 24, 32, 0)
    for path in (tmp_path / "source").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    said: list[str] = []
    config = FitConfig(TINY, steps=10, **SMALL)
    fit(str(tmp_path / "source"), tmp_path / "out", config, watcher(said), FitOptions(10, 10, 10, "cpu", 0))
    assert "every picture is grey: the autoencoder will not learn colours" in said


@pytest.mark.slow
def test_a_full_disk_gets_one_sentence(pictures: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: first the pictures do not fit, then the checkpoints."""
    for kilobytes, where in ((20, "no space is left"), (160, "checkpoint of step 10")):
        arguments = command(pictures, tmp_path / str(kilobytes), "--workers", "0")
        shell = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *arguments]
        done = subprocess.run(shell, env=environment(), capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("lvae: "), done.stderr
        assert where in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": {"kind": "pixels", "factor": 2}}, "pixels have nothing to learn"),
        ({"size": 4}, "--size must be a whole number from 16 to 1024, not 4"),
        ({"shorter_side": (8, 32)}, "--shorter-side, the lower end must be a whole number from 16 to 16384, not 8"),
        ({"validation": 0.9}, "--validation must be at least 0 and at most 0.5, not 0.9"),
        ({"adversarial_weight": 0.5}, "--discriminator-layers 3: needs crops of at least 24 pixels, not 16"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a finite number, not nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LvaeError, match=message):
        FitConfig(**{"architecture": TINY, "steps": 10} | SMALL | change)
