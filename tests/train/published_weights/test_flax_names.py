"""Published Flax states: the same models as the torch files give, from msgpack and pickles, without running them."""

import os
import pickle
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.flax_files import CHUNKED
from lvae.train.model import HierarchicalVAE
from lvae.train.presets import PRESETS
from lvae.train.published import load_published
from lvae.train.published_weights.architecture import config_of
from lvae.train.published_weights.files import open_published
from tests.train.flax_examples import bfloat16, flax_trees, frozen, packed, pickled
from tests.train.model_examples import CONDITIONAL, EXAMPLES, PLAIN, UPSAMPLER, batch, lively

torch.set_num_threads(1)


def state_of(model: HierarchicalVAE, **more: Any) -> dict[str, Any]:
    """A training state: averaged weights, others as the last ones, moments and vectors."""
    params, vectors = flax_trees(model)
    last, _ = flax_trees(lively(model.config, seed=9))
    moments = {"mu": {"outproj": {"bias": bfloat16(params["outproj"]["bias"])}}, "count": np.array(7, np.int32)}
    return {
        "step": np.array(1234, np.int32),
        "params": last,
        "ema_params": params,
        "ema_decay": 0.9999,
        "opt_state": {"0": moments, "1": {"count": np.array(7, np.int32)}},
        "singular_vectors": vectors,
        **more,
    }


def same(model: HierarchicalVAE, loaded: HierarchicalVAE) -> None:
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor), name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "msgpack") for name in EXAMPLES),
        *(("conditional", kind) for kind in ("chunks", "pickle", "jax pickle", "protocol 2", "protocol 5")),
        ("upsampler", "jax pickle"),
    ],
)
def test_a_flax_state_gives_the_model_that_the_torch_file_gives(name: str, kind: str, tmp_path: Path) -> None:
    config = replace(EXAMPLES[name], attention="published")
    model = lively(config)
    path = tmp_path / "checkpoint_1234"
    if kind in ("msgpack", "chunks"):
        path.write_bytes(packed(state_of(model), 1024 if kind == "chunks" else 1 << 30))
    else:
        params, vectors = flax_trees(model)
        state = {"ema_params": frozen(params, jax=kind == "jax pickle"), "singular_vectors": vectors, "step": 1234}
        path.write_bytes(pickled(state, {"protocol 2": 2, "protocol 5": 5}.get(kind, 4)))
    loaded = load_published(path, config)
    same(model, loaded)
    x, labels = batch(config)
    for found, expected in zip(loaded(x, labels), model(x, labels), strict=True):
        assert found.equal(expected)
    file = open_published(path)
    assert (file.step, file.about) == (1234, "averaged weights (EMA)")


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "upsampler"])
def test_the_architecture_is_found_by_the_shapes_of_a_tree(name: str) -> None:
    config = replace(EXAMPLES[name], attention="published")
    model, (x, labels) = lively(config), batch(config)
    params, _ = flax_trees(model)
    for tree in (params, {"params": params}, {"params": {"params": params}}):
        assert load_published(tree)(x, labels).mean.equal(model(x, labels).mean)


@pytest.mark.parametrize("name", ["church256-f8", "church256-upsampler", "bedroom256-f4", "imagenet256-f8"])
def test_presets_are_recognized_in_flax_states(name: str) -> None:
    """Zeros of the right shapes that share one number: no memory is taken."""
    config = PRESETS[name].model
    with torch.device("meta"):
        model = HierarchicalVAE(config)
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    params, vectors = flax_trees(model)
    file = open_published({"ema_params": params, "singular_vectors": vectors})
    shapes = {key: tensor.shape for key, tensor in file.preferred.items()}
    assert config_of(shapes, "a file") == replace(config, attention="published")
    assert shapes == {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def test_wide_kernels_of_blocks_without_ffn_at_1x1_are_read_by_their_centre() -> None:
    config = replace(CONDITIONAL, ffn_ratios=(0, 0, 0, 0), attention="published")
    model, (x, labels) = lively(config), batch(config)
    params, _ = flax_trees(model, wide_kernels=True)
    assert params["layer_list_0"]["layer_list_0"]["shared_block"]["Conv_1"]["kernel"].shape[:2] == (3, 3)
    loaded = load_published(params)
    assert loaded(x, labels).mean.equal(model(x, labels).mean)
    assert loaded.config.ffn_ratios == (0, 0, 0, 0)


def test_without_an_average_the_last_weights_are_taken_and_said() -> None:
    model = lively(PLAIN)
    params, _ = flax_trees(model)
    file = open_published({"params": params, "ema_params": None})
    assert "there is no average" in file.about
    assert file.ema is None
    assert load_published({"params": params}, PLAIN).get_parameter("outproj.bias").equal(model.outproj.bias)


def test_a_tree_that_does_not_fit_names_the_first_difference() -> None:
    params, _ = flax_trees(lively(PLAIN))
    params["layer_list_0"]["layer_list_0"]["zproj"]["kernel"] = np.zeros((1, 1, 5, 24), np.float32)
    with pytest.raises(LvaeError, match=r"layer_list.0.layer_list.0.zproj.weight has shape \(24, 5, 1, 1\)"):
        load_published(params, PLAIN)
    params, _ = flax_trees(lively(PLAIN))
    params["encoder"]["more"] = {"kernel": np.zeros((1, 1, 1, 1), np.float32)}
    with pytest.raises(LvaeError, match=r"encoder.more.kernel of shape \(1, 1, 1, 1\) is not expected"):
        load_published(params, PLAIN)
    del params["encoder"]["more"], params["outproj"]["bias"]
    with pytest.raises(LvaeError, match=r"outproj.bias of shape \(8,\) is missing"):
        load_published(params, PLAIN)


class Hostile:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_hostile_pickle_among_the_weights_runs_nothing(protocol: int, tmp_path: Path) -> None:
    params, _ = flax_trees(lively(PLAIN))
    mark, path = tmp_path / "was here", tmp_path / "state.p"
    for place in ("params", "ema_params", "opt_state", "outproj"):
        path.write_bytes(pickle.dumps({"params": params, place: Hostile(mark)}, protocol))
        with pytest.raises(LvaeError, match=r"could run code.*Nothing of it was run") as caught:
            load_published(path)
        assert "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["msgpack", "pickle"])
@pytest.mark.parametrize("part", [0.0, 0.00001, 0.001, 0.3, 0.9, 0.99999])
def test_a_truncated_state_is_refused(kind: str, part: float, tmp_path: Path) -> None:
    params, _ = flax_trees(lively(PLAIN))
    whole = packed({"ema_params": params}) if kind == "msgpack" else pickle.dumps({"ema_params": params})
    path = tmp_path / "state"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(LvaeError, match=str(path)) as caught:
        load_published(path, PLAIN)
    assert "\n" not in str(caught.value)


def array(shape: list[int], dtype: str, numbers: bytes) -> bytes:
    inner = packed([shape, dtype, numbers])
    return struct.pack(">BIb", 0xC9, len(inner), 1) + inner


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x81\xa6params" + array([1 << 30, 1 << 30], "float32", b"1234"), "4 bytes behind it"),
        (b"\x81\xa6params" + array([-1], "float32", b"1234"), "shape is none"),
        (b"\x81\xa6params" + array([1], "object", b"12345678"), "not the weights of a published VAE"),
        (b"\x81\xa6params\xdf\xff\xff\xff\xff", "in the middle of a value"),
        (b"\x81\xa6params\xdb\xff\xff\xff\xff", "in the middle of a value"),
        (b"\x81\xa6params\xdb\x00\x02\x00\x00" + bytes(1 << 17), "exceeds max_str_len"),
        (b"\x81\xa6params\xc6\xff\xff\xff\xff", "in the middle of a value"),
        (b"\x81\xa6params\xc1", "where a value begins"),
        (b"\x81\xa6params" + b"\x91" * 100 + b"\xc0", "deeper ones"),
        (b"\x81\xa6params\xdd\x7f\xff\xff\xff" + b"\xc0" * (1 << 18), "more values"),
        (b"\x81\xa4step\x01\x01", "1 bytes follow its end"),
        (b"\x81\x90\x01", "a key that is a list"),
        (
            packed({"a": {CHUNKED: True, "shape": {"0": 9}, "chunks": {"0": np.zeros(2)}}}),
            "another",
        ),
        (packed({"a": {CHUNKED: True}}), "without chunks"),
        (packed({"params": {"outproj": {"bias": np.zeros(2)}}}), "not the weights of a published VAE"),
        (packed({"step": 3}), "'step' is a int, not a tensor"),
    ],
)
def test_files_made_to_do_harm_are_refused_before_memory_is_taken(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(LvaeError, match=message) as caught:
        load_published(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert str(caught.value).isprintable()


def test_tables_that_hold_one_another_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.p"
    inner: dict[str, Any] = {"outproj": {}}
    inner["itself"] = inner
    path.write_bytes(pickle.dumps({"params": inner}))
    with pytest.raises(LvaeError, match="deeper ones"):
        load_published(path)
    many: dict[str, Any] = {"outproj": np.zeros(1)}
    for _ in range(28):
        many = {"a": many, "b": many}
    path.write_bytes(pickle.dumps({"params": many}))
    with pytest.raises(LvaeError, match="more objects"):
        load_published(path)


def test_a_small_array_that_stands_for_many_takes_no_memory(tmp_path: Path) -> None:
    """Every tensor of a large model may be one shared array in a pickle: its size is compared with the file's."""
    config = replace(PLAIN, width=512, encoder_width=512, heads=(0, 1, 4, 2))
    with torch.device("meta"):
        model = HierarchicalVAE(config)
    shared: dict[tuple[int, ...], Any] = {}
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    params, _ = flax_trees(model)

    def share(tree: dict[str, Any]) -> dict[str, Any]:
        return {
            k: share(v) if isinstance(v, dict) else shared.setdefault(v.shape, np.zeros(v.shape, np.int8))
            for k, v in tree.items()
        }

    path = tmp_path / "state.p"
    path.write_bytes(pickle.dumps({"params": share(params)}))
    with pytest.raises(LvaeError, match=r"out of proportion to the file|not floating-point"):
        load_published(path)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    for head in (b"", b"\x81", b"\x83\xa6params", b"\x80\x04"):
        path.write_bytes(head + data)
        with pytest.raises(LvaeError) as caught:
            load_published(path)
        assert "\n" not in str(caught.value)


def test_an_upsampler_of_a_small_size_needs_its_config() -> None:
    params, _ = flax_trees(lively(UPSAMPLER))
    with pytest.raises(LvaeError, match="do not tell its resolution"):
        load_published(params)
    assert load_published(params, UPSAMPLER).config.low_resolution_factor == 2
