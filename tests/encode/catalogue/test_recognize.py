"""The architecture is told by names and shapes alone."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.encode.autoencoder import build
from lvae.encode.catalogue.architectures import KNOWN, LdmSpec, TinySpec, UpsamplerSpec
from lvae.encode.catalogue.recognize import recognize, summarize
from lvae.manifests.errors import LvaeError

NETWORKS = [name for name, spec in KNOWN.items() if spec.kind != "pixels"]


def shapes_of(spec: Any) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(build(spec).state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_published_architecture_is_recognized(name: str) -> None:
    assert recognize(shapes_of(name)) == KNOWN[name]


@st.composite
def specs(draw: st.DrawFn) -> LdmSpec | TinySpec | UpsamplerSpec:
    if (kind := draw(st.integers(0, 5))) < 2:
        tiny = TinySpec(
            draw(st.integers(1, 20)),
            width=draw(st.integers(1, 8)),
            blocks=draw(st.integers(1, 4)),
            multipliers=(1, *draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))),
            patch=draw(st.integers(1, 4)),
        )
        if kind == 0:
            return tiny
        return UpsamplerSpec(width=tiny.width, blocks=tiny.blocks, multipliers=tiny.multipliers, patch=tiny.patch)
    multipliers = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=8)))
    return LdmSpec(
        kind := draw(st.sampled_from(["kl", "vq"])),  # type: ignore[arg-type]
        draw(st.integers(1, 9)),
        multipliers,
        draw(st.integers(1, 70)),
        draw(st.integers(1, 4)),
        tuple(sorted(draw(st.sets(st.integers(0, len(multipliers) - 1))))),
        draw(st.booleans()),
        draw(st.integers(1, 99)) if kind == "vq" else 0,
    )


@given(spec=specs())
@settings(max_examples=60, deadline=None)
def test_every_architecture_that_can_be_described_is_recognized(spec: LdmSpec | TinySpec | UpsamplerSpec) -> None:
    assert recognize(shapes_of(spec)) == spec


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"quant_conv.weight": None}, r"without quantization layers \(SD3, FLUX\) are not supported"),
        ({"encoder.conv_in.weight": None}, "encoder.conv_in.weight is missing, which every autoencoder"),
        ({"encoder.conv_in.weight": (128, 3)}, r"has shape \(128, 3\) instead of 4 sides"),
        ({"encoder.conv_in.weight": (0, 3, 3, 3)}, "no multiple of the first layer's 0"),
        ({"encoder.conv_in.weight": (100, 3, 3, 3)}, "level 0 has 128 channels, no multiple of the first layer's 100"),
        ({"encoder.down.0.block.0.conv1.weight": None}, "blocks must be a whole number from 1 to 16, not 0"),
        ({"decoder.conv_in.weight": (512, 10**9, 3, 3)}, "latent_channels must be a whole number from 1 to 1024"),
        ({"encoder.down.2.block.0.conv1.weight": (1 << 40, 256, 3, 3)}, "from 1 to 8192"),
    ],
)
def test_shapes_of_no_autoencoder_are_refused(changes: dict[str, Any], expected: str) -> None:
    class Shape:
        def __init__(self, shape: tuple[int, ...]):
            self.shape = shape

    tensors: dict[str, Any] = {name: Shape(tuple(tensor.shape)) for name, tensor in shapes_of("kl-f8").items()}
    for name, shape in changes.items():
        del tensors[name]
        if shape is not None:
            tensors[name] = Shape(shape)
    with pytest.raises(LvaeError, match=f"^model.ckpt: .*{expected}"):
        recognize(tensors, "model.ckpt")


def test_architectures_are_summed_up_for_people() -> None:
    assert summarize(KNOWN["kl-f8"]) == "kl-f8"
    assert (
        summarize(LdmSpec("vq", 32, (1, 2), 3, codes=5)) == "a vq autoencoder of 32, 64 channels with 3 latent channels"
    )
    upsampler = UpsamplerSpec(width=8, multipliers=(1, 2), patch=2)
    assert summarize(upsampler) == "an upsampler of 8, 16 channels, of images reduced by 4"
    assert summarize(TinySpec(7)) == "a tiny autoencoder of 64 channels with 7 latent channels"


def test_recognizing_needs_no_torch() -> None:
    code = "import sys, lvae.encode.catalogue.recognize; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
