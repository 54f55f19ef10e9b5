"""What a run will need."""

from lvae.train.presets import PRESETS
from lvae.train.runs.estimates import latent_flop


def test_flop_are_those_that_torch_counts_forward_and_backward() -> None:
    # tests/benchmarks/reckoning.md: 242.4 GFLOP a latent, counted with the backward pass itself
    assert round(latent_flop(PRESETS["church256-f8"].model) / 1e9, 0) == 242
