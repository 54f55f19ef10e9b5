"""Exact channel statistics in float64, merged without loss, and the normalization made from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lvae.manifests.errors import LvaeError

Keys = Sequence[object] | NDArray[Any]
Kind = Literal["channel", "scalar", "none", "given"]
STD_TOLERANCE = 1e-12  # relative; statistics folded again from the same numbers differ by less
BLOCK = 64  # latents whose float64 copy is held at a time

# What a byte of a pixel dataset means, u/127.5 - 1, in float64: exact statistics are made of these values.
PIXEL_VALUES: NDArray[np.float64] = np.arange(256, dtype=np.float64) / 127.5 - 1


@dataclass(frozen=True)
class MergedMean:
    """The mean of two sets together (Chan, Golub and LeVeque, 1983).

    delta: from one mean to the other. weight: what its square, or its outer product, adds to the sum of squares.
    """

    count: int
    mean: NDArray[np.float64]
    delta: NDArray[np.float64]
    weight: float


def merge_means(count: int, mean: NDArray[np.float64], other_count: int, other_mean: NDArray[np.float64]) -> MergedMean:
    together, delta = count + other_count, other_mean - mean
    share = other_count / together
    return MergedMean(together, mean + delta * share, delta, count * share)


@dataclass(frozen=True)
class ChannelMoments:
    """Count, mean, sum of squared deviations, minimum and maximum of every channel.

    count: values a channel (latents x height x width). The arrays are float64 (C,).
    """

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @classmethod
    def empty(cls, channels: int) -> Self:
        zeros = np.zeros(channels)
        return cls(0, zeros, zeros.copy(), np.full(channels, np.inf), np.full(channels, -np.inf))

    @classmethod
    def of(cls, latents: NDArray[Any]) -> Self:
        """The moments of latents (N, C, h, w); of any number of spatial axes, in fact.

        uint8 stands for pixels and counts as u/127.5 - 1.
        """
        if latents.dtype == np.uint8:
            return cls._of_pixels(latents)
        result = cls.empty(latents.shape[1])
        for start in range(0, len(latents), BLOCK):
            result = result.merge(cls._of_block(latents[start : start + BLOCK]))
        return result

    @classmethod
    def _of_block(cls, latents: NDArray[Any]) -> Self:
        values = np.array(np.moveaxis(latents, 1, 0), np.float64, order="C").reshape(latents.shape[1], -1)
        if values.shape[1] == 0:
            return cls.empty(latents.shape[1])
        mean, lowest, highest = values.mean(axis=1), values.min(axis=1), values.max(axis=1)
        deviations = np.subtract(values, mean[:, None], out=values)
        # The second term takes back what rounding of the mean put into the first (Chan, Golub and LeVeque, 1983).
        m2 = np.einsum("cn,cn->c", deviations, deviations) - deviations.sum(axis=1) ** 2 / values.shape[1]
        return cls(values.shape[1], mean, m2, lowest, highest)

    @classmethod
    def _of_pixels(cls, pixels: NDArray[np.uint8]) -> Self:
        """From the histogram: 256 values at most, so sums are exact to the last bits whatever the number of pixels."""
        channels = pixels.shape[1]
        if pixels.size == 0:
            return cls.empty(channels)
        counts = np.zeros((channels, 256), np.int64)
        for start in range(0, len(pixels), BLOCK):
            for channel in range(channels):
                counts[channel] += np.bincount(pixels[start : start + BLOCK, channel].ravel(), minlength=256)
        total = int(counts[0].sum())
        # Of whole numbers, so that a channel of one value has that value as its mean, and no deviation.
        mean = counts @ np.arange(256) / (127.5 * total) - 1
        m2 = (counts * (PIXEL_VALUES - mean[:, None]) ** 2).sum(axis=1)
        there = counts > 0
        minimum = PIXEL_VALUES[there.argmax(axis=1)]
        maximum = PIXEL_VALUES[255 - there[:, ::-1].argmax(axis=1)]
        return cls(total, mean, m2, minimum, maximum)

    @classmethod
    def of_posterior(cls, means: NDArray[Any], log_variances: NDArray[Any]) -> Self:
        """The moments of draws from diagonal Gaussians, by the law of total variance.

        The variance of a draw is the variance of the means plus the mean of the variances; minimum and maximum are
        those of the means.
        """
        moments = cls.of(means)
        within = np.zeros(means.shape[1])
        for start in range(0, len(means), BLOCK):
            block = np.exp(log_variances[start : start + BLOCK].astype(np.float64))
            within += np.moveaxis(block, 1, 0).reshape(block.shape[1], -1).sum(axis=1)
        return cls(moments.count, moments.mean, moments.m2 + within, moments.minimum, moments.maximum)

    def merge(self, other: Self) -> Self:
        """The moments of both together. Neither is changed."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        both = merge_means(self.count, self.mean, other.count, other.mean)
        return type(self)(
            both.count,
            both.mean,
            self.m2 + other.m2 + both.delta**2 * both.weight,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """The population's: divided by count."""
        result: NDArray[np.float64] = np.sqrt(np.maximum(self.m2, 0) / max(self.count, 1))
        return result

    @property
    def arrays(self) -> NDArray[np.float64]:
        """Mean, m2, minimum and maximum: (4, C)."""
        return np.stack([self.mean, self.m2, self.minimum, self.maximum])

    def to_record(self) -> "MomentsRecord":
        return MomentsRecord(
            self.count,
            *(tuple(float(value) for value in array) for array in (self.mean, self.m2, self.minimum, self.maximum)),
        )


@dataclass(frozen=True)
class MomentsRecord:
    """Channel moments as they stand in a receipt. float64 survives JSON exactly."""

    count: int
    mean: tuple[float, ...]
    m2: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]

    def to_moments(self) -> ChannelMoments:
        return ChannelMoments(
            self.count, *(np.array(a, np.float64) for a in (self.mean, self.m2, self.minimum, self.maximum))
        )


def scalar_moments(moments: ChannelMoments) -> tuple[float, float]:
    """Mean and standard deviation over all channels together."""
    first = float(moments.mean[0])
    mean = first + float((moments.mean - first).mean())  # exactly that of the channels where all are equal
    variance = float((moments.std**2 + (moments.mean - mean) ** 2).mean())
    return mean, variance**0.5


def check_normalization(text: str) -> None:
    """LvaeError for what --normalization cannot mean: no kind, no JSON, and no file that is there."""
    if text in ("channel", "scalar", "none") or text.lstrip().startswith("{") or Path(text).exists():
        return
    raise LvaeError(f"--normalization {text}", "is none of channel, scalar, none, and no file that is there")


@dataclass(frozen=True)
class Normalization:
    """latents = (raw - shift) / scale, a shift and a scale a channel."""

    kind: Kind
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, kind: Kind, moments: ChannelMoments) -> Self:
        """From statistics. A channel that never changes is only shifted: its scale is 1."""
        channels = len(moments.mean)
        if kind == "none":
            return cls(kind, (0.0,) * channels, (1.0,) * channels)
        if kind == "scalar":
            mean, std = scalar_moments(moments)
            return cls(kind, (mean,) * channels, (std if std > 0 else 1.0,) * channels)
        if kind == "channel":
            scale = np.where(moments.std > 0, moments.std, 1.0)
            return cls(kind, tuple(map(float, moments.mean)), tuple(map(float, scale)))
        raise LvaeError(
            "", f"normalization {kind!r} cannot be computed", "Choose channel, scalar or none, or name a JSON file."
        )

    @classmethod
    def given(cls, shift: ArrayLike, scale: ArrayLike, channels: int) -> Self:
        """A user's own numbers: one each, or one a channel."""
        try:
            shifts = np.broadcast_to(np.asarray(shift, np.float64), (channels,))
            scales = np.broadcast_to(np.asarray(scale, np.float64), (channels,))
        except (TypeError, ValueError) as error:
            raise LvaeError("normalization", f"shift and scale must be numbers, or lists of {channels}") from error
        if not (np.isfinite(shifts).all() and np.isfinite(scales).all() and (scales > 0).all()):
            raise LvaeError("normalization", "shift must be finite, scale finite and positive")
        return cls("given", tuple(map(float, shifts)), tuple(map(float, scales)))

    def normalize(self, raw: NDArray[Any], dtype: str) -> NDArray[Any]:
        """(N, C, h, w) raw latents to stored ones, computed in float64 and rounded once."""
        shift, scale = _columns(self.shift, raw.ndim), _columns(self.scale, raw.ndim)
        values = PIXEL_VALUES[raw] if raw.dtype == np.uint8 else raw.astype(np.float64)
        values -= shift
        values /= scale
        with np.errstate(over="ignore"):
            result: NDArray[Any] = values.astype(dtype)
        if not np.isfinite(result).all():
            raise LvaeError(
                "", f"normalized latents do not fit {dtype}", "Use --dtype float32 or another normalization."
            )
        return result

    def normalize_log_variances(self, raw: NDArray[Any], dtype: str) -> NDArray[Any]:
        """raw - 2 ln scale: the log-variances of the normalized latents."""
        result: NDArray[Any] = (raw.astype(np.float64) - 2 * np.log(_columns(self.scale, raw.ndim))).astype(dtype)
        return result

    def denormalize(self, latents: NDArray[Any]) -> NDArray[np.float32]:
        """Back to what the autoencoder gave: float32."""
        scale, shift = _columns(self.scale, latents.ndim), _columns(self.shift, latents.ndim)
        result: NDArray[np.float32] = (latents.astype(np.float64) * scale + shift).astype(np.float32)
        return result


def _columns(values: tuple[float, ...], dimensions: int) -> NDArray[np.float64]:
    """A value a channel, shaped to meet (N, C, h, w) or (C, h, w)."""
    return np.asarray(values, np.float64).reshape(-1, *(1,) * (2 if dimensions >= 3 else 0))


def require_finite(rows: NDArray[Any], where: object, what: str, keys: Keys, advice: str) -> None:
    """LvaeError naming by its key the first of these rows (n, ...) that holds NaN or infinity."""
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise LvaeError(where, f"the {what} {keys[int(np.argmin(finite))]} are not finite", advice)
