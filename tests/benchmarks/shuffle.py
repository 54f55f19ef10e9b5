"""The price of shuffling on a storage whose every request takes 20 ms: requests, bytes and seconds for 1,000 latents.

    python tests/benchmarks/shuffle.py [--rows 102400,1024000,10240000] [--latents 8192] [--two-passes]

A server of this script answers on loopback, over HTTP, each request after the latency, with as many bytes as were
asked for, whatever the part: so 10^7 latents 4x32x32 need no disk, and the order of them is all that is written. What
gathers is `shard_content`, in one process, as a worker does. Loopback has no bandwidth to speak of: bytes are
counted, and what they cost elsewhere is reckoning.

--two-passes: a prototype beside it. The first pass reads whole parts, PASS_PARTS at a time, normalizes, and puts the
latents of each group of shards as one object; the second reads a group's objects and puts them in order in memory.
"""

import argparse
import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace

import numpy as np
from machine import describe
from pipeline_overhead import cpu_seconds

from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings, Origin, Plan
from lvae.manifests.parts.rows import Listing, Segment
from lvae.manifests.shards.layout import SplitLayout
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.open import folder_at
from lvae.manifests.views.gather import shard_content
from lvae.manifests.views.order import ENTRY, OFFSETS, RAW_HASHES, entries_file
from lvae.manifests.views.view import ViewPlan, ViewSettings

PART_SIZE = 512
SHAPE = (4, 32, 32)
RAW_BYTES, STORED_BYTES = 16384, 8192  # of a latent: float32, float16
PASS_PARTS = 64  # 0.5 GiB of raw latents
GROUP_ROWS = 65536  # 0.5 GiB of normalized ones
ENCODING = Encoding(
    ImageSettings(256, "adm", "adm", False, (-1.0, 1.0)),
    AutoencoderRecord("kl-f8", {"kind": "kl"}, "0" * 64, 8, 4, "mode"),
    0,
    1,
    "float32",
    1,
)
NORMALIZATION = Normalization("channel", (0.1,) * 4, (0.9,) * 4)


@dataclass(frozen=True)
class Counted:
    requests: int
    sent: int
    received: int


class Server:
    """In a process of its own; counts what it is asked for."""

    def __init__(self, latency: float):
        command = [sys.executable, __file__, "--serve", str(latency)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def counted(self) -> Counted:
        """Since the last time."""
        with urllib.request.urlopen(f"{self.url}/counted") as answer:
            return Counted(*map(int, answer.read().split()))


def serve(latency: float) -> None:
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (PART_SIZE, *SHAPE)}
    np.lib.format.write_array_header_1_0(header, described)
    file, counts = header.getvalue() + bytes(64 << 20), [0, 0, 0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            except asyncio.IncompleteReadError:
                writer.close()
                return
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            if "/counted" in lines[0]:
                body = " ".join(map(str, counts)).encode()
                counts[:] = 0, 0, 0
            else:
                received = int(headers.get("content-length", 0))
                for start in range(0, received, 1 << 20):
                    await reader.readexactly(min(1 << 20, received - start))
                first, last = map(int, headers.get("range", "bytes=0--1").removeprefix("bytes=").split("-", 1))
                body = memoryview(file)[first : last + 1]
                counts[:] = counts[0] + 1, counts[1] + len(body), counts[2] + received
                await asyncio.sleep(latency)
            writer.write(f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            await writer.drain()

    async def run() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1 << 22)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


def plan_of(rows: int) -> Plan:
    segment = Segment("synthetic", rows, "0" * 64, PART_SIZE, None)
    return Plan("latent-vae-plan", 1, (Origin("synthetic", None, "source"),), Listing((segment,)), (), ENCODING)


def write_order(folder: Folder, rows: int) -> None:
    """The order files of a dataset that is taken whole."""
    offsets = np.append(np.arange(0, rows, PART_SIZE), rows).astype("<i8")
    folder.write(OFFSETS, offsets.tobytes())
    folder.write(RAW_HASHES, b"0" * 8 * (len(offsets) - 1))
    with folder.writer() as unfinished:
        for start in range(0, rows, 1 << 20):
            entries = np.zeros(min(1 << 20, rows - start), ENTRY)
            entries["raw"] = entries["row"] = np.arange(start, start + len(entries))
            unfinished.file.write(entries.tobytes())
        unfinished.commit(entries_file("train"))


def one_pass(server: Server, rows: int, latents: int) -> str:
    """A shard of so many latents, in the order of all."""
    layout = SplitLayout("train", rows, SHAPE, "float16", latents, False, False, 2, 0)
    view = ViewPlan("view", ViewSettings(shard_size=latents), NORMALIZATION, {"train": layout}, "0" * 64)
    with tempfile.TemporaryDirectory() as root:
        write_order(Folder(root), rows)
        folder = folder_at(server.url)
        write_order(Folder(f"{root}/warm"), PART_SIZE)
        warm = replace(view, layouts={"train": replace(layout, count=PART_SIZE)})
        shard_content(folder, plan_of(PART_SIZE), warm, "train", 0, Folder(f"{root}/warm"))  # imports, connects
        server.counted()
        start, cpu = time.monotonic(), cpu_seconds(os.getpid())
        count = len(shard_content(folder, plan_of(rows), view, "train", 0, Folder(root)).rows)
        seconds, cpu = time.monotonic() - start, cpu_seconds(os.getpid()) - cpu
    return line("coalesced reads", rows, count, server.counted(), seconds, cpu)


def two_passes(server: Server, rows: int) -> list[str]:
    """One window of the first pass and one group of the second, of a dataset of so many rows."""
    window_rows = PASS_PARTS * PART_SIZE
    windows, groups = -(-rows // window_rows), -(-rows // GROUP_ROWS)
    files = folder_at(server.url)._files  # type: ignore[attr-defined]
    names = [f"{server.url}/part-{number}" for number in range(PASS_PARTS)]
    server.counted()
    start, cpu = time.monotonic(), cpu_seconds(os.getpid())
    parts = files.cat_ranges(names, [128] * PASS_PARTS, [128 + PART_SIZE * RAW_BYTES] * PASS_PARTS, on_error="raise")
    stored = np.empty((window_rows, *SHAPE), np.float16)
    group_of = np.random.default_rng(0).integers(0, groups, window_rows)
    order = np.argsort(group_of, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(window_rows)
    for number, data in enumerate(parts):
        raw = np.frombuffer(data, np.float32).reshape(-1, *SHAPE)
        for first in range(0, PART_SIZE, 256):
            at = number * PART_SIZE + first
            stored[place[at : at + 256]] = NORMALIZATION.normalize(raw[first : first + 256], "float16")
    ends = np.cumsum(np.bincount(group_of, minlength=groups)) * STORED_BYTES
    data = memoryview(stored).cast("B")  # type: ignore[arg-type]
    objects = {
        f"{server.url}/group-{group}": bytes(data[begin:end])
        for group, (begin, end) in enumerate(zip([0, *ends.tolist()], ends.tolist(), strict=False))
    }
    files.pipe(objects)
    seconds, cpu = time.monotonic() - start, cpu_seconds(os.getpid()) - cpu
    lines = [line("first pass", rows, window_rows, server.counted(), seconds, cpu)]
    start, cpu = time.monotonic(), cpu_seconds(os.getpid())
    sizes = np.diff(np.linspace(0, min(GROUP_ROWS, rows), windows + 1).astype(int)) * STORED_BYTES
    pieces = files.cat_ranges(
        [f"{server.url}/group-{window}" for window in range(windows)], [0] * windows, sizes.tolist(), on_error="raise"
    )
    found = np.frombuffer(b"".join(pieces), np.float16).reshape(-1, *SHAPE)
    found[np.random.default_rng(0).permutation(len(found))]
    seconds, cpu = time.monotonic() - start, cpu_seconds(os.getpid()) - cpu
    return [*lines, line("second pass", rows, len(found), server.counted(), seconds, cpu)]


def line(what: str, rows: int, latents: int, counted: Counted, seconds: float, cpu: float) -> str:
    thousands = latents / 1000
    return (
        f"| {what} | {rows:,} | {latents:,} | {counted.requests / thousands:.1f} | "
        f"{(counted.sent + counted.received) / thousands / 1e6:.1f} | {seconds / thousands:.2f} | "
        f"{cpu / thousands:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="102400,1024000,10240000")
    parser.add_argument("--latents", type=int, default=8192, help="of a shard")
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--two-passes", action="store_true")
    options = parser.parse_args()
    lines = [f"{describe()}, load {os.getloadavg()[0]:.1f}, {options.latency * 1000:.0f} ms a request", ""]
    lines += ["| | rows | latents measured | requests for 1,000 | MB for 1,000 | s for 1,000 | CPU s for 1,000 |"]
    lines += ["|---" * 7 + "|"]
    server = Server(options.latency)
    try:
        for rows in map(int, options.rows.split(",")):
            lines.append(one_pass(server, rows, options.latents))
            print(lines[-1], flush=True)
            lines += two_passes(server, rows) if options.two_passes else []
    finally:
        server.process.terminate()
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(float(sys.argv[2]))
    else:
        main()
