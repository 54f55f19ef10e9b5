"""A network on its device: from pixels to what a raw part stores."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lvae.encode.devices import check_precision, is_accelerator
from lvae.encode.networks import rgb
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import Encoding
from lvae.manifests.seeds import derive
from lvae.manifests.storage.folder import Folder

if TYPE_CHECKING:
    import torch

    from lvae.encode.networks.base import Autoencoder

FORWARD_MULTIPLY_ADDS = 8e9  # of one forward pass on a CPU: more gains nothing, and memory grows with it
MULTIPLY_ADDS_PER_SECOND = 35e9  # of one CPU core, nominally; decides the size of parts, and nothing else
OPEN_SECONDS = 0.05  # to read, open and crop one photograph, nominally; likewise
PART_SECONDS = 60  # of work in one part on a CPU, about
PART_LATENTS = 4096  # in one part on an accelerator
PART_BYTES = 64 << 20  # of raw latents in one part, at most
LARGEST_BATCH = 32
IN_FLIGHT = 2  # batches that an accelerator has at a time: one in work, one waiting
COMPILED_IMAGES = 50_000  # of one worker, from which on compiling the network pays


def choose_batch(multiply_adds: int, device: str) -> int:
    """How many images share a forward pass where the user does not say."""
    if is_accelerator(device) or multiply_adds == 0:
        return LARGEST_BATCH
    return int(np.clip(FORWARD_MULTIPLY_ADDS // multiply_adds, 1, LARGEST_BATCH))


def choose_part_size(multiply_adds: int, raw_bytes: int, orientations: int, device: str) -> int:
    """Images in a part where the user does not say, a power of two: what a kill may cost.

    About a minute of one core's work on a CPU; on an accelerator enough that files are not many. raw_bytes: of one raw
    latent. A function of the autoencoder's cost and the kind of device, so that every machine cuts alike.
    """
    seconds = OPEN_SECONDS + orientations * multiply_adds / MULTIPLY_ADDS_PER_SECOND
    wanted = PART_LATENTS / orientations if is_accelerator(device) else PART_SECONDS / seconds
    most = max(1, PART_BYTES // (raw_bytes * orientations))
    return int(min(2 ** round(math.log2(max(wanted, 1))), 2 ** int(math.log2(most))))


def weights_in(folder: Folder, encoding: Encoding) -> str | None:
    """Where a dataset keeps its autoencoder's weights; None for pixels."""
    name = encoding.autoencoder.weights_file
    return None if name is None else str(folder.local(name))


class Pending(Protocol):
    """A batch that an encoder has taken."""

    def result(self) -> NDArray[Any]:
        """(B, orientations, C, h, w) as the raw part stores it: the image, then its mirror. Waits for it."""


@dataclass(frozen=True)
class Finished:
    """A batch that was computed at once."""

    latents: NDArray[Any]

    def result(self) -> NDArray[Any]:
        return self.latents


class Encoder:
    """Encodes batches of pictures as a dataset's plan says, on a CPU at once, on a GPU beside it.

    batch: images of one. in_flight: how many may be under way before the oldest is asked for its result.
    """

    def __init__(self, encoding: Encoding, network: "Autoencoder", device: str = "cpu", compiled: bool = False):
        """compiled: by torch.compile, where that is possible and the device is no CPU; takes a minute or two."""
        self._encoding, self._device = encoding, device
        self._pixels = encoding.autoencoder.pixels
        self.accelerated = is_accelerator(device) and not self._pixels
        self.batch, self.in_flight = encoding.batch, IN_FLIGHT if self.accelerated else 1
        self._network = network
        self._encode: Callable[[torch.Tensor], torch.Tensor] = self._run_network
        if self._pixels:
            return
        self._prepare()
        if self.accelerated:
            from lvae.encode.feeding.cuda import Lanes, compile_for

            if compiled:
                self._encode = compile_for(self._run_network)
            self._lanes = Lanes(device, encoding, IN_FLIGHT)

    def _prepare(self) -> None:
        import torch

        torch.set_num_threads(self._encoding.threads)
        if self._encoding.precision == "winograd":
            check_precision("winograd", self._device)
        with _memory(self._device, 0):
            self._network = self._network.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._encoding.precision == "winograd":
            from lvae.encode.networks.winograd import use_winograd

            use_winograd(self._network.get_submodule("encoder"))
        if self.accelerated:
            tf32 = self._encoding.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def encode(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[str]) -> NDArray[Any]:
        """Images uint8 (H, W, 3) each -> (B, orientations, C, h, w), waited for."""
        return self.submit(pixels, keys).result()

    def submit(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[str]) -> Pending:
        """As `encode`; on a GPU the batch is filled up to its size, and under way when this returns."""
        with _memory(self._device, len(pixels)):
            if self.accelerated:
                return self._lanes.submit(pixels, lambda images: self._both(images, keys))
            return Finished(self._encode_here(np.asarray(pixels), keys))

    def _encode_here(self, pixels: NDArray[np.uint8], keys: Sequence[str]) -> NDArray[Any]:
        views = [pixels, pixels[:, :, ::-1]] if self._encoding.image.mirrored else [pixels]
        return np.stack([self._one_orientation(view, keys, n == 1) for n, view in enumerate(views)], axis=1)

    def _one_orientation(self, pixels: NDArray[np.uint8], keys: Sequence[str], mirrored: bool) -> NDArray[Any]:
        pixels = np.ascontiguousarray(pixels)
        if self._pixels:
            return rgb.reduce(pixels, self._encoding.autoencoder.downsampling_factor)
        import torch

        torch.set_num_threads(self._encoding.threads)  # counts for the calling thread alone, and engines have several
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
        with torch.inference_mode():
            result: NDArray[np.float32] = self._stored(images, keys, mirrored).numpy()
        return result

    def _both(self, pixels: "torch.Tensor", keys: Sequence[str]) -> "torch.Tensor":
        """On a device: uint8 (B, H, W, 3), of which the first len(keys) count -> float32 (B, orientations, C, h, w)."""
        import torch

        images = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)  # channels last, as the network
        views = [images, images.flip(3)] if self._encoding.image.mirrored else [images]
        with torch.inference_mode():
            return torch.stack([self._stored(view, keys, n == 1) for n, view in enumerate(views)], dim=1)

    def _stored(self, images: "torch.Tensor", keys: Sequence[str], mirrored: bool) -> "torch.Tensor":
        """(B, 3, H, W) in [-1, 1] -> float32 (B, C, h, w) or, with moments, (B, 2C, h, w)."""
        import torch

        found = self._encode(images).float()
        if self._encoding.autoencoder.store != "sample":
            return found
        mean, log_variance = found.chunk(2, dim=1)
        noise = np.zeros((len(images), *self._encoding.latent_shape), np.float32)
        noise[: len(keys)] = [self._noise(key, mirrored) for key in keys]
        return mean + torch.exp(log_variance / 2) * torch.from_numpy(noise).to(mean.device)

    def _run_network(self, images: "torch.Tensor") -> "torch.Tensor":
        """(B, 3, H, W) -> the mode, or mean and log-variance in one; at the plan's precision."""
        import torch

        device, half = self._device.split(":")[0], self._encoding.precision == "bfloat16"
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            if self._encoding.autoencoder.store == "mode":
                return self._network.encode(images)
            return torch.cat(self._network.moments(images), dim=1)

    def _noise(self, key: str, mirrored: bool) -> NDArray[np.float32]:
        """The draw of an image's posterior: a function of (seed, key, orientation)."""
        purpose = "posterior of the mirror" if mirrored else "posterior"
        generator = np.random.Generator(np.random.PCG64(derive(self._encoding.seed, purpose, key)))
        return generator.standard_normal(self._encoding.latent_shape, np.float32)


@contextmanager
def _memory(device: str, images: int) -> Iterator[None]:
    """What it means that so many images (or 0: the network) do not fit.

    On a GPU it is the user's to mend. On a CPU others may have taken the memory: there it is a MemoryError, for whoever
    submits the part to try again.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        what = f"{counted(images, 'image')} at a time" if images else "the network"
        advice = f"Give a smaller --batch, such as --batch {images // 2}" if images > 1 else "Use one with more memory"
        raise LvaeError(
            f"--device {device}", f"has too little memory for {what}", f"{advice}, or free some."
        ) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise
