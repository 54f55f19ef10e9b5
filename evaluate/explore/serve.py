"""The server of the page: on this machine alone unless a host is named, under an address that nobody guesses."""

import secrets
import socket
from collections.abc import Callable

import uvicorn

from lvae.evaluate.explore.app import Page, make_app
from lvae.manifests.errors import LvaeError

LOCAL = ("127.0.0.1", "localhost")
EVERYWHERE = "0.0.0.0"  # every network of this machine, which is no address to open


def serve(page: Page, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer until the process is interrupted. ready: is told the address. port: 0 for a free one."""
    listening = _listen(host, port)
    token = secrets.token_urlsafe(18)
    name = socket.gethostname() if host == EVERYWHERE else host
    address = f"http://{name}:{listening.getsockname()[1]}/{token}/"
    app = make_app(page, token, (*LOCAL, name), by_number=host == EVERYWHERE)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
    ready(address)
    with listening:
        uvicorn.Server(settings).run([listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(64)
    except OSError as error:
        raise LvaeError(f"--host {host} --port {port}", f"cannot be listened at ({error.strerror})") from error
    return found
