"""Which scores can be asked for, by what they are computed from."""

from collections.abc import Sequence

from lvae.manifests.errors import LvaeError

METRICS = ("fid", "sfid", "is", "kid", "pr", "agreement")  # of the Inception network
OWN_METRICS = ("frechet", "kernel", "pr", "agreement")  # of another network
LATENT_METRICS = ("frechet", "kernel", "pr")  # between normalized latents
PAIRED_METRICS = ("psnr", "ssim", "rfid")  # of reconstructions beside their originals; rfid by a network


def parse_metrics(text: str | None, known: Sequence[str], why: str) -> tuple[str, ...] | None:
    """ "fid,kid" -> names, or None for all. LvaeError for names that do not belong here."""
    if text is None:
        return None
    asked = tuple(part.strip() for part in text.split(","))
    for one in asked:
        if one not in known:
            raise LvaeError(f"--metrics {one:.40}", f"{why} has {', '.join(known)}")
    return asked
