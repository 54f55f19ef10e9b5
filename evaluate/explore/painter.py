"""From a view to its picture. Only what differs from the tab's last picture is computed anew.

A group's activations depend on the groups before it alone, which are of lower or the same resolution: what a slider of
a high resolution moves leaves all of those as they were.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lvae.encode.crops import crop
from lvae.encode.images import open_image
from lvae.evaluate.explore.view import Subject, View
from lvae.evaluate.manipulation.loaded_run import InputImage, LoadedRun, encode_pixels, read_latents
from lvae.evaluate.manipulation.operations import EncodedImage, Margins, mix, outpaint, plan_canvas
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.model import Asked, Decoded, Trail
from lvae.train.network.choices import Guidance
from lvae.train.network.noise import draw_noise

KEPT_IMAGES = 32  # that were dropped in, in memory; the oldest goes first
KEPT_SUBJECTS = 32


@dataclass
class Tab:
    """What one tab showed last: its trail, and what each group was, so that the next picture begins where they part."""

    trail: Trail = field(default_factory=Trail)
    context: Hashable = None
    groups: list[Hashable] = field(default_factory=list)
    decoded: Decoded | None = None


@dataclass(frozen=True)
class _Group:
    """How a group comes by its z. key: what says whether it is what it was."""

    key: Hashable
    z: Tensor | None
    noise: Tensor


class Painter:
    """Pictures of one run. Not for several threads at once."""

    def __init__(self, loaded: LoadedRun, dataset: Dataset | None):
        if loaded.config.model.low_resolution_factor is not None:
            raise LvaeError(loaded.run, "is an upsampler, whose pictures begin with others", "Name another run.")
        self.loaded, self.dataset = loaded, dataset
        self._images: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._subjects: OrderedDict[Hashable, EncodedImage] = OrderedDict()

    def add_image(self, mark: str, data: bytes) -> None:
        """An image of any format, cropped to the run's size. ImageRejected where it is none."""
        image = self.loaded.config.dataset.image
        kind = "adm" if image.crop == "unknown" else image.crop
        self._images[mark] = np.asarray(crop(open_image(data), image.size, kind))
        while len(self._images) > KEPT_IMAGES:
            self._images.popitem(last=False)

    @torch.no_grad()
    def paint(self, view: View, tab: Tab) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), a function of the view alone. LvaeError where its image or its position is not there."""
        label = self.loaded.label(view.label)
        guidance = Guidance(view.guidance_mean, view.guidance_variance)
        groups = self._groups(view)
        context = (view.label, view.guidance_mean, view.guidance_variance)
        decoded = self._decode(tab, context, groups, label, guidance)
        margins = Margins(left=view.left, right=view.right)
        if not margins:
            return self.loaded.decode_one(decoded.mean)
        model = self.loaded.model
        size = plan_canvas(model.config, margins)[0].size
        noise = self.loaded.draw_noise(view.seed, "beyond", 0, size)
        shown = EncodedImage(tuple(decoded.z), (), label, None)
        return self.loaded.decode_one(outpaint(model, shown, margins, noise, guidance))

    def _decode(
        self, tab: Tab, context: Hashable, groups: Sequence[_Group], label: Tensor | None, guidance: Guidance
    ) -> Decoded:
        keys = [group.key for group in groups]
        same = 0
        if tab.context == context and tab.decoded is not None:
            same = next(
                (n for n, pair in enumerate(zip(keys, tab.groups, strict=True)) if pair[0] != pair[1]), len(keys)
            )
            if same == len(keys):
                return tab.decoded
        asked = Asked([group.z for group in groups], label, [group.noise for group in groups], guidance=guidance)
        if not same:
            tab.trail = Trail()
        tab.decoded = None  # while the trail is neither the last one nor this one
        decoded = self.loaded.model.decode_along(tab.trail, same, asked)
        tab.context, tab.groups, tab.decoded = context, keys, decoded
        return decoded

    def _groups(self, view: View) -> list[_Group]:
        """A group is the image's own z as long as nothing before it has changed; below a change its noise is kept."""
        first = self._subject(view.subject, view.label)
        second = None if view.other is None else self._subject(view.other, view.label)
        ends = {0.0: first, 1.0: second}
        config = self.loaded.model.config
        redrawn = self.loaded.draw_noise(view.seed, "redraw", 0) if view.redraw else []
        moves: dict[int, list[tuple[int, float]]] = {}
        for move in view.moves:
            if move.value:
                moves.setdefault(move.group, []).append((move.channel, move.value))
        share = view.share if second is not None else 0.0
        found: list[_Group] = []
        changed = False  # whether a group so far is not the image's own
        for group, resolution in enumerate(config.group_resolutions):
            shifts = tuple(sorted(moves.get(group, ())))
            end = ends.get(share)
            key: Hashable = (view.subject, view.other, share)
            if resolution in view.redraw:
                key, noise, end = ("redraw", view.seed), redrawn[group], None
            elif end is not None:
                noise = end.noise[group]
            else:
                assert second is not None
                noise = mix(first.noise[group], second.noise[group], share, "linear")
            changed = changed or end is None or bool(shifts)
            z = None if changed or end is None or not end.z else end.z[group]
            if shifts:
                noise = noise.clone()
                for channel, value in shifts:
                    noise[:, channel] += value
            found.append(_Group((key, shifts, z is None), z, noise))
        return found

    def _subject(self, subject: Subject, label: int) -> EncodedImage:
        key = (subject, label)
        if key not in self._subjects:
            self._subjects[key] = self._encode(subject, label)
            while len(self._subjects) > KEPT_SUBJECTS:
                self._subjects.popitem(last=False)
        self._subjects.move_to_end(key)
        return self._subjects[key]

    def _encode(self, subject: Subject, label: int) -> EncodedImage:
        """Images stand for the means of their posteriors; samples, for their noise alone."""
        loaded = self.loaded
        if subject.kind == "sample":
            noise = draw_noise(loaded.model.config, [derive(subject.number, "sample", 0)])
            return EncodedImage((), tuple(part.to(loaded.device) for part in noise), None, None)
        if subject.kind == "index":
            if self.dataset is None:
                raise LvaeError("", "there is no dataset", "Start with --dataset DATASET.")
            if subject.number >= len(self.dataset):
                raise LvaeError("", f"the dataset has positions 0 to {len(self.dataset) - 1}")
            latents = read_latents(loaded, self.dataset, np.array([subject.number]))[0][0]
            return loaded.encode(InputImage(latents, label, "", np.empty((0, 0, 3), np.uint8)), 0, 0, mean=True)
        pixels = self._images.get(subject.image)
        if pixels is None:
            raise LvaeError("", "that image is not here any more", "Drop it in again.")
        image = InputImage(encode_pixels(loaded, pixels), label, "", pixels)
        return loaded.encode(image, 0, 0, mean=True)

    def label_at(self, position: int) -> int:
        """The class of an image of the dataset, -1 for none."""
        if self.dataset is None or not 0 <= position < len(self.dataset):
            return -1
        return int(read_latents(self.loaded, self.dataset, np.array([position]))[1][0])
