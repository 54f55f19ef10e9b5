"""The section of a report that works on real images: from one to another, and what each resolution decides."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.manipulation.figures import show_depths, show_interpolation
from lvae.evaluate.manipulation.loaded_run import InputImage, LoadedRun, read_images
from lvae.evaluate.manipulation.operations import count_groups_through
from lvae.evaluate.manipulation.requests import Draws, Interpolation, pair_images
from lvae.evaluate.report.cache import load_or_make
from lvae.evaluate.report.inputs import LAYOUT, ReportInputs
from lvae.evaluate.report.page import (
    Block,
    ColumnGroup,
    Missing,
    PictureRow,
    PictureTable,
    Section,
    Subtitle,
    Thumbnail,
    WithCaption,
)
from lvae.manifests.views.selection import TRAIN
from lvae.train.devices.device import Device

IMAGES, STEPS = 4, 4  # images that are taken, pictures between two of them

REBUILT = "recon\u00adstruction"  # broken in two where a column is narrow


def show_manipulations(inputs: ReportInputs, device: Device) -> Section:
    anchor, title, data = "manipulations", "Interpolations and depths", inputs.dataset
    if data is None:
        text = "Here stand real images on their way to one another, where the dataset is given."
        return Section(anchor, title, [Missing(text, f"lvae report {inputs.run} --dataset DATASET")])
    held_out = next((name for name in data.splits if name != TRAIN), TRAIN)
    split = data.split(held_out)
    if len(split) < IMAGES:
        split = data
    key = {"checkpoint": inputs.checkpoint, "dataset": data.manifest.id, "split": split.name, "layout": LAYOUT}
    where = device.kind if device.kind in ("cpu", "cuda") else "cpu"

    def make() -> dict[str, Any]:
        loaded = LoadedRun.open(inputs.run, "ema", inputs.options.weights, where)
        images = read_images(loaded, split, np.arange(IMAGES))
        asked = Interpolation(pair_images(IMAGES, "chain"), STEPS)
        between = show_interpolation(loaded, images, asked, Draws()).arrays["pixels"]
        depths = show_depths(loaded, images, False, Draws()).arrays["pixels"]
        ends = [(images[first], images[second]) for first, second in asked.pairs]
        return {
            "between": [
                [_frame(one), *_thumbnails(row, "between two images"), _frame(other)]
                for (one, other), row in zip(ends, between, strict=True)
            ],
            "depths": [
                [_frame(image), *_thumbnails(row, "the first groups given")]
                for image, row in zip(images, depths, strict=True)
            ],
        }

    kept = load_or_make(inputs.cache, "manipulations", key, make)
    rows = {name: [PictureRow("", tuple(Thumbnail(**one) for one in row)) for row in kept[name]] for name in kept}
    kind = "held out from training" if split.name != TRAIN else "trained on"
    options = f"--split {split.name} --indices 0-{IMAGES - 1}"
    shares = [f"{share:.2f}" for share in np.linspace(0, 1, STEPS + 2)[1:-1]]
    across = ColumnGroup("", ("image", REBUILT, *shares, REBUILT, "image"))
    between = WithCaption(
        PictureTable("From one image to another", [across], rows["between"]),
        f"Images {kind}; their variables are mixed step by step. What stands between the ends of a good model are "
        "pictures, not blends.",
        f"lvae interpolate {inputs.run} {inputs.dataset_name} between.png {options} --steps {STEPS}",
    )
    reached = [f"through {side}×{side}" for side, _ in count_groups_through(inputs.config.model)]
    down = ColumnGroup("", ("image", "nothing given", *reached))
    depths = WithCaption(
        PictureTable("The first groups given", [down], rows["depths"]),
        "The image's own variables up to a resolution, all others drawn: what each resolution decides. The last column "
        "is the model's reconstruction.",
        f"lvae depths {inputs.run} {inputs.dataset_name} depths.png {options}",
    )
    blocks: list[Block] = [Subtitle("From one image to another"), between]
    return Section(anchor, title, [*blocks, Subtitle("What each resolution decides"), depths])


def _frame(image: InputImage) -> Thumbnail:
    return Thumbnail.of(image.pixels, f"image {image.name}")


def _thumbnails(pixels: NDArray[np.uint8], alt: str) -> list[Thumbnail]:
    return [Thumbnail.of(one, alt) for one in pixels]
