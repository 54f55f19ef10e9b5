"""The page's server: itself, what it may ask for, and nothing else. No path that a browser sends reaches the disk."""

import asyncio
import base64
import gc
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lvae.encode.images import ImageRejected
from lvae.evaluate.explore.channels import Channel
from lvae.evaluate.explore.painter import Painter, Tab
from lvae.evaluate.explore.view import FARTHEST, PLAIN, Move, Subject, View, command_of, parse_view
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.figures.grids import name_class
from lvae.manifests.errors import LvaeError

T = TypeVar("T")

MOST_UPLOAD = 32 << 20  # bytes
MOST_VIEW = 64 << 10
MOST_TABS = 16  # whose activations are kept; others begin anew
MOST_NAMES = 256
ASSETS = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Named:
    """What the command line called the run and the dataset, for the command that makes the same picture."""

    run: str
    dataset: str | None


class Page:
    """One run for any number of tabs. Pictures are made one after the other."""

    def __init__(self, painter: Painter, channels: dict[int, list[Channel]], named: Named):
        self._painter, self._channels, self._named = painter, channels, named
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1)  # torch keeps threads of its own for every thread that computes
        self._tabs: OrderedDict[str, Tab] = OrderedDict()
        self._names: OrderedDict[str, str] = OrderedDict()

    def warm_up(self) -> None:
        """Make pictures as a hand asks for them, so that the first ones do not wait for what is set up once.

        What is in memory now stays, so the garbage collector need not look at it while a picture is waited for.
        """
        begin = PLAIN if self._painter.dataset is None else replace(PLAIN, subject=Subject("index"))
        moved = (Move(channels[0].group, channels[0].channel, 1.0) for channels in self._channels.values() if channels)
        views = [PLAIN, begin, *(replace(begin, moves=(move,)) for move in moved)]
        self._worker.submit(self._paint_all, views).result()
        gc.collect()
        gc.freeze()

    def _paint_all(self, views: Sequence[View]) -> None:
        mine = Tab()
        for view in views:
            png(Image.fromarray(self._painter.paint(view, mine)))

    async def work(self, call: Callable[[], T]) -> T:
        """What a call gives, made by the thread of pictures."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def about(self) -> dict[str, Any]:
        """What the page's controls are made of."""
        loaded = self._painter.loaded
        config, record = loaded.model.config, loaded.config.dataset
        dataset = self._painter.dataset
        return {
            "run": Path(loaded.run).name,
            "size": record.image.size,
            "places": config.resolution,
            "classes": [name_class(label, record.classes) for label in range(config.classes)],
            "guided": bool(config.classes and config.hierarchical_prior),
            "beyond": config.resolutions[-1] == 1,
            "images": 0 if dataset is None else len(dataset),
            "encodes": loaded.network is not None,
            "farthest": FARTHEST,
            "resolutions": [
                {
                    "resolution": resolution,
                    "channels": [{"group": one.group, "channel": one.channel, "nats": one.nats} for one in channels],
                }
                for resolution, channels in self._channels.items()
            ],
        }

    def take_image(self, data: bytes, name: str) -> dict[str, str]:
        mark = secrets.token_hex(8)
        with self._lock:
            self._painter.add_image(mark, data)
            self._names[mark] = name
            while len(self._names) > MOST_NAMES:
                self._names.popitem(last=False)
        return {"image": mark}

    def paint(self, data: bytes, tab: str) -> dict[str, Any]:
        """The picture of a view, the command that makes the same, and the class of a dataset's image."""
        view = parse_view(data, self._painter.loaded.model.config)
        with self._lock:
            mine = self._tabs.setdefault(tab, Tab())
            self._tabs.move_to_end(tab)
            while len(self._tabs) > MOST_TABS:
                self._tabs.popitem(last=False)
            pixels = self._painter.paint(view, mine)
            command = command_of(view, self._named.run, self._named.dataset, dict(self._names))
            label = self._painter.label_at(view.subject.number) if view.subject.kind == "index" else -1
        picture = base64.b64encode(png(Image.fromarray(pixels))).decode()
        return {"picture": f"data:image/png;base64,{picture}", "command": command, "label": label}


def make_app(page: Page, token: str, hosts: Sequence[str], by_number: bool = False) -> Starlette:
    """hosts: the names under which this server may be asked for; a page elsewhere cannot pretend to be it.

    by_number: any IP address besides, which no page elsewhere can be called.
    """

    def asset(name: str) -> Callable[[Request], Awaitable[Response]]:
        file, kind = ASSETS[name]

        async def send(_: Request) -> Response:
            return Response((Path(__file__).parent / file).read_bytes(), media_type=kind)

        return send

    async def about(_: Request) -> Response:
        return JSONResponse(page.about())

    async def image(request: Request) -> Response:
        data = await _body(request, MOST_UPLOAD)
        name = _plain_name(request.query_params.get("name", ""))
        return JSONResponse(await page.work(partial(page.take_image, data, name)))

    async def picture(request: Request) -> Response:
        data = await _body(request, MOST_VIEW)
        tab = request.query_params.get("tab", "")[:64]
        return JSONResponse(await page.work(partial(page.paint, data, tab)))

    def guarded(handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            given = request.path_params.get("token", "")
            host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
            known = host in hosts or (by_number and _is_address(host))
            if not (secrets.compare_digest(given.encode(), token.encode()) and known):
                return Response("Not found", 404, HEADERS)
            try:
                response = await handle(request)
            except (LvaeError, ImageRejected) as error:
                text = str(error.reason) if isinstance(error, ImageRejected) else str(error)
                response = JSONResponse({"error": text}, 400)
            except ClientDisconnect:
                response = Response(status_code=400)
            response.headers.update(HEADERS)
            return response

        return answer

    return Starlette(
        routes=[
            *(Route(f"/{{token}}/{name}", guarded(asset(name))) for name in ASSETS),
            Route("/{token}/about", guarded(about)),
            Route("/{token}/image", guarded(image), methods=["POST"]),
            Route("/{token}/picture", guarded(picture), methods=["POST"]),
        ]
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


async def _body(request: Request, most: int) -> bytes:
    """What was sent, up to a bound; nothing is kept of what is larger."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise LvaeError("", f"that is more than {most >> 20 or 1} MiB", "Choose a smaller file.")
    return bytes(data)


def _plain_name(name: str) -> str:
    """What a file was called, for a command that a person copies: never a path, never an option."""
    plain = Path(name.replace("\\", "/")).name
    plain = "".join(letter for letter in plain if letter.isprintable())[:200]
    return f"./{plain}" if plain.startswith("-") else plain or "image.png"
