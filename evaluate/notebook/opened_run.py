"""`lvae.Run`: a trained model in a notebook: samples, and work on real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lvae.encode.devices import choose_device
from lvae.evaluate.manipulation.loaded_run import InputImage, LoadedRun, encode_pixels
from lvae.evaluate.manipulation.operations import EncodedImage, Space, interpolate, reconstruct
from lvae.evaluate.notebook.decodable_dataset import as_batch
from lvae.evaluate.notebook.picture_set import ImagesLike, PictureSet, open_images
from lvae.evaluate.samples.correlated_noise import CorrelatedNoise
from lvae.evaluate.samples.options import guidance_weights, label_of, labels_of
from lvae.evaluate.samples.output import draw_output
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED
from lvae.manifests.seeds import derive
from lvae.train.network.choices import Guidance, Weights
from lvae.train.network.noise import draw_noise
from lvae.train.runs.drawing import OutputNoise
from lvae.train.runs.run import find_run, latest_checkpoint

BATCH = 32  # samples drawn at a time
SAMPLES = 8  # where nothing else is said

Label = int | str  # a class by number or name
Labels = Label | Sequence[Label]
GuidanceLike = Weights | tuple[Weights, Weights] | Literal["paper"]


class Run:
    """A trained model, opened for sampling and for work on images.

        run = Run.open("run")
        run.sample(16, labels="rose", guidance=(1.5, 3))
        run.reconstruct("photo.jpg")

    Pictures come as a PictureSet: images of Pillow that a notebook shows. Images go in as images of Pillow, arrays
    uint8 (H, W, 3) or (N, H, W, 3), paths, or several of these; they are cropped as the run's dataset was. Latents are
    normalized, float32 (N, d, R, R), as the model is fed them.
    """

    def __init__(self, loaded: LoadedRun, step: int, model_sha256: str):
        self.loaded, self.step, self.model_sha256 = loaded, step, model_sha256

    @classmethod
    def open(
        cls,
        run: str | Path,
        weights: Literal["ema", "raw"] = "ema",
        decoder: str | None = None,
        device: str = "auto",
    ) -> Self:
        """Open a run by its path.

        weights: the average of the model's weights, or the last ones. decoder: a file of the autoencoder's weights,
        where the run does not carry them; without them pictures are latents in false colours. device: "auto" is a GPU
        where there is one. LvaeError where there is no run, or none with a checkpoint.
        """
        if weights not in ("ema", "raw"):
            raise LvaeError(f"weights={weights!r}", "there are no such weights", 'Choose "ema" or "raw".')
        folder = find_run(run)
        loaded = LoadedRun.open(folder, weights, decoder, choose_device(device))
        checkpoint = latest_checkpoint(folder)
        group = "ema" if weights == "ema" else "model"
        return cls(loaded, checkpoint.step, checkpoint.sha256[f"{group}.safetensors"])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their numbers; None for a model without classes."""
        count, names = self.loaded.classes, self.loaded.config.dataset.classes
        if not count:
            return None
        return names if names is not None else tuple(map(str, range(count)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(d, R, R) of one latent."""
        return self.loaded.config.dataset.shape

    @property
    def size(self) -> int:
        """Pixels of a picture's side."""
        return self.loaded.config.dataset.image.size

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        classes = "no classes" if self.classes is None else counted(len(self.classes), "class", "classes")
        return (
            f"<Run {self.loaded.run}: {self.loaded.config.preset}, update {self.step}, pictures of {self.size} px, "
            f"latents of {shape}, {classes}>"
        )

    def sample(
        self,
        count: int | None = None,
        *,
        labels: Labels | None = None,
        guidance: GuidanceLike | None = None,
        temperature: Weights = 1.0,
        output_temperature: float = 0.0,
        output_noise: OutputNoise = "independent",
        seed: int = 0,
    ) -> PictureSet:
        """Draw pictures from the model; sample i is a function of `seed` and i, as with `lvae sample`.

        count: 8, or as many as there are labels. labels: a class by number or name, or one for each sample; "cycle"
        (the default of models with classes), "random" or "frequencies". guidance: (weight of means, weight of
        variances), 0 being off, or "paper" (1.5 and 3, no means at 1x1); one number stands for both. temperature:
        multiplies the std of draws. Each weight is a number, or one for each resolution, lowest first.
        output_temperature: how much of its predicted std is added to the output's mean, as noise. output_noise:
        "independent", or "correlated" as `lvae residuals` measured what the model leaves out. A drawing.json of the
        run, which `lvae sample` follows, is not. LvaeError for what the model cannot do.
        """
        if count is not None and count < 1:
            raise LvaeError(f"count={count}", "there is nothing to draw", "Ask for 1 picture at least.")
        for name, weights in (("temperature", temperature), ("output_temperature", output_temperature)):
            if np.asarray(weights).dtype.kind not in "iuf":
                raise LvaeError(f"{name}={weights!r:.60}", "is no number", "Give 0 or more.")
            if np.min(weights) < 0:
                raise LvaeError(f"{name}={weights!r}", "must not be negative", "Give 0 or more.")
        if output_noise not in ("independent", "correlated"):
            problem = "there is no such noise"
            raise LvaeError(f"output_noise={output_noise!r:.60}", problem, 'Choose "independent" or "correlated".')
        loaded = self.loaded
        config = loaded.model.config
        if config.low_resolution_factor is not None:
            raise LvaeError(loaded.run, "is an upsampler", "Use 'lvae sample --low-resolution SAMPLES'.")
        wanted = self._labels(labels, count, seed)
        means, variances = self._guidance(guidance)
        correlated = None
        if output_noise == "correlated" and output_temperature:
            correlated = CorrelatedNoise.read(loaded.run, self.model_sha256, self.shape)
        latents = []
        for start in range(0, len(wanted), BATCH):
            some = torch.from_numpy(wanted[start : start + BATCH]).to(loaded.device)
            seeds = [derive(seed, "sample", index) for index in range(start, start + len(some))]
            noise = [part.to(loaded.device) for part in draw_noise(config, seeds)]
            with torch.no_grad():
                decoded = loaded.model.decode(
                    [None] * len(noise),
                    some if config.classes else None,
                    noise,
                    guidance=Guidance(means, variances, temperature),
                )
                indices = range(start, start + len(some))
                drawn = draw_output(decoded, output_temperature, seed, indices, correlated)
            latents.append(drawn.float().cpu().numpy())
        return self._picture(np.concatenate(latents), wanted)

    def encode(self, images: ImagesLike) -> NDArray[np.float32]:
        """Images -> normalized latents, float32 (N, d, R, R). LvaeError where the autoencoder's weights are missing."""
        image = self.loaded.config.dataset.image
        return np.stack([encode_pixels(self.loaded, one) for one in open_images(images, image.size, image.crop)])

    def decode(self, latents: ArrayLike) -> PictureSet:
        """Normalized latents (N, d, R, R), or one (d, R, R) -> pictures, uint8 (N, H, W, 3)."""
        found = as_batch(latents, self.shape, self.loaded.run).astype(np.float32)
        return self._picture(found, np.full(len(found), UNLABELLED, np.int32))

    def reconstruct(
        self, images: ImagesLike, *, labels: Labels | None = None, seed: int = 0, mean: bool = False
    ) -> PictureSet:
        """What the model makes of images: all their variables inferred, then decoded.

        labels: their classes, for a model that has some. mean: images stand for the means of their posteriors,
        not for draws from them by `seed`.
        """
        found = self._infer(images, labels, seed, mean)
        return self._picture(
            np.concatenate([reconstruct(self.loaded.model, one).cpu().numpy() for _, one in found]),
            np.array([image.label for image, _ in found], np.int32),
        )

    def interpolate(
        self,
        first: ImagesLike,
        second: ImagesLike,
        steps: int = 6,
        *,
        labels: Labels | None = None,
        space: Space | None = None,
        seed: int = 0,
        mean: bool = False,
    ) -> PictureSet:
        """`steps` pictures on the way from one image to another, their reconstructions at both ends.

        On the straight line. space: "z" mixes the model's variables, "noise" what its priors make them of; chosen to
        suit the prior where it is not given. labels: of both, or of each. The rest as for `reconstruct`.
        """
        if steps < 2:
            raise LvaeError("", "an interpolation has two ends", "Ask for 2 steps or more.")
        found = self._infer([first, second], labels, seed, mean)
        if len(found) != 2:
            raise LvaeError("", f"an interpolation joins two images, not {len(found)}", "Give one image each.")
        suited: Space = "noise" if self.loaded.model.config.hierarchical_prior else "z"
        shares = [float(share) for share in np.linspace(0, 1, steps)]
        way = interpolate(self.loaded.model, found[0][1], found[1][1], shares, space or suited)
        latents = np.concatenate([one.cpu().numpy() for one in way])
        nearer = [found[int(share >= 0.5)][0].label for share in shares]
        return self._picture(latents, np.array(nearer, np.int32), captions=[f"{share:.2f}" for share in shares])

    def _picture(
        self, latents: NDArray[np.float32], labels: NDArray[np.int32], captions: Sequence[str] | None = None
    ) -> PictureSet:
        names = [self.loaded.name_class(int(label)) or "" for label in labels]
        return PictureSet(self.loaded.decode(latents), latents, labels, names if captions is None else captions)

    def _infer(
        self, images: ImagesLike, labels: Labels | None, seed: int, mean: bool
    ) -> list[tuple[InputImage, EncodedImage]]:
        """Images and their variables; the noise of image i is a function of (seed, i)."""
        image = self.loaded.config.dataset.image
        pixels = open_images(images, image.size, image.crop)
        if labels is None:
            wanted: NDArray[np.int32] = np.full(len(pixels), UNLABELLED, np.int32)
        else:
            wanted = self._labels(labels, len(pixels), seed)
        found = []
        for number, (one, label) in enumerate(zip(pixels, wanted, strict=True)):
            given = InputImage(encode_pixels(self.loaded, one), int(label), str(number), one)
            found.append((given, self.loaded.encode(given, seed, number, mean)))
        return found

    def _labels(self, labels: Labels | None, count: int | None, seed: int) -> NDArray[np.int32]:
        """A class for each sample, int32 (count,)."""
        record, classes = self.loaded.config.dataset, self.loaded.classes
        names, counts = record.classes, record.class_counts
        if labels is None or isinstance(labels, int | np.integer | str):
            text = None if labels is None else str(labels)
            return labels_of(text, SAMPLES if count is None else count, classes, names, seed, "labels", counts)
        if not isinstance(labels, Sequence | np.ndarray):
            raise LvaeError(
                f"labels={labels!r:.60}", "is no class", "Give its number or name, or one for each picture."
            )
        if count is not None and len(labels) != count:
            raise LvaeError("labels", f"{len(labels)} for {counted(count, 'picture')}", "Give one, or one for each.")
        return np.array([label_of(str(label), classes, names, "labels") for label in labels], np.int32)

    def _guidance(self, guidance: GuidanceLike | str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
        config = self.loaded.model.config
        if guidance is None or guidance == "paper":
            return guidance_weights(config, None, None, guidance, "extra")
        if isinstance(guidance, str):
            advice = 'Give (weight of means, weight of variances), one number for both, or "paper".'
            raise LvaeError(f"guidance={guidance[:60]!r}", "there is no such guidance", advice)
        pair = guidance if isinstance(guidance, tuple) else (guidance, guidance)
        if len(pair) != 2:
            raise LvaeError("guidance", f"{len(pair)} weights", "Give two, of means and of variances.")
        mean, variance = (",".join(map(str, np.atleast_1d(weight))) for weight in pair)
        return guidance_weights(config, mean, variance, None, "extra", ("guidance", "guidance"))
