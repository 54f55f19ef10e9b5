"""Classifier-free guidance of a Gaussian prior (Equation 2)."""

from lvae.train.network.gaussians import Gaussian


def guide(conditional: Gaussian, unconditional: Gaussian, mean_weight: float, variance_weight: float) -> Gaussian:
    """Equation 2: away from the unconditional prior, past the conditional one. Weights of 0 give the latter exactly.

    mean_c + w_mean (mean_c - mean_u), and variance_c (variance_c / variance_u)^w_variance.
    """
    mean = conditional.mean + mean_weight * (conditional.mean - unconditional.mean)
    log_ratio = conditional.variance.log() - unconditional.variance.log()
    return Gaussian(mean, conditional.variance * (variance_weight * log_ratio).exp())
