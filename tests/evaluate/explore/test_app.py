"""The page serves itself and nothing else, to whoever knows its address."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from lvae.evaluate.explore.app import MOST_UPLOAD, Named, Page, make_app
from lvae.evaluate.explore.channels import rank_channels
from lvae.evaluate.explore.painter import Painter
from lvae.evaluate.explore.view import PLAIN
from lvae.evaluate.manipulation.loaded_run import LoadedRun, open_dataset
from lvae.manifests import records
from tests.conftest import lvae, make_once
from tests.evaluate import run_examples as examples

TOKEN = "secret"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once(
        tmp_path_factory, "explored", lambda root: examples.run(root / "run", examples.dataset(root / "data"))
    )


@pytest.fixture(scope="module")
def client(root: Path) -> TestClient:
    loaded = LoadedRun.open(root / "run")
    painter = Painter(loaded, open_dataset(loaded, str(root / "data")))
    page = Page(painter, rank_channels(loaded, painter.dataset), Named("run", "data"))
    page.warm_up()
    return TestClient(make_app(page, TOKEN, ("127.0.0.1",)), base_url="http://127.0.0.1:1234")


def view(**changes: object) -> bytes:
    return json.dumps(records.plain(PLAIN) | changes).encode()


def picture_of(answer: dict[str, str]) -> np.ndarray:
    data = base64.b64decode(answer["picture"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_page_asks_nobody_else(client: TestClient) -> None:
    for name in ("", "page.js", "page.css", "about"):
        answer = client.get(f"/{TOKEN}/{name}")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "http://" not in answer.text
        assert "https://" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["/", "/other/", "/other/about", f"/{TOKEN}/app.py", f"/{TOKEN}/../../setup.cfg", f"/{TOKEN}/%2e%2e/view.py"],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 405)


def test_another_host_is_refused(client: TestClient) -> None:
    assert client.get(f"/{TOKEN}/about", headers={"host": "evil.example"}).status_code == 404


def test_where_it_listens_everywhere_any_address_of_this_machine_will_do() -> None:
    client = TestClient(make_app(None, TOKEN, ("127.0.0.1",), by_number=True))  # type: ignore[arg-type]
    found = {
        host: client.get(f"/{TOKEN}/page.js", headers={"host": host}).status_code
        for host in ("10.1.2.3:8000", "127.0.0.1:8000", "evil.example:8000", "10.1.2.3.evil.example")
    }
    assert list(found.values()) == [200, 200, 404, 404]


def test_a_picture_and_the_command_that_makes_it(client: TestClient, root: Path, tmp_path: Path) -> None:
    content = view(
        subject={"kind": "index", "number": 3, "image": ""},
        redraw=[4],
        seed=2,
        moves=[{"group": 0, "channel": 1, "value": 1.5}],
        label=1,
        guidance_mean=1.5,
        left=2,
    )
    answer = client.post(f"/{TOKEN}/picture?tab=a", content=content).json()
    words = answer["command"].split()
    assert words[:3] == ["lvae", "explore", "run"]
    lvae(*words[1:], cwd=root)
    made = root / "picture.png"
    np.testing.assert_array_equal(np.asarray(Image.open(made)), picture_of(answer))
    made.unlink()


def test_uploads_are_bounded_and_opened_as_images(client: TestClient) -> None:
    wrong = client.post(f"/{TOKEN}/image?name=a.png", content=b"not an image")
    assert wrong.status_code == 400
    assert wrong.json()["error"]
    large = client.post(f"/{TOKEN}/image", content=b"0" * (MOST_UPLOAD + 1))
    assert "MiB" in large.json()["error"]
    file = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 40, 40)).save(file, "PNG")
    mark = client.post(f"/{TOKEN}/image?name=../../-x.png", content=file.getvalue()).json()["image"]
    subject = {"kind": "image", "number": 0, "image": mark}
    answer = client.post(f"/{TOKEN}/picture", content=view(subject=subject)).json()
    assert "--from ./-x.png" in answer["command"]
    assert picture_of(answer).shape == (4, 4, 3)
    gone = client.post(f"/{TOKEN}/picture", content=view(subject=subject | {"image": "/etc/passwd"}))
    assert "not here any more" in gone.json()["error"]


def test_many_tabs_begin_anew(client: TestClient) -> None:
    first = client.post(f"/{TOKEN}/picture?tab=x", content=view()).json()
    for number in range(20):
        client.post(f"/{TOKEN}/picture?tab={number}", content=view(seed=number, redraw=[1]))
    assert client.post(f"/{TOKEN}/picture?tab=x", content=view()).json() == first


def test_without_a_model_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvae.train.runs.packaged.FOLDER", tmp_path)
    assert "lvae explore RUN" in lvae("explore", "--no-browser", check=1).stderr


def test_ctrl_c_closes_the_page_and_promises_nothing(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def interrupt() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as asked:
                asked.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if asked.recv(1):
                    break
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt, daemon=True)
    waiting.start()
    done = lvae("explore", root / "run", "--port", str(port), "--device", "cpu")
    waiting.join()
    assert "the page is closed" in done.stderr and "resumes" not in done.stderr
