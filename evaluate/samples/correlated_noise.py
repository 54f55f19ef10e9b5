"""Noise for a model's output that hangs together as what the model leaves out of latents does.

`evaluate.manipulation.residuals` measures that; a run keeps it in a file for each of its weights.
"""

import hashlib
import math
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.train.runs.run import residuals_file

KEPT = 512  # principal components; what they do not explain of a number's variance is independent noise
PRECISIONS = (torch.float32, torch.float16)  # as measured; as packaged models keep it


def write_residuals(run: Path, model_sha256: str, covariance: NDArray[np.float64]) -> None:
    """Keep the principal components of a covariance (n, n), and the variance beside them, in the run."""
    variances, vectors = np.linalg.eigh(covariance)
    scales = np.sqrt(variances[::-1][:KEPT].clip(min=0))
    components = vectors.T[::-1][:KEPT] * scales[:, None]
    rest = (np.diag(covariance) - (components**2).sum(0)).clip(min=0)
    tensors = {"components": components, "rest": np.sqrt(rest)}
    whole = {name: torch.from_numpy(np.asarray(each, np.float32, order="C")) for name, each in tensors.items()}
    Folder(run).write(residuals_file(model_sha256), safetensors.torch.save(whole))


class CorrelatedNoise:
    """Noise with a covariance: principal components (k, n), and deviations (n,) of what is independent beside them."""

    def __init__(self, components: Tensor, rest: Tensor, sha256: str):
        """sha256: of the file that they come from."""
        self._components, self._rest, self.sha256 = components, rest, sha256

    @classmethod
    def read(cls, run: Path, model_sha256: str, shape: tuple[int, int, int]) -> Self:
        """As measured for these weights; LvaeError where nobody did."""
        name = residuals_file(model_sha256)
        data = Folder(run).read_if_there(name)
        if data is None:
            problem = "has no measured residuals of these weights, which correlated noise is made from"
            raise LvaeError(run, problem, f"Measure them: lvae residuals {run} DATASET.")
        again = f"Remove it and measure anew: lvae residuals {run} DATASET."
        try:
            found = safetensors.torch.load(data)
        except SafetensorError as error:
            raise LvaeError(run / name, f"is no safetensors file ({error})", again) from None
        numbers = math.prod(shape)
        wanted = {"components": (min(KEPT, numbers), numbers), "rest": (numbers,)}
        for each, size in wanted.items():
            tensor = found.get(each)
            if tensor is None or tensor.dtype not in PRECISIONS or tuple(tensor.shape) != size:
                raise LvaeError(run / name, f"holds no {each} for latents of {numbers} numbers", again)
            if not bool(tensor.isfinite().all()):
                raise LvaeError(run / name, f"{each} holds numbers that are not finite", again)
        return cls(found["components"].float(), found["rest"].float(), hashlib.sha256(data).hexdigest())

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """One latent's, of its shape (d, h, w)."""
        along = torch.randn(len(self._components), generator=generator)
        beside = torch.randn(len(self._rest), generator=generator)
        return (along @ self._components + beside * self._rest).reshape(shape)
