"""The field's crops: pure geometry first, then the resizing.

Each is a published procedure, pixel for pixel:

- adm: guided-diffusion's `center_crop_arr`, also the usual recipe of ImageNet latents.
- lsun: latent-diffusion's loader of churches, bedrooms and cats: centre square first, then one bicubic resize.
- adm-lsun: guided-diffusion's script for LSUN, from which its FID reference batches come.
- center: the largest centred square, then Lanczos, as the `center-crop` of NVIDIA's dataset tools.
- none: no geometry; an image of another size is refused.
"""

from dataclasses import dataclass

from PIL.Image import Image, Resampling

from lvae.encode.images import MAX_PIXELS, ImageRejected
from lvae.manifests.errors import LvaeError

CROPS = {"adm": "box+bicubic", "lsun": "bicubic", "adm-lsun": "box", "center": "lanczos", "none": "none"}
"""Kind -> the resampling filters, as a manifest records them."""

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Step:
    """Cut `box` out (or nothing), then resize to `size` with `filter` (or not at all)."""

    box: Box | None = None
    size: tuple[int, int] | None = None
    filter: Resampling = Resampling.NEAREST


def crop(image: Image, size: int, kind: str) -> Image:
    """An RGB image of any size -> RGB, size x size.

    Raises ImageRejected where `none` finds another size, or where an extreme aspect ratio asks for an intermediate
    picture of more than MAX_PIXELS.
    """
    if image.mode != "RGB":
        raise ValueError(f"an image of mode {image.mode}: crop wants RGB, as open_image gives it")
    for step in steps(image.width, image.height, size, kind):
        if step.box is not None:
            image = image.crop(step.box)
        if step.size is not None:
            image = image.resize(step.size, step.filter)
    return image


def steps(width: int, height: int, size: int, kind: str) -> list[Step]:
    """What a crop does to an image of this size, in order."""
    if size < 1:
        raise LvaeError(f"size {size}", "an image has at least one pixel a side")
    match kind:
        case "adm":
            found = _plan_adm(width, height, size)
        case "lsun":
            found = [Step(_find_centre_square(width, height), (size, size), Resampling.BICUBIC)]
        case "adm-lsun":
            resized = _scale_shorter_side(width, height, size)
            found = [Step(None, resized, Resampling.BOX), Step(_center_box(*resized, size))]
        case "center":
            found = [Step(_find_centre_square(width, height), (size, size), Resampling.LANCZOS)]
        case "none":
            if (width, height) != (size, size):
                raise ImageRejected(f"{width}x{height}: without a crop it has to be {size}x{size}")
            found = []
        case _:
            raise LvaeError("", f"crop {kind!r} is none of {', '.join(CROPS)}")
    for step in found:
        if step.size is not None and step.size[0] * step.size[1] > MAX_PIXELS:
            raise ImageRejected(f"{width}x{height}: too long and narrow to be cropped to {size}x{size}")
    return found


def _plan_adm(width: int, height: int, size: int) -> list[Step]:
    """Halve with a box filter while the shorter side is at least twice the size, then bicubic, then the centre."""
    found = []
    while min(width, height) >= 2 * size:
        width, height = width // 2, height // 2
        found.append(Step(None, (width, height), Resampling.BOX))
    resized = _scale_shorter_side(width, height, size)
    return [*found, Step(None, resized, Resampling.BICUBIC), Step(_center_box(*resized, size))]


def _scale_shorter_side(width: int, height: int, size: int) -> tuple[int, int]:
    scale = size / min(width, height)
    return round(width * scale), round(height * scale)  # halves go to the even number, as in the published scripts


def _center_box(width: int, height: int, size: int) -> Box:
    left, top = (width - size) // 2, (height - size) // 2
    return left, top, left + size, top + size


def _find_centre_square(width: int, height: int) -> Box:
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2
