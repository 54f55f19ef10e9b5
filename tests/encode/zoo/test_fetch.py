"""Fetching weights from a server of our own on this machine: whole, cut off, wrong, moved, absent."""

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from lvae.encode.autoencoder import load
from lvae.encode.catalogue.published import find_weights, path_in_cache
from lvae.encode.zoo.fetch import fetch
from lvae.manifests.errors import LvaeError
from tests.conftest import lvae

COMMIT = "0123456789" * 4
HUB_PATH = "/madebyollin/taesd/resolve/main/diffusion_pytorch_model.safetensors"


@dataclass
class Place:
    """What the server has, and what it is asked."""

    files: dict[str, bytes]
    url: str = ""
    cut_after: int | None = None  # bytes of the first answer
    etag: str = '"one"'
    gated: bool = False
    announced: str | None = None  # sha256 that a redirect tells, as the hub does
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, place: Place, *arguments: Any):
        self.place = place
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.place.asked.append((self.path, self.headers.get("Range")))
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        place, span = self.place, self.headers.get("Range")
        data = place.files.get(self.path.removeprefix("/moved"))
        if data is None or place.gated:
            self.send_response(401 if place.gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if place.gated else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if place.announced is not None and not self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("X-Linked-Etag", f'"{place.announced}"')
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.send_header("Location", f"{place.url.replace('127.0.0.1', 'localhost')}/moved{self.path}")
            self.end_headers()
            return
        first = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("ETag", place.etag)
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            end, place.cut_after = place.cut_after, None
            self.wfile.write(data[first:end])

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def taesd() -> bytes:
    return save(load("taesd", "random:5").state_dict())


@pytest.fixture
def place(taesd: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    """A hub on this machine, and caches that are empty."""
    place = Place({HUB_PATH: taesd})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, place))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    place.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", place.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    yield place
    server.shutdown()
    thread.join()
    server.server_close()


def quiet(note: str) -> None:
    pass


def test_fetched_weights_are_found_by_their_name(place: Place, taesd: bytes) -> None:
    assert find_weights("taesd") is None
    with pytest.raises(LvaeError, match="lvae autoencoder fetch taesd"):
        load("taesd")
    said: list[str] = []
    found = fetch("taesd", said.append)
    assert said == [f"fetching {place.url}{HUB_PATH}"]
    assert (found.checked, found.sha256) == ("size", hashlib.sha256(taesd).hexdigest())
    assert load("taesd").fingerprint == load("taesd", "random:5").fingerprint
    assert load("taesd", path_in_cache("taesd")).fingerprint == load("taesd").fingerprint
    assert list((path_in_cache("taesd").parent / "downloads").iterdir()) == []


def test_what_is_there_is_not_fetched_again(place: Place) -> None:
    first = fetch("taesd", quiet)
    asked = len(place.asked)
    assert fetch("taesd", quiet) == first
    assert len(place.asked) == asked


def test_a_download_that_was_cut_off_becomes_whole(place: Place) -> None:
    place.cut_after = 3_000_000
    fetch("taesd", quiet)
    assert len(place.asked) == 2
    assert load("taesd").fingerprint == load("taesd", "random:5").fingerprint


def test_a_gated_repository_says_what_to_do(place: Place) -> None:
    place.gated = True
    with pytest.raises(LvaeError, match=r"only for those who accepted its terms\. .*'hf auth login'"):
        fetch("taesd", quiet)


def test_other_addresses_are_fetched_too(place: Place, taesd: bytes) -> None:
    place.files["/mirror/taesd.safetensors"] = taesd
    found = fetch("taesd", quiet, f"{place.url}/mirror/taesd.safetensors")
    assert (found.source, found.checked) == (f"{place.url}/mirror/taesd.safetensors", "nothing")
    assert found.sha256 == hashlib.sha256(taesd).hexdigest()
    with pytest.raises(LvaeError, match="nothing of that name"):
        fetch("kl-f9", quiet, place.url)


def test_another_address_that_fails_is_told(place: Place, taesd: bytes) -> None:
    with pytest.raises(LvaeError, match="the server says 404 Not Found"):
        fetch("taesd", quiet, f"{place.url}/mirror/taesd.safetensors")
    with pytest.raises(LvaeError, match=r"cannot be reached .*put that file at .*taesd\.pt and run the same"):
        fetch("taesd", quiet, "http://127.0.0.1:9/taesd.pt")
    place.files["/mirror/taesd.safetensors"] = taesd[:3_000_000]
    with pytest.raises(LvaeError, match=r"incomplete.* Remove .*taesd\.safetensors, then run the same"):
        fetch("taesd", quiet, f"{place.url}/mirror/taesd.safetensors")


def test_the_sha256_that_a_hub_announces_is_checked(place: Place, taesd: bytes) -> None:
    place.announced = hashlib.sha256(taesd).hexdigest()
    found = fetch("taesd", quiet)
    assert found.checked == f"sha256 of {place.url.removeprefix('http://')}"


def test_bytes_that_are_not_as_announced_are_refused(place: Place) -> None:
    place.announced = "0" * 64
    with pytest.raises(LvaeError, match="says 0000"):
        fetch("taesd", quiet)
    assert not path_in_cache("taesd").exists()


def test_the_second_name_of_a_file_is_tried(place: Place, tmp_path: Path) -> None:
    torch.save(load("taesd", "random:5").state_dict(), tmp_path / "old.bin")
    place.files = {HUB_PATH.replace(".safetensors", ".bin"): (tmp_path / "old.bin").read_bytes()}
    fetch("taesd", quiet)
    assert load("taesd").fingerprint == load("taesd", "random:5").fingerprint


def test_what_hugging_face_has_in_its_cache_is_taken(place: Place, tmp_path: Path, taesd: bytes) -> None:
    snapshot = tmp_path / "cache" / "huggingface" / "hub" / "models--madebyollin--taesd" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "diffusion_pytorch_model.safetensors").write_bytes(taesd)
    found = fetch("taesd", quiet)
    assert found.source == str(snapshot / "diffusion_pytorch_model.safetensors")
    assert place.asked == []
    assert (snapshot / "diffusion_pytorch_model.safetensors").exists()


def test_offline_one_sentence_says_which_file_to_put_where(
    place: Place, monkeypatch: pytest.MonkeyPatch, taesd: bytes
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = lvae("autoencoder", "fetch", "taesd", check=1)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("lvae: http://127.0.0.1:9/madebyollin/taesd/")
    assert "cannot be reached" in line
    path = Path(line.split("put that file at ")[1].split(" and run the same command again.")[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(taesd)
    answer = json.loads(lvae("autoencoder", "fetch", "taesd", "--json").stdout)
    assert answer["path"] == str(path_in_cache("taesd"))
    assert load("taesd").fingerprint == load("taesd", "random:5").fingerprint


@pytest.mark.parametrize("data", [b"<html>moved</html>", b"{}"])
def test_what_is_no_weights_is_refused_and_named(place: Place, data: bytes) -> None:
    place.files[HUB_PATH] = data
    with pytest.raises(LvaeError, match=r"Remove .*diffusion_pytorch_model\.safetensors, then run the same"):
        fetch("taesd", quiet)
    assert not path_in_cache("taesd").exists()


def test_weights_of_another_network_are_refused(place: Place) -> None:
    place.files[HUB_PATH] = save(load("taesd3", "random:5").state_dict())
    with pytest.raises(LvaeError, match="taesd3"):
        fetch("taesd", quiet)


def test_another_place_may_be_named(place: Place, tmp_path: Path, taesd: bytes) -> None:
    (tmp_path / "mirror.safetensors").write_bytes(taesd)
    found = fetch("taesd", quiet, str(tmp_path / "mirror.safetensors"))
    assert found.source == str(tmp_path / "mirror.safetensors")
    assert (tmp_path / "mirror.safetensors").exists()


def test_names_without_a_place_are_refused(place: Place) -> None:
    with pytest.raises(LvaeError, match="nothing of that name is published"):
        fetch("kl-f9", quiet)
    with pytest.raises(LvaeError, match="part of this package"):
        fetch("default", quiet)


def test_a_server_that_refuses_is_quoted(place: Place) -> None:
    place.files = {}
    with pytest.raises(LvaeError, match=r"the server says 404 Not Found\. Try later, or put that file at"):
        fetch("taesd", quiet)
