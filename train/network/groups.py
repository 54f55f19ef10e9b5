"""One stochastic group: posterior, prior, and how its variable joins the generator's state."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lvae.train.config import ModelConfig
from lvae.train.network.gaussians import Gaussian, rate
from lvae.train.network.guidance import guide
from lvae.train.network.layers import Convolution, RegularizedConvolution, ResidualBlock

PRIOR_SCALE = 1e-10  # a prior begins as (nearly) N(0, 1), and adds nothing to the state


class StochasticGroup(nn.Module):
    """A group at level i of `config` (0: the highest resolution).

    state: (B, C, h, w), the generator's. activation: (B, E, h, w), the encoder's at this resolution. label: (B, D) or
    None, the vector of a class, or of "no label".
    """

    def __init__(self, config: ModelConfig, level: int):
        super().__init__()
        width, z = config.widths[level], config.z_channels
        ratio, kernel = config.ffn_ratios[level], 3 if config.resolutions[level] >= 4 else 1
        label_width = config.widths[-1] if config.classes else None
        scale = sum(config.groups) ** -0.5
        self.resolution, self.z_channels = config.resolutions[level], z
        self.hierarchical_prior = config.hierarchical_prior
        prior_outputs = width + 2 * z if config.hierarchical_prior else width
        self.prior_block = ResidualBlock(
            width, prior_outputs, ratio, kernel, label_width, regularized=True, scale=PRIOR_SCALE
        )
        self.posterior_block = ResidualBlock(width, 2 * z, ratio, kernel, label_width, regularized=True)
        self.actsproj = Convolution(width + config.encoder_widths[level], width)
        self.zproj = Convolution(z, width, bias=False, scale=scale)
        self.shared_block = ResidualBlock(width, width, ratio, kernel, label_width, scale=scale)

    def posterior(self, state: Tensor, activation: Tensor, label: Tensor | None) -> Gaussian:
        h = self.actsproj(torch.cat([state, activation], 1))
        return Gaussian.of(self.posterior_block(h, label))

    def prior(self, state: Tensor, label: Tensor | None) -> tuple[Gaussian | None, Tensor]:
        """The prior (None: N(0, I)) and the residual (B, C, h, w) that joins the state with z."""
        h: Tensor = self.prior_block(state, label)
        if not self.hierarchical_prior:
            return None, h
        parameters, residual = self._split(h)
        return Gaussian.of(parameters), residual

    def _split(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the prior block gives: parameters of the prior, and the residual."""
        return h[:, : 2 * self.z_channels], h[:, 2 * self.z_channels :]

    def join(self, state: Tensor, z: Tensor, residual: Tensor, label: Tensor | None) -> Tensor:
        state = state + self.zproj(z) + residual
        joined: Tensor = self.shared_block(state, label)
        return joined

    def forward(
        self, state: Tensor, activation: Tensor, noise: Tensor, label: Tensor | None, told: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The inference pass: the next state and the group's rate (B,), nats.

        noise: (B, z, h, w), standard normal. label: the true one, for the posterior. told: the label as prior and
        shared block hear it, dropped now and then.
        """
        found = self.posterior_block(self.actsproj(torch.cat([state, activation], 1)), label)
        residual = self.prior_block(state, told)
        if self.hierarchical_prior:
            expected, residual = self._split(residual)
            posterior, prior = Gaussian.pair(found, expected)
        else:
            posterior = Gaussian.of(found)
            prior = Gaussian.standard(posterior.mean)
        nats = rate(posterior, prior)
        return self.join(state, posterior.draw(noise), residual, told), nats

    def generate(
        self,
        state: Tensor,
        label: Tensor | None,
        choose: Callable[[Gaussian], Tensor],
        guidance: tuple[float, float] | None = None,
        guided_later: bool = False,
    ) -> tuple[Tensor, Gaussian, Tensor]:
        """The generating pass: the next state, the prior and the z that `choose` takes, knowing it.

        guidance: weights of mean and variance. State and label then hold two paths, first the conditional half, then
        the unconditional one; each keeps its residual, and the z of the guided prior joins both. Where no later group
        is guided the unconditional path ends here, and the next state is the conditional one alone.
        """
        prior, residual = self.prior(state, label)
        if prior is None:
            prior = Gaussian.standard(state.new_empty(len(state), self.z_channels, *state.shape[2:]))
        elif guidance is not None:
            prior = guide(*prior.halves(), *guidance)
        z = choose(prior)
        if guided_later:
            return self.join(state, torch.cat([z, z]), residual, label), prior, z
        if guidance is not None:
            count = len(z)
            state, residual, label = state[:count], residual[:count], None if label is None else label[:count]
        return self.join(state, z, residual, label), prior, z

    @property
    def penalized(self) -> list[RegularizedConvolution]:
        """Whose sigma counts: without a hierarchical prior, the posterior's alone."""
        blocks = [self.prior_block, self.posterior_block] if self.hierarchical_prior else [self.posterior_block]
        return [final for block in blocks for final in block.children() if isinstance(final, RegularizedConvolution)]
