"""A headless Chromium that opens one page and tells what happened, over the DevTools protocol."""

import asyncio
import base64
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
START_SECONDS, ANSWER_SECONDS = 60, 60


@dataclass
class Seen:
    """What one page did: URLs asked for, messages of the console and the log, answers, and a picture of it."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    picture: bytes = b""


def browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def look(
    page: Path, questions: tuple[str, ...] = (), dark: bool = False, width: int = 1200, height: int | None = None
) -> Seen:
    """Open a file and evaluate JavaScript in it. height: of the picture, the whole page unless given."""
    command = browser()
    assert command is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # its processes write until they end
        process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
        )
        try:
            return asyncio.run(_look(Path(profile), page, questions, dark, width, height))
        finally:
            process.terminate()
            process.wait(20)


async def _look(
    profile: Path, page: Path, questions: tuple[str, ...], dark: bool, width: int, height: int | None
) -> Seen:
    port = await _port(profile)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = await answer.json()
        address = next(one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            tab = _Tab(socket, Seen())
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.send(f"{domain}.enable")
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            await tab.send("Emulation.setEmulatedMedia", features=scheme)
            metrics = {"width": width, "height": height or 900, "deviceScaleFactor": 1, "mobile": width < 600}
            await tab.send("Emulation.setDeviceMetricsOverride", **metrics)
            await tab.send("Page.navigate", url=page.resolve().as_uri())
            await tab.until("Page.loadEventFired")
            for question in questions:
                answer = await tab.send("Runtime.evaluate", expression=question, returnByValue=True)
                tab.seen.answers.append(answer["result"].get("value"))
            shot = await tab.send("Page.captureScreenshot", format="png", captureBeyondViewport=height is None)
            tab.seen.picture = base64.b64decode(shot["data"])
            return tab.seen


async def _port(profile: Path) -> int:
    for _ in range(START_SECONDS * 10):
        file = profile / "DevToolsActivePort"
        if file.exists() and (lines := file.read_text().split()):
            return int(lines[0])
        await asyncio.sleep(0.1)
    raise TimeoutError("the browser did not start")


class _Tab:
    """One tab: commands go out, events come in and are written down."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, seen: Seen):
        self._socket, self._number, self._events = socket, 0, list[str]()
        self.seen = seen

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def until(self, event: str) -> None:
        while event not in self._events:
            await self._receive()

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=ANSWER_SECONDS)
        method, found = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.seen.requests.append(found["request"]["url"])
        elif method == "Log.entryAdded":
            self.seen.messages.append(found["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.seen.messages.append(str(found))
        return message
