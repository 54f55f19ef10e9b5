"""The cost on paper is that of the operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lvae.encode.autoencoder import build
from lvae.encode.catalogue.architectures import KNOWN, LdmSpec, TinySpec
from lvae.encode.catalogue.cost import multiply_adds

SPECS = (
    *(KNOWN[name] for name in ("default", "kl-f8", "kl-f16", "vq-f4", "taesd")),
    LdmSpec("kl", 8, (1, 2), 4, blocks=1, middle_attention=False),
    TinySpec(3, width=4, blocks=2, multipliers=(1, 3, 2), patch=2),
)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_cost_on_paper_is_what_torch_counts(spec: LdmSpec | TinySpec) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(spec).encode(torch.empty(1, 3, 64, 64))
    assert 2 * multiply_adds(spec, 64) == counter.get_total_flops()
