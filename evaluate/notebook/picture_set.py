"""Pictures as notebooks show them, and images as people hand them over."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lvae.encode.crops import crop
from lvae.evaluate.figures.drawing import Captioned, png
from lvae.evaluate.figures.grids import LARGE, Block, draw_grid, fill_rows
from lvae.evaluate.manipulation.loaded_run import open_file
from lvae.evaluate.pictures.decode import write_whole
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.storage.places.guard import PNG, guard_output

COLUMNS = 8  # of pictures in a row
SHOWN = 256  # pictures in one grid
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")  # modes of Pillow
HOW = "Give an image of Pillow, a path, or an array uint8 (H, W, 3) or (N, H, W, 3)."

ImagesLike = Image.Image | NDArray[np.uint8] | str | Path | Iterable["ImagesLike"]


class PictureSet(Sequence[Image.Image]):
    """Decoded pictures of one size: a sequence of images of Pillow that a notebook shows as a grid.

    pixels: uint8 (N, H, W, 3), also what `numpy.asarray(pictures)` gives. latents: (N, C, h, w), the
    normalized ones that they were decoded from. labels: int32 (N,), -1 for none. captions: stand below the pictures.
    A number gives one image, a slice a set again.
    """

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        latents: NDArray[Any],
        labels: NDArray[np.int32],
        captions: Sequence[str] = (),
        columns: int = COLUMNS,
    ):
        self.pixels, self.latents, self.labels, self.columns = pixels, latents, labels, columns
        self.captions = tuple(captions) or ("",) * len(pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        height, width = self.pixels.shape[1:3]
        return f"<{counted(len(self), 'picture')} of {width}x{height} px>"

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Image.Image | Self:
        if isinstance(index, slice):
            parts = self.pixels[index], self.latents[index], self.labels[index]
            return type(self)(*parts, self.captions[index], self.columns)
        return Image.fromarray(self.pixels[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype, copy=copy)

    @property
    def grid(self) -> Image.Image:
        """The first 256 pictures in rows, enlarged by a whole number where they are small."""
        cells = [Captioned(*pair) for pair in zip(self.pixels[:SHOWN], self.captions, strict=False)]
        columns = min(self.columns, len(cells))
        return draw_grid("", [Block("", columns)], fill_rows(cells, columns), least=LARGE)

    def save(self, path: str | Path) -> None:
        """Write the grid as a PNG. LvaeError for another ending, and where something else lies there."""
        guard_output(path, PNG)
        write_whole(Path(path), png(self.grid))

    def _repr_png_(self) -> bytes | None:
        return png(self.grid) if len(self) else None


def open_images(images: ImagesLike, size: int, kind: str) -> NDArray[np.uint8]:
    """Images of any form -> uint8 (N, size, size, 3), cropped as `kind` says, which changes none that have the size.

    LvaeError for what is no image.
    """
    found = [np.asarray(crop(image, size, kind)) for image in _each(images)]
    if not found:
        raise LvaeError("", "no images were given", HOW)
    return np.stack(found)


def _each(images: ImagesLike) -> Iterable[Image.Image]:
    if isinstance(images, PictureSet):
        yield from map(Image.fromarray, images.pixels)
    elif isinstance(images, Image.Image):
        if images.mode not in EIGHT_BITS:
            advice = "Convert it to RGB, or give the path of its file."
            raise LvaeError("", f"an image of mode {images.mode} has more than 8 bits", advice)
        yield ImageOps.exif_transpose(images).convert("RGB")
    elif isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
            raise LvaeError("", f"an array {images.dtype} {images.shape} is no image", HOW)
        yield from map(Image.fromarray, images if images.ndim == 4 else images[None])
    elif isinstance(images, str | Path):
        yield open_file(Path(images))
    elif isinstance(images, Iterable):
        for one in images:
            yield from _each(one)
    else:
        raise LvaeError("", f"{type(images).__name__} is no image", HOW)
