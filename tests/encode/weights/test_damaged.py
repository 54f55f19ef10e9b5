"""Damaged files and false claims: weights or a refusal in one line, and no memory out of proportion."""

import io
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lvae.encode.autoencoder import load, load_file
from lvae.encode.networks.base import save_safetensors
from lvae.manifests.errors import LvaeError

torch.set_num_threads(1)

KL = {"kind": "kl", "width": 2, "multipliers": [1, 2], "latent_channels": 1, "blocks": 1}
STATE = load(KL, "random:5").state_dict()
FINGERPRINT = load(KL, "random:5").fingerprint
CANARY = Path("canary")


def saved(value: object, new_format: bool = True, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new_format, **options)
    return buffer.getvalue()


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_pickle(program: bytes) -> bytes:
    """A sound file of torch's whose objects are replaced."""
    return packed(members(saved(STATE)) | {"archive/data.pkl": program})


@pytest.fixture(autouse=True)
def in_a_folder_where_a_canary_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not CANARY.exists()


def refusal(data: bytes) -> str:
    path = Path("model.ckpt")
    path.write_bytes(data)
    with pytest.raises(LvaeError) as error:
        load_file(path)
    text = str(error.value)
    assert text.isprintable()
    assert len(text) < 400
    assert not CANARY.exists()
    return text


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._reduced = function, arguments

    def __reduce__(self) -> Any:
        return self._reduced


def tensor(numbers: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> Any:
    """A tensor as torch.save writes one, but of any shape: 72 numbers stand in the file under key 0."""
    return Calls(torch._utils._rebuild_tensor_v2, Storage(numbers, key), offset, shape, stride, False, {})


class Storage:
    def __init__(self, numbers: int, key: str):
        self.reference = ("storage", torch.FloatStorage, key, "cpu", numbers)


class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    def persistent_id(self, value: object) -> object:
        return value.reference if isinstance(value, Storage) else None


def file_of_tensors(**changes: Any) -> bytes:
    """A small autoencoder's file in which every tensor may claim what it likes."""
    every = {name: tensor(t.numel(), 0, tuple(t.shape), t.stride(), name) for name, t in STATE.items()}
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(every | changes)
    numbers = {f"archive/data/{name}": value.numpy().tobytes() for name, value in STATE.items()}
    return packed({"archive/data.pkl": buffer.getvalue(), "archive/data/0": bytes(288)} | numbers)


FIRST = "encoder.conv_in.weight"  # (2, 3, 3, 3)
CLAIMS: dict[str, tuple[Any, str]] = {
    "beyond its storage": (tensor(72, 19, (2, 3, 3, 3), (27, 9, 3, 1)), "beyond its storage of 72 numbers"),
    "stride beyond": (tensor(72, 0, (2, 3, 3, 3), (270, 9, 3, 1)), "beyond its storage"),
    "negative stride": (tensor(72, 60, (2, 3, 3, 3), (-27, 9, 3, 1)), "a shape or stride that is none"),
    "negative offset": (tensor(72, -1, (2, 3, 3, 3), (27, 9, 3, 1)), "without storage or offset"),
    "negative side": (tensor(72, 0, (-2, 3, 3, 3), (27, 9, 3, 1)), "a shape or stride that is none"),
    "truth value": (tensor(72, 0, (True, 3, 3, 3), (27, 9, 3, 1)), "a shape or stride that is none"),
    "sides without end": (tensor(72, 0, (1,) * 1000, (1,) * 1000), "a shape or stride that is none"),
    "overflow": (tensor(72, 0, (2**63, 3, 3, 3), (27, 9, 3, 1)), "a shape or stride that is none"),
    "wrap around": (tensor(72, 0, (2**61, 3, 3, 3), (8, 9, 3, 1)), "beyond its storage"),
    "longer than the file": (tensor(10**12, 0, (2, 3, 3, 3), (27, 9, 3, 1)), "numbers of a tensor are missing"),
    "stretched": (tensor(72, 0, (8192, 3, 3, 3), (0, 9, 3, 1)), "with 72 numbers behind it"),
    "stretched without end": (tensor(72, 0, (2**40, 3, 3, 3), (0, 9, 3, 1)), "out of proportion to the file"),
    "no such numbers": (tensor(72, 0, (2, 3, 3, 3), (27, 9, 3, 1), "../data.pkl"), "numbers of a tensor are missing"),
    "a path": (tensor(72, 0, (2, 3, 3, 3), (27, 9, 3, 1), "/etc/passwd"), "numbers of a tensor are missing"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_tensors_that_claim_more_than_they_have_are_refused(name: str) -> None:
    claim, expected = CLAIMS[name]
    assert expected in refusal(file_of_tensors(**{FIRST: claim}))


def test_tensors_that_are_not_needed_may_be_stretched() -> None:
    path = Path("model.pt")
    path.write_bytes(
        file_of_tensors(**{"loss.a": tensor(72, 0, (10**9,), (0,)), "loss.b": tensor(10**9, 0, (1,), (1,), "b")})
    )
    assert load_file(path).fingerprint == FINGERPRINT


def test_archives_that_unpack_without_end_are_refused() -> None:
    bomb = packed({"model.ckpt": b"PK\x03\x04" + bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    assert "which weights never are" in refusal(bomb)
    inner = members(saved(STATE)) | {"archive/data.pkl": bytes(33 << 20)}
    assert "at most 33554432 can be right" in refusal(packed(inner, zipfile.ZIP_DEFLATED))
    assert "does not hold one file of weights" in refusal(packed({"model.ckpt": packed({"model.ckpt": saved(STATE)})}))


def test_archives_with_odd_directories_are_refused() -> None:
    sound = saved(STATE)
    nameless = bytearray(packed({"a": b""}))  # found by mutation: zipfile looks at a name's last letter
    entry, end = nameless.index(b"PK\x01\x02"), nameless.index(b"PK\x05\x06")
    nameless[end + 12] -= 1
    nameless[entry + 28] -= 1
    del nameless[entry + 46]
    assert "does not hold one file of weights" in refusal(bytes(nameless))
    with pytest.warns(UserWarning, match="Duplicate name"):
        buffer = io.BytesIO(sound)
        with zipfile.ZipFile(buffer, "a") as file:
            file.writestr("archive/data.pkl", b"N.")
    assert "two members of one name" in refusal(buffer.getvalue())
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 9 << 20, 4, 0)
    assert "a directory too large for weights" in refusal(b"PK\x03\x04" + bytes(9 << 20) + end)
    assert "damaged" in refusal(sound.replace(b"PK\x03\x04", b"PK\x03\x05").replace(b"PK\x03\x05", b"PK\x03\x04", 1))
    local = sound.index(b"archive/data/0") - 30
    assert "encrypted" in refusal(
        packed(members(sound)).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0")
    )
    assert "damaged" in refusal(sound[:local] + b"x" + sound[local + 1 :])


BASES = {
    "zip": saved({"state_dict": STATE, "epoch": 3}),
    "legacy": saved({"state_dict": STATE, "epoch": 3}, new_format=False),
    "safetensors": save_safetensors(load(KL, "random:5")),
    "deflated": packed(members(saved(STATE)), zipfile.ZIP_DEFLATED),
    "packed": packed({"model.ckpt": saved(STATE, new_format=False)}, zipfile.ZIP_DEFLATED),
}
PROGRAM = members(saved(STATE))["archive/data.pkl"]


@st.composite
def mutations(draw: st.DrawFn, base: bytes) -> bytes:
    """A few bytes changed, put in or cut out; most often where the structure is: at the beginning and the end."""
    data = bytearray(base)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1) | st.integers(0, 300) | st.integers(len(data) - 600, len(data) - 1))
        place = max(0, min(place, len(data) - 1))
        cut = draw(st.sampled_from([0, 1, 1, 1, 4, 8]))
        data[place : place + cut] = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, bytes(8), b"\xff" * 8]))
        if not data:
            break
    return bytes(data)


def check_that_nothing_but_a_refusal_or_weights_come_of(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = Path("mutated.ckpt")
    path.write_bytes(data)
    try:
        load_file(path)
    except LvaeError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 600
    assert not CANARY.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize("kind", BASES)
def test_mutated_files_give_weights_or_a_refusal(kind: str) -> None:
    @given(data=mutations(BASES[kind]))
    @settings(max_examples=150, deadline=None)
    def check(data: bytes) -> None:
        check_that_nothing_but_a_refusal_or_weights_come_of(data)

    check()


@given(program=mutations(PROGRAM))
@example(program=PROGRAM.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"))
@settings(max_examples=300, deadline=None)
def test_mutated_pickles_in_sound_files_give_weights_or_a_refusal(program: bytes) -> None:
    check_that_nothing_but_a_refusal_or_weights_come_of(with_pickle(program))


def test_of_a_checkpoint_of_4_gib_only_the_first_stage_is_read() -> None:
    state = {f"first_stage_model.{name}": tensor for name, tensor in STATE.items()}
    state["model.diffusion_model.out.2.weight"] = torch.empty(1 << 30)
    with torch.serialization.skip_data():  # a hole in the file; the weights are zeros too
        torch.save({"state_dict": state}, "model.ckpt")
    Path("small.pt").write_bytes(saved(STATE))
    assert Path("model.ckpt").stat().st_size > 4 << 30
    code = """if True:
        import resource, sys
        from lvae.encode.autoencoder import load_file
        load_file("small.pt")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert load_file("model.ckpt").name == "custom"
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(run.stdout) < 30 << 10  # KiB
