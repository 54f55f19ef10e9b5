"""What a model is made of and how it is trained: two frozen records, checked, kept as JSON."""

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

from lvae.manifests.errors import LvaeError
from lvae.manifests.records import require_real, require_whole

MAX_WIDTH = 8192  # channels of one layer: a description from elsewhere must not exhaust the memory
MAX_LAYERS = 1024  # groups, and encoder blocks
MAX_RESOLUTION = 4096
MAX_CLASSES = 1_000_000

PER_RESOLUTION = ("multipliers", "ffn_ratios", "groups", "encoder_blocks", "attentions", "heads")


@dataclass(frozen=True)
class ModelConfig:
    """An architecture. Every tuple has one entry per resolution, from the highest to the lowest.

    resolution, channels: of the latents, (channels, resolution, resolution).
    width, encoder_width: the generator's and the encoder's; level i has width * multipliers[i]. multipliers: of both.
    ffn_ratios: hidden width of the feed-forward half of a residual block over its width; 0: blocks without that half.
    groups, encoder_blocks: stochastic groups and encoder blocks of a resolution.
    attentions, heads: attention layers wanted among these (see `attention_places`), and their heads.
    z_channels: channels of the variable of one group.
    classes: 0 for an unconditional model.
    hierarchical_prior: a learned prior per group, given the groups above; otherwise N(0, I).
    attention: "softmax", "normalized" (the same with queries and keys of one length, times a scale that learns), or
        "published": what the published code computes in its place where there are several heads.
    low_resolution_factor: an upsampler, given the image reduced by this factor; its lowest resolution is that image's.
    """

    resolution: int
    channels: int
    width: int
    encoder_width: int
    multipliers: tuple[int, ...]
    ffn_ratios: tuple[int, ...]
    groups: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    attentions: tuple[int, ...]
    heads: tuple[int, ...]
    z_channels: int
    classes: int
    hierarchical_prior: bool
    attention: Literal["softmax", "normalized", "published"] = "softmax"
    low_resolution_factor: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("resolution", 4, MAX_RESOLUTION),
            ("channels", 1, MAX_WIDTH),
            ("width", 1, MAX_WIDTH),
            ("encoder_width", 1, MAX_WIDTH),
            ("z_channels", 1, MAX_WIDTH),
            ("classes", 0, MAX_CLASSES),
        ):
            require_whole(name, getattr(self, name), least, most)
        for name in PER_RESOLUTION:
            self._check_list(name, least=0 if name in ("ffn_ratios", "attentions", "heads") else 1)
        if type(self.hierarchical_prior) is not bool:
            raise LvaeError("", f"hierarchical_prior must be true or false, not {self.hierarchical_prior!r:.60}")
        if self.attention not in ("softmax", "normalized", "published"):
            raise LvaeError("", f"attention must be softmax, normalized or published, not {self.attention!r:.60}")
        self._check_resolutions()
        self._check_widths()
        self._check_upsampler()

    def _check_list(self, name: str, least: int) -> None:
        values = getattr(self, name)
        if isinstance(values, list):  # from Python; JSON's lists arrive as tuples
            values = tuple(values)
            object.__setattr__(self, name, values)
        if not isinstance(values, tuple) or not values:
            raise LvaeError("", f"{name} must be a list with one whole number per resolution, not {values!r:.60}")
        if len(values) != len(self.multipliers):
            raise LvaeError(
                f"{name} has {len(values)} entries and multipliers {len(self.multipliers)}", "give one per resolution"
            )
        for value in values:
            require_whole(f"every entry of {name}", value, least, MAX_LAYERS)
        if sum(values) > MAX_LAYERS:
            raise LvaeError(name, f"{sum(values)} in all is more than {MAX_LAYERS}", "Take fewer.")

    def _check_resolutions(self) -> None:
        steps = self.resolutions
        if any((high, low) != (4, 1) and high != 2 * low for high, low in pairwise(steps)):
            raise LvaeError(
                f"resolution {self.resolution} gives {', '.join(map(str, steps))} over {len(steps)} levels",
                "each must be half of the one above, and 1 follows 4",
                "Take 4, 8, 16, 32, ... and as many levels as that has.",
            )

    def _check_widths(self) -> None:
        for multiplier, ratio in zip(self.multipliers, self.ffn_ratios, strict=True):
            widest = max(self.width, self.encoder_width) * multiplier * max(ratio, 1)
            if widest > 4 * MAX_WIDTH:
                raise LvaeError(
                    "", f"a layer of {widest} channels is wider than {4 * MAX_WIDTH}", "Take a smaller width."
                )
        for index, (attentions, heads) in enumerate(zip(self.attentions, self.heads, strict=True)):
            widths = self.widths[index], self.encoder_widths[index]
            if attentions and (heads < 1 or any(width % heads for width in widths)):
                raise LvaeError(
                    "heads",
                    (
                        f"{heads} at resolution {self.resolutions[index]} does not divide the widths "
                        f"{widths[0]} (generator) and {widths[1]} (encoder) there"
                    ),
                    "Take a divisor of both.",
                )

    def _check_upsampler(self) -> None:
        factor = self.low_resolution_factor
        if factor is None:
            return
        require_whole("low_resolution_factor", factor, 1, MAX_RESOLUTION)
        if factor * self.resolutions[-1] != self.resolution:
            raise LvaeError(
                f"low_resolution_factor {factor}",
                (f"the lowest resolution is {self.resolutions[-1]}, but must be {self.resolution}/{factor}"),
                "Change the factor or the number of levels.",
            )
        if self.classes or self.hierarchical_prior:
            raise LvaeError(
                "", "an upsampler has no classes and no hierarchical prior", "Set classes 0, the other false."
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Highest first. What would fall below 4 is 1."""
        result, resolution = [], self.resolution
        for _ in self.multipliers:
            resolution = resolution if resolution >= 4 else 1
            result.append(resolution)
            resolution //= 2
        return tuple(result)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the generator's state, highest resolution first."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        return tuple(self.encoder_width * multiplier for multiplier in self.multipliers)

    def sizes(self, size: tuple[int, int] | None = None) -> tuple[tuple[int, int], ...]:
        """Height and width of the generator's state, highest resolution first, for latents of `size`.

        Other sizes than the model's own need a lowest resolution of 1, whose one position stands for all of them.
        """
        if size is None:
            return tuple((resolution, resolution) for resolution in self.resolutions)
        step = self.resolution // 4
        if self.resolutions[-1] != 1 or any(side < 1 or side % step for side in size):
            only = " only" if self.resolutions[-1] == 1 else f", and only {self.resolution}x{self.resolution}"
            raise LvaeError(f"size {size[0]}x{size[1]}", f"this model generates multiples of {step}{only}")
        height, width = size
        return tuple(
            (height * resolution // self.resolution, width * resolution // self.resolution)
            if resolution > 1
            else (1, 1)
            for resolution in self.resolutions
        )

    @property
    def group_resolutions(self) -> tuple[int, ...]:
        """The resolution of every stochastic group in the order they are drawn: lowest first."""
        pairs = zip(reversed(self.resolutions), reversed(self.groups), strict=True)
        return tuple(resolution for resolution, count in pairs for _ in range(count))


def attention_places(layers: int, attentions: int) -> frozenset[int]:
    """After which of `layers` layers attention follows; what rounds to the same place collapses.

    The generator counts its layers from 1, the encoder from 0, both from this one set.
    """
    return frozenset(round(i * layers / (attentions + 1)) for i in range(1, attentions + 1))


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Losses are nats per image, an update is one step of the optimizer.

    updates: of the whole run. batch, accumulate: one update sees batch * accumulate latents, whatever they are computed
        by and in which portions.
    learning_rate: the highest. learning_rate_schedule: "constant", or "cosine" down to learning_rate_minimum at
        decay_updates; both after warm_up_updates that begin with a rate of 0. learning_rate_minimum: where "cosine"
        ends. warm_up_updates: over which the rate grows from 0. decay_updates: over which "cosine" falls.
    beta1, beta2, epsilon: Adam's. moments: how Adam's two moments are kept between updates.
    ema: decay of the average of the weights, per update. more_emas: decays of further averages, kept beside it.
    ema_warm_up: whether averages begin short, with decay (1 + u) / (10 + u) after u updates where that is less.
    sigma_q: std of the reconstruction target, in units of the normalized latents.
    rate_schedule: share of the rate that each group should carry: "shifted_exp" with rate_scale and rate_shift, or
        "constant_per" with rate_per_resolution (from the highest resolution to the lowest). rate_scale, rate_shift: of
        "shifted_exp". rate_per_resolution: of "constant_per".
    rate_lower, rate_upper, rate_floor: see `losses.kl_weights`; the schedule's shares sum to rate_lower percent.
    spectral_weight: of the sum of resolution * sigma. singular_vectors: whether the power iteration behind sigma keeps
        its vectors between updates, and so converges, or draws them anew each time ("redrawn", for comparisons).
    gradient_clip: a gradient with a larger norm than this is scaled down to it; null: none is (the paper skips).
    skip_threshold: an update whose gradient norm exceeds this many times channels * resolution^2 is skipped.
    label_drop: how often prior and shared blocks are not told the label.
    clip: latents are clipped to +-clip; null leaves them alone.
    precision: of matrix products; parameters, losses and Gaussians are float32 always. "auto" is bfloat16 on GPUs and
        TPUs, float32 on CPUs.
    recompute_from: activations of layers at this resolution and above are computed anew in the backward pass.
    seed: of weights, order and noise.
    """

    updates: int = 250_000
    batch: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-4
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    learning_rate_minimum: float = 0.0
    warm_up_updates: int = 100
    decay_updates: int = 1_200_000
    beta1: float = 0.9
    beta2: float = 0.9
    epsilon: float = 1e-8
    moments: Literal["float32", "bfloat16"] = "float32"
    ema: float = 0.9999
    sigma_q: float = 0.07
    rate_schedule: Literal["shifted_exp", "constant_per"] = "shifted_exp"
    rate_scale: float = 1000.0
    rate_shift: float = 10.0
    rate_per_resolution: tuple[float, ...] = ()
    rate_lower: float = 66.7
    rate_upper: float = 2.0
    rate_floor: float = 0.1
    spectral_weight: float = 0.1
    skip_threshold: float = 300.0
    label_drop: float = 0.1
    clip: float | None = 4.0
    precision: Literal["float32", "tf32", "bfloat16", "auto"] = "auto"
    recompute_from: int | None = None
    seed: int = 0
    more_emas: tuple[float, ...] = ()
    ema_warm_up: bool = False
    gradient_clip: float | None = None
    singular_vectors: Literal["kept", "redrawn"] = "kept"

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "accumulate", "decay_updates"):
            require_whole(name, getattr(self, name), 1, 1 << 62)
        require_whole("warm_up_updates", self.warm_up_updates, 0, 1 << 62)
        require_whole("seed", self.seed, 0, (1 << 63) - 1)
        for name in ("learning_rate", "epsilon", "sigma_q", "rate_scale", "rate_lower", "skip_threshold"):
            require_real(name, getattr(self, name), above=0.0)
        for name in ("learning_rate_minimum", "rate_shift", "rate_floor", "spectral_weight"):
            require_real(name, getattr(self, name), least=0.0)
        require_real("rate_upper", self.rate_upper, least=1.0)
        for name in ("beta1", "beta2", "ema"):
            require_real(name, getattr(self, name), least=0.0, below=1.0)
        require_real("label_drop", self.label_drop, least=0.0, most=1.0)
        for name in ("clip", "gradient_clip"):
            if getattr(self, name) is not None:
                require_real(name, getattr(self, name), above=0.0)
        object.__setattr__(self, "more_emas", tuple(self.more_emas))  # a list from Python
        for decay in self.more_emas:
            require_real("every entry of more_emas", decay, least=0.0, below=1.0)
        if len({self.ema, *self.more_emas}) <= len(self.more_emas):
            raise LvaeError("", "more_emas repeats a decay", "Name each once.")
        if self.recompute_from is not None:
            require_whole("recompute_from", self.recompute_from, 1, MAX_RESOLUTION)
        if self.learning_rate_minimum > self.learning_rate:
            raise LvaeError(
                "", (f"learning_rate_minimum {self.learning_rate_minimum} exceeds learning_rate {self.learning_rate}")
            )
        for name, allowed in (
            ("learning_rate_schedule", ("constant", "cosine")),
            ("moments", ("float32", "bfloat16")),
            ("rate_schedule", ("shifted_exp", "constant_per")),
            ("precision", ("float32", "tf32", "bfloat16", "auto")),
            ("singular_vectors", ("kept", "redrawn")),
        ):
            if getattr(self, name) not in allowed:
                raise LvaeError("", f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r:.60}")
        self._check_rates()

    def _check_rates(self) -> None:
        object.__setattr__(self, "rate_per_resolution", tuple(self.rate_per_resolution))  # a list from Python
        for value in self.rate_per_resolution:
            require_real("every entry of rate_per_resolution", value, above=0.0)
        if (self.rate_schedule == "constant_per") != bool(self.rate_per_resolution):
            raise LvaeError(
                "",
                "rate_per_resolution belongs to rate_schedule constant_per, a number per resolution",
                "Set both or none.",
            )

    @property
    def update_size(self) -> int:
        """Latents that one update sees."""
        return self.batch * self.accumulate

    @property
    def averages(self) -> dict[str, float]:
        """The averages of the weights, by the name of their group in a checkpoint, and their decays."""
        more = {f"ema_{f'{decay:.12f}'.rstrip('0').replace('.', '')}": decay for decay in self.more_emas}
        return {"ema": self.ema, **more}

    @property
    def rate_arguments(self) -> dict[str, float] | tuple[float, ...]:
        """What `losses.rate_schedule` wants beside the kind."""
        if self.rate_schedule == "constant_per":
            return self.rate_per_resolution
        return {"scale": self.rate_scale, "shift": self.rate_shift}


def check_together(model: ModelConfig, training: TrainConfig) -> None:
    """What neither record can know alone."""
    if training.rate_per_resolution and len(training.rate_per_resolution) != len(model.groups):
        raise LvaeError(
            "",
            (
                f"rate_per_resolution has {len(training.rate_per_resolution)} entries, the model "
                f"{len(model.groups)} resolutions"
            ),
            "Give one per resolution, from the highest.",
        )


def names_of(record: type[ModelConfig] | type[TrainConfig]) -> tuple[str, ...]:
    """The names that `--set` knows."""
    return tuple(field.name for field in fields(record))
