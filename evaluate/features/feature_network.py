"""Networks that turn pictures into features: the FID Inception network, EfficientNet-Lite0, or a user's TorchScript."""

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lvae.encode.quality.efficientnet import NAME, SHA256, is_installed, weights_path
from lvae.evaluate.features import efficientnet
from lvae.evaluate.inception import InceptionFID, Mode
from lvae.evaluate.pictures.labels import PictureLabels
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import file_sha256


@dataclass(frozen=True)
class PictureFeatures:
    """pooled (N, d) float32; spatial and logits of the Inception network alone, see `inception.Features`.

    labels: of the pictures, where they have some.
    """

    pooled: NDArray[np.float32]
    spatial: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None
    labels: PictureLabels | None = None

    @property
    def arrays(self) -> list[str]:
        """Names of what there is."""
        return [name for name in ("pooled", "spatial", "logits") if getattr(self, name) is not None]

    def rows(self, chosen: NDArray[np.int64]) -> "PictureFeatures":
        """Of some of the pictures."""
        spatial, logits = (None if one is None else one[chosen] for one in (self.spatial, self.logits))
        labels = None if self.labels is None else self.labels.rows(chosen)
        return PictureFeatures(self.pooled[chosen], spatial, logits, labels)


@dataclass(frozen=True)
class FeatureNetwork:
    """mode: how pictures are prepared; "own" where a user's network does it.

    network: None where the features were computed before, and the network is known by name only.
    """

    name: Literal["inception", "efficientnet-lite0", "own"]
    sha256: str
    mode: str
    network: Any
    device: str

    def __call__(self, images: NDArray[np.uint8]) -> PictureFeatures:
        """uint8 (N, H, W, 3), of any size that the network takes."""
        if self.network is None:
            raise LvaeError("--features", "is needed for pictures", "Give the network that the stored features are of.")
        if self.name == "inception":
            found = self.network(images, self.mode)
            return PictureFeatures(found.pooled, found.spatial, found.logits)
        if self.name == "efficientnet-lite0":
            return PictureFeatures(self.network(images), None, None)
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(self.device)
            try:
                out = self.network(pixels)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise LvaeError(
                    "--features", f"the network does not take uint8 {tuple(pixels.shape)}: {reason}"
                ) from None
        if not isinstance(out, torch.Tensor) or out.dim() != 2 or len(out) != len(images):
            shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise LvaeError("--features", f"the network gives {shape} for {len(images)} pictures, not (N, features)")
        return PictureFeatures(out.float().cpu().numpy(), None, None)

    def logits(self, features: PictureFeatures) -> NDArray[np.float32] | None:
        """(N, classes of the network) of features that it gave; None where it has no classifier, or that is not here.

        The classifier of EfficientNet-Lite0 is linear in the features, so features in a file have logits, too.
        """
        if features.logits is not None or self.name != "efficientnet-lite0":
            return features.logits
        return efficientnet.classify(features.pooled) if is_installed() else None


def network_path(features: Path) -> Path:
    """The file of a feature network that is given by name or by file. LvaeError where there is none."""
    if features.is_file():
        return features
    if str(features) == NAME:
        return weights_path()
    raise LvaeError(features, f"no such file. --features is {NAME} or the file of a feature network")


def open_network(features: Path, mode: Mode, device: str = "cpu") -> FeatureNetwork:
    """EfficientNet-Lite0 by name or by its weights; the Inception network with the weights in a file; or a TorchScript
    program: uint8 (N, 3, H, W) -> (N, d).

    A TorchScript file is a program, run by torch's own interpreter: it is as trustworthy as its author.
    """
    path = network_path(features)
    if device.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    sha256 = file_sha256(path)
    if sha256 == SHA256:
        lite = efficientnet.EfficientNetLite0.load(path, device)
        return FeatureNetwork("efficientnet-lite0", sha256, efficientnet.MODE, lite, device)
    names = _members(path)
    if any(name.endswith("/archive_format") or "/models/" in name for name in names):
        raise LvaeError(
            path,
            "a torch.export file, which torch reads by unpickling: never done here",
            "Save torch.jit.trace(network, example) instead.",
        )
    if any("/code/" in name for name in names):
        try:
            with warnings.catch_warnings():  # torch prefers torch.export, see above
                warnings.simplefilter("ignore", DeprecationWarning)
                program = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise LvaeError(path, f"not a whole TorchScript file ({str(error).splitlines()[0]:.120})") from None
        return FeatureNetwork("own", sha256, "own", program, device)
    return FeatureNetwork("inception", sha256, mode, InceptionFID.load(path).to(device), device)


def named_network(mode: str, sha256: str) -> FeatureNetwork:
    """What stored features are of: it computes nothing."""
    if mode == efficientnet.MODE:
        return FeatureNetwork("efficientnet-lite0", sha256, mode, None, "file")
    return FeatureNetwork("own" if mode == "own" else "inception", sha256, mode, None, "file")


def _members(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
