"""The hierarchical VAE: infer, reconstruct, sample with any z given; the upsampler too.

Attributes are named so that `state_dict` has the names of the published torch files. `layer_list` runs from the lowest
resolution to the highest, `encoder.encoder_levels` from the highest to the lowest, as there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.config import ModelConfig, attention_places
from lvae.train.network.choices import UNGUIDED, Guidance, Weights, choice, per_group, weights_per_group
from lvae.train.network.gaussians import Gaussian, rate
from lvae.train.network.groups import StochasticGroup
from lvae.train.network.layers import (
    Attention,
    Convolution,
    Dense,
    Downsample,
    LabelEmbedding,
    QueryKeyNorm,
    RegularizedConvolution,
    ResidualBlock,
    Upsample,
    apply,
    as_computed,
    fan_out,
    lay_out,
    power_iteration,
    reduce_image,
    without_autocast,
)
from lvae.train.network.noise import draw_noise


class Output(NamedTuple):
    """mean, log_variance: (B, d, R, R). rates: (L, B) nats. spectral: scalar, sum of resolution * sigma."""

    mean: Tensor
    log_variance: Tensor
    rates: Tensor
    spectral: Tensor


class Inference(NamedTuple):
    """What the encoder says of images, a list over groups each, lowest resolution first.

    A group's posterior and prior depend on the z drawn above it.
    """

    posteriors: list[Gaussian]
    priors: list[Gaussian]
    z: list[Tensor]

    @property
    def noise(self) -> list[Tensor]:
        """Every z as standardized noise under its prior: what `decode` makes the same z of."""
        return [prior.standardize(z) for prior, z in zip(self.priors, self.z, strict=True)]

    @property
    def rates(self) -> Tensor:
        """(L, B), nats."""
        return torch.stack([rate(q, p) for q, p in zip(self.posteriors, self.priors, strict=True)])


class Decoded(NamedTuple):
    """mean, log_variance: (B, d, H, W); priors (guided, where guidance was asked for) and z of every group."""

    mean: Tensor
    log_variance: Tensor
    priors: list[Gaussian]
    z: list[Tensor]

    @property
    def noise(self) -> list[Tensor]:
        """Every z as standardized noise under its prior."""
        return [prior.standardize(z) for prior, z in zip(self.priors, self.z, strict=True)]


class Asked(NamedTuple):
    """What is to be generated; see `HierarchicalVAE.decode`."""

    z: Sequence[Tensor | None]
    labels: Tensor | None = None
    noise: Sequence[Tensor] | None = None
    keep: Sequence[Tensor | None] | None = None
    guidance: Guidance = UNGUIDED
    low_resolution: Tensor | None = None
    size: tuple[int, int] | None = None


class Trail:
    """What a generation came to before each of its groups, and their priors and z: another one may begin in between."""

    def __init__(self) -> None:
        self.states: list[tuple[int, Tensor, Tensor | None]] = []  # place among the layers, state, label
        self.priors: list[Gaussian] = []
        self.z: list[Tensor] = []

    def cut(self, groups: int) -> None:
        """Forget all but the first so many groups."""
        for kept in (self.states, self.priors, self.z):
            del kept[groups:]


class EncoderLevel(nn.Module):
    """The encoder's blocks at level i of `config`, then the way to the next level."""

    def __init__(self, config: ModelConfig, level: int):
        super().__init__()
        self.resolution = config.resolutions[level]
        width, kernel = config.encoder_widths[level], 3 if self.resolution >= 4 else 1
        label_width = config.widths[-1] if config.classes else None
        scale = sum(config.encoder_blocks) ** -0.5
        places = attention_places(config.encoder_blocks[level], config.attentions[level])
        layers: list[nn.Module] = []
        for index in range(config.encoder_blocks[level]):
            layers.append(ResidualBlock(width, width, config.ffn_ratios[level], kernel, label_width, scale=scale))
            if index in places:
                layers.append(Attention(width, config.heads[level], config.attention))
        if level + 1 < len(config.groups):
            factor = self.resolution // config.resolutions[level + 1]
            layers.append(Downsample(width, config.encoder_widths[level + 1], factor))
        self.layer_list = nn.ModuleList(layers)

    def forward(self, x: Tensor, label: Tensor | None, recompute: bool) -> tuple[Tensor, Tensor]:
        """(B, E, r, r) -> the activation for the generator, and the next level's input."""
        activation = x
        for layer in self.layer_list:
            if isinstance(layer, Downsample):
                return activation, layer(activation)
            inputs = (activation, label) if isinstance(layer, ResidualBlock) else (activation,)
            activation = apply(layer, inputs, recompute)
        return activation, activation


class Encoder(nn.Module):
    """Bottom-up: latents (B, d, R, R) -> one activation per resolution."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.in_proj = Convolution(config.channels, config.encoder_widths[0], 3)
        self.encoder_levels = nn.ModuleList(EncoderLevel(config, level) for level in range(len(config.groups)))

    def forward(
        self, x: Tensor, label: Tensor | None, recompute_from: int | None = None, one_layout: bool = False
    ) -> dict[int, Tensor]:
        """label: (B, D), always the true one. -> resolution: (B, E, r, r)."""
        x = self.in_proj(x)
        activations = {}
        for level in self.encoder_levels:
            assert isinstance(level, EncoderLevel)
            recompute = recompute_from is not None and level.resolution >= recompute_from
            activations[level.resolution], x = level(lay_out(x) if one_layout else x, label, recompute)
        return activations


class GeneratorLevel(nn.Module):
    """The generator's layers at level i of `config`, then the way to the level above."""

    def __init__(self, config: ModelConfig, level: int):
        super().__init__()
        self.resolution = config.resolutions[level]
        places = attention_places(config.groups[level], config.attentions[level])
        layers: list[nn.Module] = []
        for number in range(1, config.groups[level] + 1):
            layers.append(StochasticGroup(config, level))
            if number in places:
                layers.append(Attention(config.widths[level], config.heads[level], config.attention))
        if level > 0:
            layers.append(Upsample(config.widths[level], config.widths[level - 1]))
        self.layer_list = nn.ModuleList(layers)


class HierarchicalVAE(nn.Module):
    """A deep VAE over latents (or pixels) of `config.channels` x `config.resolution` x `config.resolution`.

    Weights are a function of `seed`: nobody's random state is touched. On torch's meta device nothing is allocated.
    recompute_from: layers at this resolution and above keep no activations for the backward pass; values do not change.

    one_layout: whether `forward` gives all layers of a resolution tensors of one layout, which compiled ones need.
    penalty: what `forward` gives as `spectral`: that, or what somebody else has made of it already.

    Labels are int (B,) and go unused by an unconditional model; None and negative ones mean "no label". Noise is a list
    as `noise.draw_noise` gives it; None stands for draw_noise(config, range(B)).
    """

    def __init__(self, config: ModelConfig, seed: int = 0, recompute_from: int | None = None):
        super().__init__()
        self.config = config
        self.recompute_from = recompute_from
        self.one_layout, self.penalty = False, self.spectral
        lowest = config.widths[-1]
        self.initial_x = self.inproj = self.embed = None
        if config.low_resolution_factor is None:
            self.initial_x = nn.Parameter(torch.empty(1, lowest, config.resolutions[-1], config.resolutions[-1]))
        else:
            self.inproj = Convolution(config.channels, lowest)
        if config.classes:
            self.embed = LabelEmbedding(config.classes, lowest)
        self.encoder = Encoder(config)
        self.layer_list = nn.ModuleList(GeneratorLevel(config, level) for level in reversed(range(len(config.groups))))
        self.outproj = Convolution(config.widths[0], 2 * config.channels)
        if not self.outproj.weight.is_meta:
            self.initialize(seed)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Fill all weights and vectors. Each is a function of (seed, its name), drawn on the CPU."""
        for name, module in self.named_modules():
            if isinstance(module, Convolution | Dense | LabelEmbedding | RegularizedConvolution | QueryKeyNorm):
                module.initialize(torch.Generator().manual_seed(derive(seed, "weights", name)))
        if self.initial_x is not None:
            self.initial_x.zero_()

    def forward(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        drop: Tensor | None = None,
        low_resolution: Tensor | None = None,
    ) -> Output:
        """Latents (B, d, R, R) through posterior, prior and generator.

        drop: bool (B,), whose label prior and shared blocks do not hear. low_resolution: (B, d, R/f, R/f), an
        upsampler's; None reduces x (bilinear, antialiased).
        """
        noise, classes = self._noise(noise, len(x)), self._classes(labels, len(x))
        label = self._embed(classes)
        told = label if drop is None else self._embed(classes, drop)
        activations = self.encoder(x, label, self.recompute_from, self.one_layout)
        state = self._start(len(x), self.reduce(x, low_resolution))
        groups = len(noise)
        labels_of, told_to = [label] * groups, [told] * groups
        if self.one_layout:
            state, labels_of, told_to = lay_out(state), fan_out(label, groups), fan_out(told, groups)
        rates: list[Tensor] = []
        for layer, size in self._layers():
            recompute = self.recompute_from is not None and size[0] >= self.recompute_from
            if isinstance(layer, StochasticGroup):
                group = len(rates)
                inputs = (state, activations[layer.resolution], noise[group], labels_of[group], told_to[group])
                state, nats = apply(layer, inputs, recompute)
                rates.append(nats)
            elif isinstance(layer, Upsample):
                state = layer(state, size)
                state = lay_out(state) if self.one_layout else state
            else:
                state = apply(layer, (state,), recompute)
        return Output(*self._observe(state), torch.stack(rates), self.penalty())

    def infer(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        low_resolution: Tensor | None = None,
    ) -> Inference:
        """Every group's posterior for latents (B, d, R, R), given the z drawn from the posteriors above with `noise`.

        Noise of zeros follows the means. `decode` with the z, and the same labels, gives the model's reconstruction.
        """
        noise, label = self._noise(noise, len(x)), self._embed(self._classes(labels, len(x)))
        activations = self.encoder(x, label)
        state = self._start(len(x), self.reduce(x, low_resolution))
        found = Inference([], [], [])
        for layer, size in self._layers():
            if isinstance(layer, StochasticGroup):
                posterior = layer.posterior(state, activations[layer.resolution], label)
                prior, residual = layer.prior(state, label)
                z = posterior.draw(noise[len(found.z)])
                state = layer.join(state, z, residual, label)
                found.posteriors.append(posterior)
                found.priors.append(Gaussian.standard(z) if prior is None else prior)
                found.z.append(z)
            else:
                state = layer(state, size) if isinstance(layer, Upsample) else layer(state)
        return found

    def decode(
        self,
        z: Sequence[Tensor | None],
        labels: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        keep: Sequence[Tensor | None] | None = None,
        guidance: Guidance = UNGUIDED,
        low_resolution: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Decoded:
        """Generate with any groups given and the rest drawn from the (guided) prior.

        z: one (B, z, h, w) or None per group, lowest resolution first. keep: where z counts, bool that broadcasts to
        it, or None for everywhere; elsewhere the group is drawn, too. noise: for what is drawn. size: of the latents,
        another than the model's own to generate beyond the frame.
        Weights of 0 mean no guidance: the unconditional path then never runs, nor where priors know no label.
        """
        return self.decode_along(Trail(), 0, Asked(z, labels, noise, keep, guidance, low_resolution, size))

    def decode_along(self, trail: Trail, first: int, asked: Asked) -> Decoded:
        """The same from group `first` on; earlier groups are as the trail has them, of a generation that asked alike.

        The trail is then this generation's.
        """
        z, labels, noise, keep, guidance, low_resolution, size = asked
        count = next((len(t) for t in (*(noise or ()), labels, low_resolution, *z) if t is not None), None)
        if count is None:
            raise ValueError("nothing tells how many images to decode: give noise")
        groups = sum(self.config.groups)
        keep = [None] * groups if keep is None else keep
        if len(z) != groups or len(keep) != groups:
            raise ValueError(f"{groups} groups need as many z and keep, None among them, not {len(z)} and {len(keep)}")
        draws = noise is not None or any(given is None or kept is not None for given, kept in zip(z, keep, strict=True))
        drawn = self._noise(noise, count, size) if draws else [None] * groups
        temperatures = per_group(self.config, "temperature", guidance.temperature)
        choices = [choice(*each) for each in zip(z, keep, drawn, temperatures, strict=True)]
        weights = weights_per_group(self.config, guidance)
        if 0 < first < len(trail.states):
            place, state, label = trail.states[first]
            trail.cut(first)
        else:
            trail.cut(0)
            place, (state, label) = 0, self._begin(count, labels, low_resolution, weights[0] is not None)
        layers = self._layers(size)
        for number in range(place, len(layers)):
            layer, extent = layers[number]
            if isinstance(layer, StochasticGroup):
                group = len(trail.z)
                trail.states.append((number, state, label))
                later = group + 1 < len(weights) and weights[group + 1] is not None
                state, prior, value = layer.generate(state, label, choices[group], weights[group], later)
                if weights[group] is not None and not later:  # from here on there is one path
                    label = None if label is None else label[:count]
                trail.priors.append(prior)
                trail.z.append(value)
            else:
                state = layer(state, extent) if isinstance(layer, Upsample) else layer(state)
        return Decoded(*self._observe(state), list(trail.priors), list(trail.z))

    def _begin(
        self, count: int, labels: Tensor | None, low_resolution: Tensor | None, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The first state and label; guided: those of both paths as one batch."""
        state, label = self._start(count, low_resolution), self._embed(self._classes(labels, count))
        if guided:
            unlabelled = self._embed(self._classes(None, count))
            assert label is not None and unlabelled is not None
            state, label = torch.cat([state, state]), torch.cat([label, unlabelled])
        return state, label

    @torch.no_grad()
    def sample(
        self,
        count: int,
        labels: Tensor | None = None,
        noise: Sequence[Tensor] | None = None,
        temperature: Weights = 1.0,
        guidance_mean: Weights = 0.0,
        guidance_variance: Weights = 0.0,
        low_resolution: Tensor | None = None,
    ) -> Tensor:
        """`count` latents from the prior: (B, d, R, R), the mean of the output; no noise is added to it."""
        if self.inproj is not None and low_resolution is None:
            raise LvaeError(
                "", "an upsampler needs low-resolution images to sample from", "Give --low-resolution SAMPLES."
            )
        nothing = [None] * sum(self.config.groups)
        guidance = Guidance(guidance_mean, guidance_variance, temperature)
        return self.decode(
            nothing, labels, self._noise(noise, count), guidance=guidance, low_resolution=low_resolution
        ).mean

    def layers_to_compile(self) -> list[nn.Module]:
        """What a training pass calls many times: equal ones among them have equal graphs."""
        kinds = StochasticGroup | Attention | ResidualBlock
        levels = [*self.encoder.encoder_levels, *self.layer_list]
        return [layer for level in levels for layer in level.layer_list if isinstance(layer, kinds)]

    def names_to_round(self) -> tuple[list[str], list[str]]:
        """Names of parameters that layers may compute with in half precision; and those of them that are penalized.

        The output's are none of them, nor the embedding's, whose gradient is a sum over a micro-batch. A penalty is
        that of the weight in full precision: see `keep_masters`.
        """
        penalized = {id(layer.conv.weight) for _, layers in self._list_penalized() for layer in layers}
        whole = ("outproj.", "embed.")
        names = {name: parameter for name, parameter in self.named_parameters() if not name.startswith(whole)}
        return list(names), [name for name, parameter in names.items() if id(parameter) in penalized]

    def keep_masters(self, masters: Mapping[str, Tensor]) -> None:
        """Weights of penalized layers in full precision, by name; the layers themselves compute with rounded ones."""
        for name, master in masters.items():
            layer = self.get_submodule(name.removesuffix(".conv.weight"))
            assert isinstance(layer, RegularizedConvolution)
            layer.master = master

    def spectral(self) -> Tensor:
        """Sum over regularized layers of resolution * sigma; the vectors stay. Layers of one shape go together."""
        with without_autocast(self.outproj.weight):
            total = self.outproj.weight.new_zeros(())
            for resolution, layers in self._list_penalized():
                total = total + resolution * self._iterate(layers)[0].sum()
            return total

    @torch.no_grad()
    def move_singular_vectors(self, applied: Tensor | None = None) -> None:
        """One step of the power iteration: once per update, before the optimizer's step, with the forward's weights.

        applied: bool scalar, whether the update is applied; a skipped one leaves the vectors where they are.
        """
        for _, layers in self._list_penalized():
            for layer, moved in zip(layers, self._iterate(layers)[1], strict=True):
                old = layer.singular_vectors
                old.copy_(moved if applied is None else torch.where(applied, moved, old))

    def singular_vectors(self) -> list[Tensor]:
        """The vectors of all regularized layers that count, (1, out) each."""
        return [layer.singular_vectors for _, layers in self._list_penalized() for layer in layers]

    @staticmethod
    def _iterate(layers: list[RegularizedConvolution]) -> tuple[Tensor, Tensor]:
        """Sigma (n,) and moved vectors (n, 1, out) of layers of one shape."""
        return power_iteration(
            torch.stack([layer.matrix for layer in layers]), torch.stack([layer.singular_vectors for layer in layers])
        )

    def _list_penalized(self) -> list[tuple[int, list[RegularizedConvolution]]]:
        """Regularized layers that count, those of one resolution and shape together."""
        found: dict[tuple[int, torch.Size], list[RegularizedConvolution]] = {}
        for layer, _ in self._layers():
            if isinstance(layer, StochasticGroup):
                for convolution in layer.penalized:
                    found.setdefault((layer.resolution, convolution.conv.weight.shape), []).append(convolution)
        return [(resolution, layers) for (resolution, _), layers in found.items()]

    def _layers(self, size: tuple[int, int] | None = None) -> list[tuple[nn.Module, tuple[int, int]]]:
        """The generator's layers in order, each with the (h, w) of what it returns."""
        sizes = self.config.sizes(size)[::-1]
        result: list[tuple[nn.Module, tuple[int, int]]] = []
        for index, level in enumerate(self.layer_list):
            assert isinstance(level, GeneratorLevel)
            result += [(layer, sizes[index + isinstance(layer, Upsample)]) for layer in level.layer_list]
        return result

    def _noise(self, noise: Sequence[Tensor] | None, count: int, size: tuple[int, int] | None = None) -> list[Tensor]:
        """Given noise, its number checked; or that of seeds 0, 1, ..."""
        groups = sum(self.config.groups)
        if noise is None:
            like = self.outproj.weight
            return [values.to(like.device, like.dtype) for values in draw_noise(self.config, range(count), size)]
        if len(noise) != groups:
            raise ValueError(f"{groups} groups need as many tensors of noise, not {len(noise)}")
        return list(noise)

    def _classes(self, labels: Tensor | None, count: int) -> Tensor | None:
        """Rows of the embedding, (B,)."""
        if self.embed is None:
            return None
        nobody = self.config.classes
        if labels is None:
            return torch.full((count,), nobody, device=self.outproj.weight.device)
        if len(labels) != count:
            raise ValueError(f"{count} images need as many labels, not {len(labels)}")
        return torch.where(labels < 0, nobody, labels)

    def _embed(self, classes: Tensor | None, drop: Tensor | None = None) -> Tensor | None:
        """(B,) -> (B, D), "no label" where dropped."""
        if self.embed is None or classes is None:
            return None
        return as_computed(self.embed(classes if drop is None else torch.where(drop, self.config.classes, classes)))

    def reduce(self, x: Tensor, low_resolution: Tensor | None = None) -> Tensor | None:
        """An upsampler's first input, made from the full image (B, d, R, R) unless given; None for other models."""
        if self.config.low_resolution_factor is None or low_resolution is not None:
            return low_resolution
        side = self.config.resolutions[-1]
        if x.device.type == "xla":  # which does not know the operation: images would travel to the host and back
            return reduce_image(x, side)
        return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)

    def _start(self, count: int, low_resolution: Tensor | None) -> Tensor:
        """The generator's first state, (B, C, r, r)."""
        if self.inproj is not None:
            first: Tensor = self.inproj(low_resolution)
            return first
        assert self.initial_x is not None
        return as_computed(self.initial_x).expand(count, -1, -1, -1)

    def _observe(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, in full precision: their errors would be divided by small variances."""
        with without_autocast(state):
            mean, log_variance = self.outproj(state.to(self.outproj.weight.dtype)).chunk(2, dim=1)
        return mean, log_variance
