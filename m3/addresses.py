"""Clients' addresses, and what of one counts as one client."""

from contextvars import ContextVar
from ipaddress import IPv6Address, IPv6Network, ip_address

#: Where the client is whose request or socket the task serves, where it serves one: for what is written down of it.
ASKED_FROM = ContextVar("ASKED_FROM", default="")

#: All that is no address counts together, or a proxy could be told another one each time.
UNKNOWN = "unknown"


def counted_as(address: str) -> str:
    """An IPv6 address counts as its /64, all of which one client has; one that stands for an IPv4 address as that."""
    try:
        ip = ip_address(address)
    except ValueError:
        return UNKNOWN
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))
    return str(ip)
