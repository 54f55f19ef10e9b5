"""moto's S3 server in a process of its own, which is away as it is told.

python -m tests.pipeline.bad_s3 PORT MODE_FILE: ends with its stdin. The mode file holds {"seed": 0, "share": 0.5}, and
is read at every request: so large a share of requests is answered by an error, drawn by the seed. Some of these
requests are carried out all the same, and their answers lost.
"""

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.pipeline.cluster import free_port, listens
from tests.pipeline.faults import wait_for

ANSWERS = {
    "unavailable": ("503 Service Unavailable", "ServiceUnavailable"),
    "slow down": ("503 Slow Down", "SlowDown"),
    "internal": ("500 Internal Server Error", "InternalError"),
}
ERRORS = (*ANSWERS, "closed", "lost")  # closed: before the request is carried out; lost: after


class Moody:
    """A WSGI application around another."""

    def __init__(self, application: Callable[..., Iterable[bytes]], mode_file: Path):
        self._application, self._mode_file = application, mode_file
        self._text, self._draw, self._lock = "", random.Random(), threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        error = self._next_error()
        if error in ANSWERS:
            status, code = ANSWERS[error]
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(status, [("Content-Type", "application/xml")])
            told = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>away</Message></Error>"
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [told.encode()]
        if error == "closed":
            return _hang_up(environ)
        answer = self._application(environ, start_response)
        return _hang_up(environ) if error == "lost" else answer

    def _next_error(self) -> str:
        text = self._mode_file.read_text()
        with self._lock:
            if text != self._text:
                self._text, self._draw = text, random.Random(text)
            share, draw = json.loads(text)["share"], self._draw.random()
            return self._draw.choice(ERRORS) if draw < share else ""


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


class Store:
    """The test's side: a bucket `latents`."""

    def __init__(self, port: int, mode_file: Path):
        self._mode_file = mode_file
        self.port = port
        self.environment = os.environ | {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }

    def fails(self, share: float, seed: int = 0) -> None:
        unfinished = self._mode_file.with_suffix(".part")
        unfinished.write_text(json.dumps({"seed": seed, "share": share}))
        unfinished.replace(self._mode_file)


@contextmanager
def bad_s3(root: Path) -> Iterator[Store]:
    store = Store(free_port(), root / "mode.json")
    store.fails(0)
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.bad_s3", str(store.port), str(root / "mode.json")],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for("the server", lambda: listens(store.port))
        yield store
    finally:
        server.communicate()


def serve(port: int, mode_file: Path) -> None:
    import urllib.request

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = Moody(DomainDispatcherApplication(create_backend_app), mode_file)
    server = make_server("127.0.0.1", port, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    bucket = urllib.request.Request(f"http://127.0.0.1:{port}/latents", method="PUT")
    urllib.request.urlopen(bucket).close()
    sys.stdin.read()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
