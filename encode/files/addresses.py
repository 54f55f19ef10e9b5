"""Which network addresses may be asked for images, where a list comes from somebody else.

Checked is the address that is really connected to, after every name has been resolved and every redirect followed: so
neither a name, nor another spelling of a number, nor a redirect leads to a machine of the local network.
"""

import ipaddress
import socket
from typing import Any

from lvae.manifests.errors import LvaeError

OPTION = "--refuse-private-addresses"
STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"})  # hosts are set up here
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
CLOUD_SERVICES = frozenset({"168.63.129.16"})  # that answer on an address which is public by its number


class PublicOnly:
    """Whether requests of this process may go to public addresses alone: one answer for all threads."""

    on = False


def is_public(address: str) -> bool:
    """Of a number, however IPv6 wraps an older one: not of this machine or network, and nobody's metadata."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in NAT64 or int(found) >> 32 == 0:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is not None or found.is_site_local:
            return inside is not None and is_public(str(inside))
    return found.is_global and not found.is_multicast and str(found) not in CLOUD_SERVICES


def connect_to_public(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address as getaddrinfo gives it. LvaeError where it is not public."""
    family, kind, protocol, _, place = address
    if not is_public(place[0]):
        raise LvaeError(place[0], "is no public address, and none other may be asked", f"See {OPTION}.")
    return socket.socket(family, kind, protocol)


async def open_session(**settings: Any) -> Any:
    """An HTTP session that connects to public addresses alone."""
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=connect_to_public), **settings)


def refuse_protocol(url: str) -> None:
    """LvaeError for a URL of which it cannot be told where it leads."""
    scheme = url.partition("://")[0].lower()
    if scheme not in STORES | {"http", "https", "file", "local"}:
        raise LvaeError(url, f"{scheme}:// cannot be held to public addresses", f"See {OPTION}.")
