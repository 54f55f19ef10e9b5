"""Was a network ever trained? Its weights tell, whatever file they came in."""

from torch import nn

from lvae.encode.autoencoder import Autoencoder

ROUNDING = 1 + 1e-6  # of the bounds to float32


def is_untrained(network: Autoencoder) -> bool:
    """Whether all weights are as `random:SEED` draws them: norms the identity, all others within their bounds.

    No training leaves every norm at exactly 1 and 0, or every single weight within the bounds.
    """
    layers = 0
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            if not (bool((module.weight == 1).all()) and bool((module.bias == 0).all())):
                return False
        elif isinstance(module, nn.Conv2d | nn.Embedding):
            layers += 1
            bound = 1.0 if isinstance(module, nn.Embedding) else module.weight[0].numel() ** -0.5
            largest = max(float(parameter.detach().abs().max()) for parameter in module.parameters(recurse=False))
            if largest > bound * ROUNDING:
                return False
    return layers > 0
