"""How the workers of a job are fed: which devices they compute on, and how many images are opened ahead for them."""

from dataclasses import dataclass

PREFETCH = 8  # batches


@dataclass(frozen=True)
class Feeding:
    """What changes no byte of a dataset.

    devices: as the command line says them. decoders: processes that open images, for each worker; None for as many as
    suit its device, 0 for none. prefetch: batches that are opened ahead, at most: what bounds a worker's memory.
    """

    devices: tuple[str, ...]
    decoders: int | None = None
    prefetch: int = PREFETCH
