"""Files made to do harm: they run nothing, take no memory out of proportion, and are refused in one line."""

import builtins
import collections
import functools
import importlib
import io
import os
import pickle
import posix
import resource
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from lvae.encode.autoencoder import load, load_file
from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.lazy_tensor import read_all
from lvae.manifests.tensors.open import open_tensors
from lvae.manifests.tensors.pickle_denylist import DANGEROUS_ANYWHERE, is_dangerous

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


def legacy_with_pickle(program: bytes) -> bytes:
    whole = saved(STATE, new_format=False)
    stream = io.BytesIO(whole)
    for _ in range(3):
        pickle.load(stream)  # noqa: S301 - our own file's magic number, protocol and system
    return whole[: stream.tell()] + program


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


CALLS = {
    "posix.system": Calls(os.system, "touch canary"),
    "subprocess.Popen": Calls(subprocess.Popen, ["touch", "canary"]),
    "builtins.exec": Calls(exec, "open('canary', 'w')"),
    "builtins.eval": Calls(eval, "open('canary', 'w')"),
    "builtins.__import__": Calls(builtins.__import__, "os"),
    "builtins.compile": Calls(compile, "1", "canary", "exec"),
    "io.open": Calls(open, "canary", "w"),
    "itertools.imap": Calls(map, str, ["Python 2's name for map"]),
    "posix.system in map": Calls(map, os.system, ["touch canary"]),
    "importlib.import_module": Calls(importlib.import_module, "os"),
    "pickle._loads": Calls(pickle._loads, b"N."),  # type: ignore[attr-defined]
    "posix.system in functools.partial": Calls(functools.partial, posix.system, "touch canary"),
    "posix.system through getattr": Calls(getattr, os.system, "__call__"),
    "torch.serialization.load": Calls(torch.load, "canary"),
    "runpy.run_path": Calls(importlib.import_module("runpy").run_path, "canary"),
}
PLACES: dict[str, Callable[[object], object]] = {
    "itself": lambda call: call,
    "beside the weights": lambda call: {"state_dict": STATE, "callbacks": [{"a": (call,)}]},
    "among the weights": lambda call: STATE | {"encoder.conv_in.weight": call},
    "as a key": lambda call: {call: 1, "state_dict": STATE},
    "as a state": lambda call: {"state_dict": collections.OrderedDict(STATE), "object": Stateful(call)},
    "as an argument of a tensor": lambda call: (
        STATE | {"a": Calls(torch._utils._rebuild_tensor_v2, call, 0, (1,), (1,))}
    ),
    "as an argument of a parameter": lambda call: STATE | {"a": Calls(torch._utils._rebuild_parameter, call, True, {})},
}


class Stateful:
    """Would run its state, if anybody looked it up and called it."""

    def __init__(self, state: object):
        self._state = state

    def __reduce__(self) -> Any:
        return Stateful, (None,), self._state

    def __setstate__(self, state: object) -> None:
        CANARY.touch()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CALLS)
def test_calls_that_could_run_code_are_refused_by_name(name: str, place: str, new_format: bool) -> None:
    text = refusal(saved(PLACES[place](CALLS[name]), new_format))
    called = name.split(" ")[0]
    names = {called, f"_{called}"} if called == "io.open" else {called}  # Python 3.12 pickles it as _io.open
    refused = any(f"calls {name}, which could run code" in text for name in names)
    assert refused or (called == "posix.system" and "calls itertools" in text)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_unknown_classes_are_inert_even_where_they_could_be_imported(new_format: bool) -> None:
    path = Path("model.ckpt")
    path.write_bytes(saved({"state_dict": STATE, "object": Stateful("anything"), "type": Stateful}, new_format))
    assert load_file(path).fingerprint == FINGERPRINT


SYSTEM = b"\x8c\x05posix\x8c\x06system\x93"
PROGRAMS = {
    "a global of two texts": (b"\x80\x04" + SYSTEM + b"\x8c\x0ctouch canary\x85R.", "calls posix.system"),
    "texts from the memo": (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x9400h\x00h\x01\x93\x8c\x0ctouch canary\x85R.",
        "calls posix.system",
    ),
    "a name with a dot": (b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93\x8c\x01x\x85R.", "calls torch.os.system"),
    "protocol 0": (b"cos\nsystem\n(S'touch canary'\ntR.", "calls os.system"),
    "an instance": (b"(S'touch canary'\nios\nsystem\n.", "calls os.system"),
    "an object": (b"(cos\nsystem\nS'touch canary'\no.", "calls os.system"),
    "a new object": (b"\x80\x02cos\nsystem\nU\x0ctouch canary\x85\x81.", "calls os.system"),
    "a new object with keywords": (b"\x80\x04cos\nsystem\n)}\x92.", "calls os.system"),
    "keywords": (b"\x80\x04ca\nb\n)}(\x8c\x01fcos\nsystem\nu\x92.", "calls os.system"),
    "a line feed in a name": (b"\x80\x04\x8c\x05posix\x8c\x08sys\ntem\n\x93)R.", r"calls 'posix.sys\ntem\n'"),
    "a very long name": (b"\x80\x02cos\n" + b"a" * 3000 + b"\n)R.", "calls 'os.aaaa"),
    "a name that is no text": (b"\x80\x04K\x01K\x02\x93.", "STACK_GLOBAL requires str"),
    "a type for a tensor": (b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN)NtR.", "calls os.system"),
    "code by value": (b"\x80\x02ctypes\nCodeType\n)R.", "calls types.CodeType"),
    "a function by value": (b"\x80\x02ctypes\nFunctionType\n)R.", "calls types.FunctionType"),
    "a reference that is a text": (b"\x80\x02X\x01\0\0\0aQ.", "a reference to something that is no storage"),
    "a reference in protocol 0": (b"Pcanary\n.", "a reference to something that is no storage"),
    "a reference to a type": (b"\x80\x02(X\x07\0\0\0storagecos\nsystem\nK\1K\1K\1tQ.", "a storage without type"),
    "an extension": (b"\x80\x02\x82\x01.", "the instruction EXT1, which weights never need"),
    "a buffer from elsewhere": (b"\x80\x05\x97.", "the instruction NEXT_BUFFER, which"),
    "nothing to pop": (b"\x80\x020.", "stack underflow"),
    "a pop through a mark": (b"\x80\x02N(R.", "unexpected MARK"),
    "no mark": (b"\x80\x02t.", "could not find MARK"),
    "an unknown memo": (b"\x80\x02h\x05.", "Memo value not found at index 5"),
    "a far memo": (b"\x80\x02Nr\xff\xff\xff\xff.", "memo index 4294967295"),
    "a long text": (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "a text of 9223372036854775807 bytes"),
    "a negative text": (b"\x80\x02T\xff\xff\xff\xff.", "byte count < 0"),
    "a long number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "a text of 2147483647 bytes"),
    "many digits": (b"I" + b"9" * 4090 + b"\n.", "a pickled int"),
    "too many digits": (b"I" + b"9" * 5000 + b"\n.", "a line of more than 4096 characters"),
    "marks": (b"\x80\x02" + b"(" * 1001 + b".", "unexpected MARK"),
    "deep": (b"\x80\x02N" + b"\x85" * 300_000 + b".", "deeper ones, than weights have"),
    "endless": (b"\x80\x02" + b"]" * 1_100_000 + b".", "more than 1048576 instructions"),
    "a deep key": (b"\x80\x02}N" + b"\x85" * 300_000 + b"Ns.", "holds no image autoencoder"),
    "a deep set": (b"\x80\x04(N" + b"\x85" * 300_000 + b"\x91.", "deeper ones, than weights have"),
    "a dictionary of a stack": (b"(N" + b"\x85" * 300_000 + b"Nd.", "a dictionary as no program writes it"),
    "keys of one hash": (
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + (n * (2**61 - 1)).to_bytes(11, "little") + b"N" for n in range(200_000))
        + b"u.",
        "holds no image autoencoder",
    ),
    "a class that is changed": (b"\x80\x02ca\nb\nq\0N}X\x07\0\0\0__new__Ns\x86b.", "a pickled Global"),
    "a tensor's storage that is changed": (
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0\x30X\x03\0\0\0cpuK\x01tQ"
        b"}X\x08\0\0\0elementsJ\xff\xff\xff\x7fsb.",
        "a pickled PickledStorage",
    ),
    "keywords of keywords": (b"\x80\x04ca\nb\n)" + b"}X\x01\0\0\0k" * 9 + b"N" + b"s" * 9 + b"\x92.", "a pickled a.b"),
    "a long frame": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.", "a pickled NoneType"),
    "a circle": (b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.", "deeper ones, than weights have"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_tricks_of_the_language_are_refused(name: str) -> None:
    program, expected = PROGRAMS[name]
    assert expected in refusal(with_pickle(program))
    assert expected in refusal(legacy_with_pickle(program + pickle.dumps([])))
    if not program.startswith(b"\x80"):
        assert "not a .safetensors file" in refusal(program)


def test_copies_by_reference_do_not_multiply() -> None:
    """Each of 100,000 dictionaries is given the same 100,000 pairs."""
    pairs = b"]q\1(" + b"h\2" * 100_000 + b"e"
    program = b"\x80\x02NN\x86q\2" + pairs + b"ccollections\nOrderedDict\nq\3(" + b"h\3h\1\x85R" * 100_000 + b"t."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "more objects" in refusal(with_pickle(program))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_text_that_is_made_into_bytes_again_and_again_takes_memory_once() -> None:
    """As protocol 2 spells the numbers of an array: here one text of 1 MiB stands for 2,000 of them."""
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\1"
    array = b"cnumpy.core.numeric\n_frombuffer\nq\4(h\1cnumpy\ndtype\nX\2\0\0\0u1\x85RJ\0\0\x10\0\x85X\1\0\0\0Ctq\5"
    program = text + b"0c_codecs\nencode\nq\0020(h\1X\6\0\0\0latin1tq\x030"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for call in (b"h\2h\3R", b"h\4h\5R"):
        whole = b"\x80\2" + program + array + b"00(" + call * 2000 + b"l."
        assert "instead of tensors by name" in refusal(with_pickle(whole))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize("sides", [(0, 1 << 39, 1 << 39), (1 << 39, 0, 1 << 39)])
def test_an_empty_array_of_endless_sides_is_refused(sides: tuple[int, ...]) -> None:
    array = msgpack.ExtType(1, msgpack.packb((sides, "float32", b"")))
    path = Path("model.msgpack")
    path.write_bytes(msgpack.packb({"a": array}))
    with pytest.raises(LvaeError, match="out of proportion"):
        read_all(*open_tensors(path), "model.msgpack")


@pytest.mark.parametrize("name", sorted(DANGEROUS_ANYWHERE))
def test_dangerous_modules_are_dangerous_wherever_they_are_reached(name: str) -> None:
    assert is_dangerous(f"{name}.anything")
    assert is_dangerous(f"torch.{name}.anything")


@pytest.mark.parametrize(
    "name",
    [
        "builtins.dict",
        "builtins.ValueError",
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "omegaconf.dictconfig.DictConfig",
        "numpy.core.multiarray.scalar",
        "_codecs.encode",
        "argparse.Namespace",
        "pathlib.PosixPath",
        "copyreg._reconstructor",
        "types.SimpleNamespace",
        "uuid.UUID",
        "logging.getLogger",
    ],
)
def test_what_ordinary_checkpoints_hold_is_not_dangerous(name: str) -> None:
    assert not is_dangerous(name)
