"""Devices by name, and what is said where a batch does not fit into memory."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lvae.encode.catalogue.architectures import TinySpec
from lvae.encode.devices import choose_device
from lvae.encode.feeding.cuda import compile_for
from lvae.encode.feeding.encoder import Encoder
from lvae.encode.networks.tiny import TinyAutoencoder
from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import find_device, find_gpus
from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings

PIXELS = np.zeros((4, 16, 16, 3), np.uint8)


class Failing(TinyAutoencoder):
    """A network that needs more memory than there is: of a GPU (which raises this), or really; or that has a bug."""

    def __init__(self, cause: str):
        super().__init__(TinySpec(4, width=4, blocks=1))
        self._cause = cause

    def encode(self, images: Tensor) -> Tensor:
        if self._cause == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
        return torch.empty(1 << 50) if self._cause == "memory" else torch.zeros(2, 3) @ torch.zeros(2, 3)


def encoder(network: TinyAutoencoder) -> Encoder:
    record = AutoencoderRecord(network.name, network.architecture, "0" * 64, 8, 4, "mode")
    image = ImageSettings(16, "none", "none", False, (-1.0, 1.0))
    return Encoder(Encoding(image, record, 0, 4, "float32", torch.get_num_threads()), network)


def test_a_gpu_without_memory_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(LvaeError, match=r"too little memory for 4 images at a time\. Give a smaller --batch") as error:
        encoder(Failing("gpu")).encode(PIXELS, ["key"] * 4)
    assert "\n" not in str(error.value) and "--batch 2," in str(error.value)
    with pytest.raises(LvaeError, match=r"for 1 image at a time\. Use one with more memory"):
        encoder(Failing("gpu")).encode(PIXELS[:1], ["key"])


def test_a_network_that_cannot_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def lacks(graph: object, inputs: object) -> Callable[..., object]:
        raise RuntimeError("no compiler here\nand more")

    pixels = torch.rand(2, 3, 8, 8)
    assert compile_for(torch.neg, "eager")(pixels).equal(-pixels)
    assert "compiled" not in caplog.text
    assert compile_for(torch.neg, lacks)(pixels).equal(-pixels)
    assert "cannot be compiled here" in caplog.text


def test_a_network_that_only_fits_as_it_is_runs_so(caplog: pytest.LogCaptureFixture) -> None:
    """A compiled one keeps memory of its own; whether while it is compiled or when it runs."""

    def fails(graph: object, inputs: object) -> Callable[..., object]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    pixels = torch.rand(2, 3, 8, 8)
    for backend in (fails, lambda graph, inputs: lambda *_: fails(graph, inputs)):
        caplog.clear()
        assert compile_for(torch.neg, backend)(pixels).equal(-pixels)
        assert "needs more memory than the device has" in caplog.text
        assert "cannot be compiled" not in caplog.text


def test_a_machine_without_memory_is_no_bug_either() -> None:
    """The part is tried again, and alone, as where the system kills a worker."""
    with pytest.raises(MemoryError, match="allocate"):
        encoder(Failing("memory")).encode(PIXELS, ["key"] * 4)


def test_other_errors_of_a_network_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="multiplied"):
        encoder(Failing("bug")).encode(PIXELS, ["key"] * 4)


@pytest.mark.parametrize(
    ("name", "gpus", "right"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_devices_by_name(name: str, gpus: int, right: str) -> None:
    assert find_device(name, gpus) == right


@pytest.mark.parametrize(
    ("name", "gpus", "offered"),
    [
        ("cpux", 0, "auto, cpu."),
        ("cuda", 0, "auto, cpu."),
        ("cuda:0", 0, "auto, cpu."),
        ("cpux", 1, "auto, cpu, cuda."),
        ("cuda:1", 1, "auto, cpu, cuda."),
        ("cuda:", 2, "auto, cpu, cuda, cuda:0, cuda:1."),
        ("cuda:-1", 2, "cuda:1."),
        ("cuda:²", 2, "cuda:1."),
        ("", 0, "cpu."),
    ],
)
def test_only_devices_that_are_there_are_offered(name: str, gpus: int, offered: str) -> None:
    with pytest.raises(LvaeError) as error:
        find_device(name, gpus)
    said = str(error.value)
    assert said.startswith(f"--device {name}: is not there. Choose one of auto, cpu") and said.endswith(offered)


def test_the_devices_of_this_machine_are_asked_for() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


def test_several_gpus() -> None:
    assert find_gpus("0,1", 2) == ("cuda:0", "cuda:1")
    assert find_gpus(" 3 ,0", 4) == ("cuda:3", "cuda:0")


@pytest.mark.parametrize(
    ("numbers", "gpus", "said"),
    [
        ("0,7", 1, r"--devices 0,7: there is no GPU '7'\. Those here are 0\."),
        ("0,7", 4, r"Those here are 0, 1, 2, 3\."),
        ("0", 0, r"there is no GPU '0'\. There is none here: leave it out\."),
        ("", 2, r"no GPU ''"),
        ("0,", 2, r"no GPU ''"),
        ("cuda:0", 2, r"no GPU 'cuda:0'"),
        ("1,1", 2, r"names a GPU twice"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_at_the_start(numbers: str, gpus: int, said: str) -> None:
    with pytest.raises(LvaeError, match=said):
        find_gpus(numbers, gpus)


@given(st.text(), st.integers(0, 4))
def test_any_text_is_devices_or_one_error(text: str, gpus: int) -> None:
    try:
        assert set(find_gpus(text, gpus)) <= {f"cuda:{number}" for number in range(gpus)}
    except LvaeError as error:
        assert "--devices" in str(error)
