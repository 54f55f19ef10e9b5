"""The price of shuffling on a storage whose every request takes 20 ms: requests, bytes and seconds for 1,000 latents.

    python tests/benchmarks/shuffle.py [--rows 100000,1000000] [--latents 8192] [--memory 64] [--record]

The folder counts what it is asked for and waits for it, 64 requests at a time, as the one on a store does; raw parts
are zeros that need no disk. What gathers and mixes is the product's own, in one process, as a worker does it. The
second pass reads what the first one wrote, so that the disk has to hold rows x 8 KiB. `--memory`: MiB of a window and
of a bundle of shards (1,024 in the product): fewer make as many windows of few rows as 1 GiB makes of many.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import describe

from lvae.manifests import records
from lvae.manifests.parts.erased_rows import ErasedRows
from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings, Origin, Plan
from lvae.manifests.parts.rows import Listing, Segment
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import SplitLayout
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views import mixing
from lvae.manifests.views.gather import shard_content
from lvae.manifests.views.order import OFFSETS, RAW_HASHES, STARTS
from lvae.manifests.views.order_files import ENTRY, FOLD, Fold, entries_file, groups_of, part_facts, parts_file
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewPlan, ViewSettings

RECORD = Path(__file__).with_suffix(".md")
PART_SIZE = 512
SHAPE = (4, 32, 32)
AT_ONCE = 64
ENCODING = Encoding(
    ImageSettings(256, "adm", "adm", False, (-1.0, 1.0)),
    AutoencoderRecord("kl-f8", {"kind": "kl"}, "0" * 64, 8, 4, "mode"),
    0,
    1,
    "float32",
    1,
)
NORMALIZATION = Normalization("channel", (0.1,) * 4, (0.9,) * 4)


class SlowFolder(Folder):
    """A folder that behaves like one on a store. Files of the order are there already; raw parts hold zeros."""

    remote = True

    def __init__(self, root: Path, latency: float):
        super().__init__(root)
        self._latency = latency
        self.requests = self.bytes = 0

    def read_pieces(self, pieces: Sequence[tuple[str, int, int]]) -> list[bytes]:
        self.requests += len(pieces)
        self.bytes += sum(stop - start for _, start, stop in pieces)
        time.sleep(self._latency * -(-len(pieces) // AT_ONCE))
        raw = bool(pieces) and pieces[0][0].startswith("raw/")
        return [bytes(stop - start) for _, start, stop in pieces] if raw else super().read_pieces(pieces)

    def taken(self) -> tuple[int, int]:
        """Requests and bytes since the last time."""
        found = self.requests, self.bytes
        self.requests = self.bytes = 0
        return found


def plan_of(rows: int) -> Plan:
    listing = Listing((Segment("synthetic", rows, "0" * 64, PART_SIZE, None),))
    return Plan("latent-vae-plan", 1, (Origin("synthetic", None, "source"),), listing, ErasedRows(), ENCODING)


def write_order(folder: Folder, plan: Plan) -> None:
    """The order of a dataset that is taken whole, as folding leaves it."""
    rows, fold = plan.listing.images, Fold("0" * 64, Selection(), False)
    folder.write(FOLD, records.dumps(fold))
    offsets = np.append(np.arange(0, rows, PART_SIZE), rows).astype("<i8")
    folder.write(OFFSETS, offsets.tobytes())
    folder.write(RAW_HASHES, b"0" * 8 * plan.listing.parts)
    starts = offsets[:: 1 << 10] if len(offsets) % (1 << 10) == 1 else np.append(offsets[:-1][:: 1 << 10], rows)
    folder.write(STARTS, np.stack([starts, starts]).astype("<i8").tobytes())
    for group in range(groups_of(plan)):
        first, stop = int(starts[group]), int(starts[group + 1])
        entries = np.zeros(stop - first, ENTRY)
        entries["raw"], entries["row"] = np.arange(stop - first), np.arange(first, stop)
        folder.write(entries_file(group, "train"), entries.tobytes())
        facts = np.zeros(-(-(stop - first) // PART_SIZE), part_facts(plan, 1))
        facts["latents"] = facts["selected"][:, 0] = np.diff(np.append(np.arange(first, stop, PART_SIZE), stop))
        folder.write(parts_file(group), facts.tobytes())


def measure(rows: int, latents: int, latency: float) -> list[str]:
    layout = SplitLayout("train", rows, SHAPE, "float16", latents, False, False, 2, 0)
    view = ViewPlan("view", ViewSettings(shard_size=latents), NORMALIZATION, {"train": layout}, "0" * 64)
    plan = plan_of(rows)
    lines = []
    with tempfile.TemporaryDirectory() as root:
        folder = SlowFolder(Path(root), latency)
        write_order(folder, plan)
        codec("zarr").prepare(folder, view.name, layout)

        def line(what: str, count: int, start: float, cpu: float) -> None:
            seconds, cpu = time.monotonic() - start, time.process_time() - cpu
            (requests, size), thousands = folder.taken(), count / 1000
            cells = f"{requests / thousands:.1f} | {size / thousands / 1e6:.1f} | {seconds / thousands:.2f}"
            lines.append(f"| {what} | {rows:,} | {count:,} | {cells} | {cpu / thousands:.2f} |")
            print(lines[-1], flush=True)

        start, cpu = time.monotonic(), time.process_time()
        line("one pass: a shard", len(shard_content(folder, plan, view, "train", 0).rows), start, cpu)
        wanted = mixing.plan_mixing(view, folder)
        mixing.begin_mixing(folder, view, wanted)
        start, cpu = time.monotonic(), time.process_time()
        for window in range(wanted.windows):
            mixing.mix_window(folder, plan, view, wanted, window)
        line(f"first pass: {wanted.windows} windows", rows, start, cpu)
        start, cpu = time.monotonic(), time.process_time()
        bundles = mixing.bundles_of(view, wanted)
        for number in range(len(bundles)):
            mixing.write_mixed_shards(folder, plan, view, wanted, number)
        line(f"second pass: {len(bundles)} bundles", rows, start, cpu)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000")
    parser.add_argument("--latents", type=int, default=8192, help="of a shard")
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--memory", type=int, default=64, metavar="MiB")
    parser.add_argument("--record", action="store_true", help="write shuffle.md")
    options = parser.parse_args()
    mixing.MEMORY_BYTES = options.memory << 20
    lines = [
        f"{describe()}, load {os.getloadavg()[0]:.1f}, {options.latency * 1000:.0f} ms a request, "
        f"latents 4x32x32, parts of {PART_SIZE}, windows and bundles of {options.memory} MiB",
        "",
        "| | rows | latents measured | requests for 1,000 | MB for 1,000 | s for 1,000 | CPU s for 1,000 |",
        "|---" * 7 + "|",
    ]
    for rows in map(int, options.rows.split(",")):
        lines += measure(rows, options.latents, options.latency)
    print("\n".join(lines))
    if options.record:
        command = f"`python tests/benchmarks/shuffle.py --rows {options.rows} --memory {options.memory} --record`"
        RECORD.write_text("# Shuffling over a slow storage\n\n" + command + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
