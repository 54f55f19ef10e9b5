"""A network on its device: from pixels to what a raw part stores."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.devices import check_precision
from lvae.encode.networks import rgb
from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import KEEPING
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
PART_SECONDS = 60  # of work in one part, about
PART_BYTES = 64 << 20  # of raw latents in one part, at most
LARGEST_BATCH = 32
BATCHES_AHEAD = 4  # of opened images waiting, where the network computes on another device


def choose_batch(multiply_adds: int, device: str) -> int:
    """How many images share a forward pass where the user does not say."""
    if device != "cpu" or multiply_adds == 0:
        return LARGEST_BATCH
    return int(np.clip(FORWARD_MULTIPLY_ADDS // multiply_adds, 1, LARGEST_BATCH))


def choose_part_size(multiply_adds: int, raw_bytes: int, orientations: int) -> int:
    """Images in a part where the user does not say: a power of two, about a minute of one core's work.

    raw_bytes: of one raw latent. A function of the autoencoder's cost alone, so that every machine cuts alike.
    """
    seconds = OPEN_SECONDS + orientations * multiply_adds / MULTIPLY_ADDS_PER_SECOND
    size = max(1, min(PART_SECONDS / seconds, PART_BYTES / (raw_bytes * orientations)))
    return 1 << round(math.log2(size))


def weights_in(folder: Folder, encoding: Encoding) -> str | None:
    """Where a dataset keeps its autoencoder's weights; None for pixels."""
    name = encoding.autoencoder.weights_file
    return None if name is None else str(folder.local(name))


class Encoder:
    """Encodes batches of pictures as a dataset's plan says.

    ahead: batches of images worth opening beforehand: none where the network takes the same core.
    """

    def __init__(self, encoding: Encoding, network: "Autoencoder", device: str = "cpu"):
        self._encoding, self._device = encoding, device
        self._pixels = encoding.autoencoder.pixels
        self.ahead = 0 if device == "cpu" else BATCHES_AHEAD
        self._network = network
        if not self._pixels:
            self._prepare()

    def _prepare(self) -> None:
        import torch

        torch.set_num_threads(self._encoding.threads)
        check_precision(self._encoding.precision, self._device)
        with _memory(self._device, 0):
            self._network = self._network.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._encoding.precision == "winograd":
            from lvae.encode.networks.winograd import use_winograd

            use_winograd(self._network.get_submodule("encoder"))
        if self._device != "cpu":
            tf32 = self._encoding.precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32

    def encode(self, pixels: NDArray[np.uint8], keys: Sequence[str]) -> NDArray[Any]:
        """uint8 (B, H, W, 3) -> (B, orientations, C, h, w) as the raw part stores it: the image, then its mirror."""
        orientations = [pixels, pixels[:, :, ::-1]] if self._encoding.image.mirrored else [pixels]
        with _memory(self._device, len(pixels)):
            latents = [
                self._one_orientation(np.ascontiguousarray(view), keys, n == 1) for n, view in enumerate(orientations)
            ]
        return np.stack(latents, axis=1)

    def _one_orientation(self, pixels: NDArray[np.uint8], keys: Sequence[str], mirrored: bool) -> NDArray[Any]:
        if self._pixels:
            return rgb.reduce(pixels, self._encoding.autoencoder.downsampling_factor)
        import torch

        torch.set_num_threads(self._encoding.threads)  # counts for the calling thread alone, and engines have several
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
        with torch.inference_mode(), self._autocast():
            latents = self._stored(images, keys, mirrored)
        result: NDArray[np.float32] = latents.to("cpu", torch.float32).numpy()
        return result

    def _autocast(self) -> "torch.autocast":
        import torch

        device = self._device.split(":")[0]
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self._encoding.precision == "bfloat16")

    def _stored(self, images: "torch.Tensor", keys: Sequence[str], mirrored: bool) -> "torch.Tensor":
        import torch

        store = self._encoding.autoencoder.store
        if store == "mode":
            return self._network.encode(images)
        mean, log_variance = self._network.moments(images)
        if store == "moments":
            return torch.cat([mean, log_variance], dim=1)
        noise = torch.from_numpy(np.stack([self._noise(key, mirrored) for key in keys]))
        return mean + torch.exp(log_variance.float() / 2) * noise.to(mean.device)

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


def keep_memory() -> dict[str, str]:
    """Environment for processes that encode: one thread, and glibc keeping what it has."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {name: value for name, value in {**KEEPING, **threads}.items() if name not in os.environ}
