"""What a worker notices before it does harm."""

import dataclasses
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lvae.encode.feeding.encoder import Finished, Pending
from lvae.encode.feeding.settings import Feeding
from lvae.encode.part import encode_parts
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.parts.receipts import read_raw
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.beam import transforms
from lvae.pipeline.beam.transforms import EncodeParts, Job
from lvae.pipeline.beam.worker_check import Question, answer, package, refuse_other_package
from lvae.pipeline.progress.reports import read_reports
from tests.conftest import SMALL_KL, lvae_process


@pytest.fixture(scope="module")
def dataset(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("workers") / "out"
    settings = ("--autoencoder", SMALL_KL, "--weights", "random:0", "--size", "32", "--part-size", "12")
    lvae_process("encode", scenes, out, *settings, "--workers", "1")
    return out


def job(dataset: Path) -> Job:
    plan = read_plan(Folder(dataset))
    return Job(str(dataset), plan.whole_sha256, "attempt", package(), None)


def forget_part(dataset: Path, part: int) -> bytes:
    receipt = dataset / f"raw/000000/part-{part:06d}.json"
    before = receipt.read_bytes()
    receipt.unlink()
    return before


def test_a_part_that_is_finished_is_not_encoded_again(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "_load_encoder", None)  # would be needed
    (receipt,) = EncodeParts(job(dataset), Feeding(("cpu",))).process((1, 2))
    assert receipt == records.dumps(records.loads(receipt, "receipt"))
    assert records.loads(receipt, "receipt")["part"] == 1


def test_a_worker_of_another_package_refuses(dataset: Path) -> None:
    assert re.fullmatch(r"latent-vae \S+, code [0-9a-f]{12}", package())
    refuse_other_package(package())
    with pytest.raises(LvaeError, match=r"runs latent-vae .* Install the same wheel") as error:
        list(
            EncodeParts(
                dataclasses.replace(job(dataset), package="latent-vae 0.0.1, code 0"), Feeding(("cpu",))
            ).process((0, 1))
        )
    assert "\n" not in str(error.value)
    assert [(one.kind, str(one.error())) for one in read_reports(Folder(dataset), "attempt")] == [
        ("user", str(error.value))
    ]


def test_a_worker_that_sees_another_plan_refuses(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that has worked on another dataset under this name before, or whose disk is not shared."""
    monkeypatch.setattr(transforms, "SHARING_DELAYS", (0.01,))
    list(EncodeParts(job(dataset), Feeding(("cpu",))).process((0, 1)))
    with pytest.raises(LvaeError, match="does not see the plan that was submitted"):
        list(EncodeParts(dataclasses.replace(job(dataset), plan_sha256="1" * 64), Feeding(("cpu",))).process((0, 1)))


def test_other_weights_under_the_same_name_are_refused(dataset: Path) -> None:
    from lvae.encode.autoencoder import load
    from lvae.encode.networks.base import save_safetensors

    before = forget_part(dataset, 0)
    weights = next((dataset / "weights").glob("*.safetensors"))
    right = weights.read_bytes()
    transforms._load_encoder.cache_clear()
    try:
        weights.write_bytes(save_safetensors(load(SMALL_KL, "random:1")))
        with pytest.raises(LvaeError, match="holds other weights"):
            list(EncodeParts(job(dataset), Feeding(("cpu",))).process((0, 1)))
    finally:
        weights.write_bytes(right)
        (dataset / "raw/000000/part-000000.json").write_bytes(before)


def test_every_thread_of_a_worker_gives_the_same_bytes(scenes: Path, dataset: Path) -> None:
    """torch's number of threads counts for one thread alone, and it decides the last bits."""
    code = f"""
import sys, threading
from pathlib import Path
import torch
torch.set_num_threads(2)
from lvae.manifests.storage.folder import Folder
from lvae.manifests.parts.plan import read_plan
from lvae.encode.autoencoder import load
from lvae.encode.feeding.encoder import Encoder, weights_in
import numpy as np
folder = Folder({str(dataset)!r})
encoding = read_plan(folder).encoded()
encoder = Encoder(encoding, load(encoding.autoencoder.architecture, weights_in(folder, encoding)))
pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
found, threads = [encoder.encode(pixels, "abcd")], []
def work():
    torch.set_num_threads(2)  # as it is before anybody has said otherwise
    found.append(encoder.encode(pixels, "abcd"))
    threads.append(torch.get_num_threads())
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert threads == [1], threads
assert (found[0] == found[1]).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_attempts_at_once_leave_one_part(scenes: Path, dataset: Path) -> None:
    folder = Folder(dataset)
    plan = read_plan(folder)
    assert plan is not None
    before = forget_part(dataset, 2)
    encoder, opener = transforms._load_encoder(str(dataset), plan.whole_sha256, Feeding(("cpu",)))

    def attempt() -> None:
        list(encode_parts(folder, plan, [2], encoder, opener))

    attempts = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in attempts:
        thread.start()
    for thread in attempts:
        thread.join()
    assert (dataset / "raw/000000/part-000002.json").read_bytes() == before
    assert len(list((dataset / "raw").glob("*/part-000002.*.npy"))) == 1


@pytest.mark.slow
def test_threads_of_a_worker_that_share_processes_get_their_own_images(dataset: Path) -> None:
    """As in a worker of Beam's job service on a CPU, with --decode-workers."""
    before = {part: forget_part(dataset, part) for part in range(4)}
    encode = EncodeParts(job(dataset), Feeding(("cpu",), decoders=1))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda parts: list(encode.process(parts)), [(0, 2), (2, 4)]))
    for part, receipt in before.items():
        assert (dataset / f"raw/000000/part-{part:06d}.json").read_bytes() == receipt


def test_an_attempt_that_comes_late_changes_nothing(dataset: Path) -> None:
    """On unlike machines its last bits differ, and the dataset may be finished with those of the first."""
    folder = Folder(dataset)
    plan = read_plan(folder)
    assert plan is not None
    before = (dataset / "raw/000000/part-000003.json").read_bytes()
    encoder, opener = transforms._load_encoder(str(dataset), plan.whole_sha256, Feeding(("cpu",)))

    class Unlike:
        accelerated, batch, in_flight = False, encoder.batch, 1

        def submit(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[str]) -> Pending:
            late[0].unlink(missing_ok=True)
            late[1].write_bytes(before)  # the other attempt is through meanwhile
            return Finished(np.nextafter(encoder.submit(pixels, keys).result(), np.float32(9)))

    late = dataset / "raw/000000/part-000003.json.away", dataset / "raw/000000/part-000003.json"
    late[1].rename(late[0])
    (receipt,) = encode_parts(folder, plan, [3], Unlike(), opener)
    assert (dataset / "raw/000000/part-000003.json").read_bytes() == before
    assert len(read_raw(folder, receipt, plan.encoded())) == receipt.latents


def test_a_worker_says_what_it_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/probe").write_bytes(b"here")
    question = Question(package(), str(tmp_path / "shared"), ("probe", b"here"), str(tmp_path / "shared"))
    assert answer(question).error is None
    elsewhere = answer(dataclasses.replace(question, dataset=str(tmp_path / "other"))).error
    assert "sees another folder there" in str(elsewhere)
    hidden = answer(dataclasses.replace(question, source=str(tmp_path / "nothing/pictures"))).error
    assert "does not see it" in str(hidden)
