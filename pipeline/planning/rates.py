"""How fast a job will be, from its two sides: opening images on cores, and the network on its device."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lvae.encode.devices import STAND_IN
from lvae.encode.feeding.encoder import Encoder
from lvae.encode.feeding.opening import open_row
from lvae.encode.feeding.stand_in import StandIn
from lvae.encode.networks.base import Autoencoder
from lvae.encode.part import BatchEncoder
from lvae.encode.sources.base import Reader
from lvae.manifests.parts.plan import Encoding
from lvae.manifests.parts.rows import ImageRow

TRIAL_SECONDS = 1.5  # of each side


@dataclass(frozen=True)
class Rates:
    """Images a second. network: of one device, or one core where there is none. opening: of one core.

    accelerated: the network computes beside the cores, otherwise on one of them, by turns with opening.
    """

    network: float
    opening: float
    accelerated: bool

    def of_all(self, workers: int, cores: int) -> float:
        """What so many workers do together with so many cores."""
        if self.accelerated:
            return min(self.network * workers, self.opening * cores)
        return workers / (1 / self.network + 1 / self.opening)

    def binds(self, workers: int, cores: int) -> str:
        """The side that the other one waits for."""
        if self.accelerated:
            return "opening" if self.opening * cores < self.network * workers else "network"
        return "opening" if self.opening < self.network else "network"

    def cores_wanted(self, workers: int) -> int:
        """So many that the devices need not wait for images."""
        return math.ceil(self.network * workers / self.opening)

    def describe(self, workers: int, cores: int) -> str:
        """One line for a person."""
        sides = f"network {self.network:.4g} images/s"
        opened = f"opening images {self.opening:.4g} images/s a core"
        if not self.accelerated:
            share = (1 / self.network) / (1 / self.network + 1 / self.opening)
            return f"{sides}, {opened}, by turns on one core: the network takes {share:.0%} of the time"
        if self.binds(workers, cores) == "network":
            return f"{sides} a device, {opened}: the network binds, {cores} cores are enough"
        wanted = self.cores_wanted(workers)
        return f"{sides} a device, {opened}: opening binds with {cores} cores, {wanted} would not"


def measure_rates(
    encoding: Encoding, network: Autoencoder, device: str, rows: list[ImageRow], reader: Reader
) -> Rates | None:
    """A few seconds of both sides; None where none of these rows can be opened."""
    encoder: BatchEncoder
    encoder = StandIn(encoding, device) if device.startswith(STAND_IN) else Encoder(encoding, network, device)
    opened = [(row, open_row(row, reader, encoding.image).pixels) for row in rows[: encoding.batch]]
    usable = [(row.key, pixels) for row, pixels in opened if pixels is not None]
    if not usable:
        return None
    keys, pixels = [key for key, _ in usable], [image for _, image in usable]
    repeated = [pixels[n % len(pixels)] for n in range(encoding.batch)]
    names = [keys[n % len(keys)] for n in range(encoding.batch)]
    encoder.submit(repeated, names).result()  # warms up
    waiting = deque([encoder.submit(repeated, names) for _ in range(encoder.in_flight - 1)])

    def encode_one() -> int:
        waiting.append(encoder.submit(repeated, names))
        waiting.popleft().result()
        return encoding.batch

    position = iter(range(1 << 62))

    def open_one() -> int:
        open_row(rows[next(position) % len(rows)], reader, encoding.image)
        return 1

    return Rates(_rate_of(encode_one), _rate_of(open_one), encoder.accelerated)


def _rate_of(work: Callable[[], int]) -> float:
    """How many things a second `work` does, each call some."""
    start, done = time.monotonic(), 0
    while (seconds := time.monotonic() - start) < TRIAL_SECONDS:
        done += work()
    return done / seconds
