"""The paper's datasets by name. Constants: the published configurations, as model and autoencoder facts give them."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvae.encode.catalogue.architectures import KNOWN, LdmSpec, PixelsSpec, parse_spec
from lvae.encode.catalogue.presets import (
    ALIASES,
    PRESETS,
    about_classes,
    describe,
    encoding_preset,
    fill,
    paper_constants,
    table,
)
from lvae.encode.crops import CROPS
from lvae.manifests.errors import LvaeError

MODEL_PRESETS = [
    "church256-f8",
    "church32-rgb",
    "church256-upsampler",
    "church256-pixels",
    "bedroom256-f4",
    "bedroom256-f8",
    "bedroom256-f16",
    "imagenet256-f8",
]
PUBLISHED = {
    # name: first stage, side and channels of the latents, shift, scale; Table 5 and the released configurations
    "bedroom256-f4": ("vq-f4", 64, 3, 0.075, 0.84),
    "bedroom256-f8": ("kl-f8", 32, 4, 0.25, 4.1),
    "bedroom256-f16": ("kl-f16", 16, 16, 0.0, 3.5),
    "church256-f8": ("kl-f8", 32, 4, 0.25, 4.1),
    "imagenet256-f8": ("kl-f8", 32, 4, 0.25, 4.4),
    # of bytes 127.5 and 127.5, so of u/127.5 - 1
    "church32-rgb": ("pixels-f8", 32, 3, 0.0, 1.0),
    "church256-pixels": ("pixels", 256, 3, 0.0, 1.0),
}
NOTHING = dict.fromkeys(("autoencoder", "size", "crop", "mirror", "store", "normalization", "dtype"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_latents_are_those_that_the_paper_trained_on(name: str) -> None:
    autoencoder, side, channels, shift, scale = PUBLISHED[name]
    preset = encoding_preset(name)
    spec = parse_spec(preset.autoencoder)
    factor = spec.factor if isinstance(spec, PixelsSpec) else 2 ** (len(spec.multipliers) - 1)  # type: ignore[union-attr]
    assert (preset.autoencoder, preset.size // factor) == (autoencoder, side)
    assert (spec.latent_channels if isinstance(spec, LdmSpec) else 3) == channels
    assert paper_constants(name) == (shift, scale)
    assert not preset.mirror and preset.store == "mode"


@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_every_model_preset_has_its_data(name: str) -> None:
    assert encoding_preset(name).unknown


def test_only_imagenet_has_labels() -> None:
    assert {name for name in PRESETS if encoding_preset(name).classes == 1000} == {
        name for name in PRESETS if name.startswith("imagenet")
    }
    assert about_classes("church256", 0) is None and about_classes("imagenet256", 1000) is None
    assert about_classes("imagenet256", 0) == "preset imagenet256 has 1000 classes, these images have none"


def test_short_names_stand_for_what_the_paper_has_its_best_results_with() -> None:
    assert encoding_preset("imagenet256") == PRESETS["imagenet256-f8"]
    assert encoding_preset("church256") == PRESETS["church256-f8"]
    assert encoding_preset("bedroom256") == PRESETS["bedroom256-f4"]


@pytest.mark.parametrize("name", PRESETS)
def test_settings_are_those_that_the_options_take(name: str) -> None:
    preset = PRESETS[name]
    assert preset.autoencoder in KNOWN and preset.crop in CROPS
    filled, said = fill(name, {**NOTHING, "seed": 3})
    assert filled["autoencoder"] == preset.autoencoder and filled["mirror"] is False and filled["seed"] == 3
    assert len(said) == 1 and "Not published: " in said[0]
    if filled["normalization"].startswith("{"):
        assert json.loads(filled["normalization"]) == {"shift": preset.shift, "scale": preset.scale}
    else:
        assert filled["normalization"] == ("none" if preset.constants else "channel")


def test_what_is_given_wins_and_is_said_in_one_line() -> None:
    filled, said = fill("church256", {**NOTHING, "size": 128, "crop": "lsun", "mirror": True})
    assert (filled["size"], filled["crop"], filled["mirror"], filled["autoencoder"]) == (128, "lsun", True, "kl-f8")
    assert said[1:] == ["not as in preset church256: --size 128 instead of 256, --mirror"]


def test_without_published_constants_channels_are_normalized_by_their_own() -> None:
    assert encoding_preset("church256-f4").normalization == "channel"
    with pytest.raises(LvaeError, match=r"church256-f4: is not in the paper.*bedroom256-f4") as error:
        paper_constants("church256-f4")
    assert "\n" not in str(error.value)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(LvaeError, match=r"'imagnet256': there is no such preset\. Did you mean imagenet256"):
        encoding_preset("imagnet256")
    with pytest.raises(LvaeError, match=r"Did you mean bedroom256-f16"):
        encoding_preset("bedrooms-f16")
    with pytest.raises(LvaeError, match=r"zzz.*Choose one of imagenet256-f4"):
        encoding_preset("zzz")


@given(st.text())
def test_any_other_name_is_one_line(name: str) -> None:
    if name in PRESETS or name in ALIASES:
        return
    with pytest.raises(LvaeError) as error:
        encoding_preset(name)
    assert len(str(error.value).splitlines()) == 1


def test_the_table_has_every_name() -> None:
    words = table().replace(",", " ").split()
    assert {*PRESETS, *ALIASES} <= set(words)
    assert all(describe(preset) in table() for preset in PRESETS.values())


def test_presets_need_neither_torch_nor_numpy() -> None:
    code = "import sys, lvae.encode.catalogue.presets; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
