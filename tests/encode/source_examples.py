"""Little pictures, what a SOURCE says of them, and servers that hold them."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources.base import Source
from lvae.encode.sources.open import open_reader, open_source
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow


@cache
def png(level: int = 0, side: int = 4) -> bytes:
    """A picture, another for every level, of noise so that nothing compresses it."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(level).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def listed(location: object) -> tuple[Source, list[ImageRow]]:
    source = open_source(str(location))
    rows = list(source.rows())
    seen = source.seen.sum
    assert rows == list(source.rows())
    assert seen == source.seen.sum
    assert len({row.key for row in rows}) == len(rows)
    return source, rows


def labels_of(location: object) -> dict[str, int]:
    return {row.key: row.label for row in listed(location)[1]}


def contents(location: object) -> dict[str, bytes]:
    """By key; every one of them opens."""
    source, rows = listed(location)
    reader = open_reader(source.kind, source.location)
    found = {row.key: reader.read(row) for row in rows}
    reader.close()
    for row in rows:
        assert row.length in (-1, len(found[row.key]))
        open_image(found[row.key])
    return found


def refused(location: object) -> str:
    with pytest.raises(LvaeError) as caught:
        list(open_source(str(location)).rows())
    said = str(caught.value)
    assert "\n" not in said
    return said


def survives(location: object) -> None:
    """Whatever the bytes are: rows or one line, and each row an image, a rejection or one line."""
    try:
        source = open_source(str(location))
        rows = list(source.rows())
        reader = open_reader(source.kind, source.location)
        for row in rows:
            try:
                open_image(reader.read(row))
            except ImageRejected as rejection:
                assert "\n" not in rejection.reason
        reader.close()
    except LvaeError as error:
        assert "\n" not in str(error)


class Server:
    """Files over HTTP, with ranges, or as Python's own server gives them. `fault` may spoil a request."""

    def __init__(self, root: Path, url: str):
        self.root, self.url = root, url
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.fault: Callable[[int], str] = lambda _: ""  # how often this was asked for -> "503", "404", "drop", "stall"
        self.ranges = True
        self.heads = True


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            asked = self.headers.get("Range", "")
            request = self.command, self.path, asked
            server.requests.append(request)
            fault = server.fault(server.requests.count(request))
            if fault == "stall":
                time.sleep(1.5)
            path = root / unquote(self.path.partition("?")[0]).lstrip("/")
            if fault.isdigit() or not path.exists() or not (server.heads or with_body):
                self.send_response(int(fault) if fault.isdigit() else 404 if not path.exists() else 405)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data, code, extra = self._page(path) if path.is_dir() else path.read_bytes(), 200, ""
            if asked and server.ranges:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                if int(first) >= len(data):
                    data, code, extra = b"", 416, f"bytes */{len(data)}"
                else:
                    piece = data[int(first) : int(last) + 1]
                    extra = f"bytes {first}-{int(first) + len(piece) - 1}/{len(data)}"
                    data, code = piece, 206
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            if path.is_dir():
                self.send_header("Content-Type", "text/html")
            if extra:
                self.send_header("Content-Range", extra)
            self.end_headers()
            if with_body:
                with suppress(OSError):  # a client that has waited long enough
                    self.wfile.write(data[: len(data) // 2] if fault == "drop" else data)
            self.close_connection = fault == "drop"

        def _page(self, path: Path) -> bytes:
            from urllib.parse import quote

            links = [quote(child.name) + "/" * child.is_dir() for child in path.iterdir()]
            lines = [f'<a href="{link}">{link}</a>' for link in ["?C=N;O=D", "../", *reversed(links)]]
            return "\n".join(lines).encode()

        def log_message(self, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(root, f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
