"""A trained run as a model of the package: its settings and, in float16, its averaged weights; nothing that trains on.

    python -m lvae.train.packaged.make RUN NAME [--autoencoder]

makes train/packaged/NAME, with what `lvae residuals` measured of RUN, in float16 too, and with RUN/drawing.json. Its
README.md, the card, is written by hand.
--autoencoder takes RUN's weights/ along, for another autoencoder than the one that the package has.
"""

import argparse
import shutil
from pathlib import Path

import safetensors.torch
import torch

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.drawing import DRAWING
from lvae.train.runs.packaged import FOLDER
from lvae.train.runs.run import CHECKPOINTS, latest_checkpoint, read_run, residuals_file, write_run

LARGEST = 10 << 20  # bytes
EMA_FILE = "ema.safetensors"


def make(run: Path, name: str, autoencoder: bool) -> Path:
    """Write the folder anew, but for its card. LvaeError where it is too large for a package."""
    out, config, found = FOLDER / name, read_run(run), latest_checkpoint(run)
    out.mkdir(parents=True, exist_ok=True)
    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    weights = {name: tensor.to(torch.float16) for name, tensor in found.read("ema").items()}
    Checkpoints(out / CHECKPOINTS).save(found.step, {"ema": weights}, {"step": found.step, "position": 0})
    write_run(out, config)
    if (left_out := Folder(run).read_if_there(residuals_file(found.sha256[EMA_FILE]))) is not None:
        halved = {name: tensor.to(torch.float16) for name, tensor in safetensors.torch.load(left_out).items()}
        Folder(out).write(residuals_file(latest_checkpoint(out).sha256[EMA_FILE]), safetensors.torch.save(halved))
    (out / DRAWING).unlink(missing_ok=True)  # how other weights are best drawn
    if (drawing := Folder(run).read_if_there(DRAWING)) is not None:
        Folder(out).write(DRAWING, drawing)
    file = config.dataset.autoencoder.weights_file
    if autoencoder and file is not None:
        Folder(out).write(file, Folder(run).read(file))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if size > LARGEST:
        raise LvaeError(out, f"has {size} bytes, more than the {LARGEST} of a model in the package")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--autoencoder", action="store_true")
    options = parser.parse_args()
    print(make(options.run, options.name, options.autoencoder))


if __name__ == "__main__":
    main()
