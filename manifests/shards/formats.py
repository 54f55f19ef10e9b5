"""The codec of a shard format, by its name."""

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.layout import Codec


def codec(name: str) -> Codec:
    """The format of this name: "zarr" or "webdataset"."""
    if name == "zarr":
        from lvae.manifests.shards.zarr_format import ZarrCodec

        return ZarrCodec()
    if name == "webdataset":
        from lvae.manifests.shards.webdataset_format import WebDatasetCodec

        return WebDatasetCodec()
    raise LvaeError(f"format {name!r}", "there is no such shard format", "Choose zarr or webdataset.")
