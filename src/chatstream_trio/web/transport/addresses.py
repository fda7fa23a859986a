"""Addresses as proxies and browsers write them. Knows no request, and nobody's rights."""

from __future__ import annotations

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORT = r":(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)"  # RFC 7239: a port may be hidden, too
_WITH_PORT = re.compile(rf"\[([^\[\]]+)\](?:{_PORT})?|([0-9.]+){_PORT}")
_MOST = 100
"""Characters of the longest address, with a zone and a port."""


def parse_address(text: str) -> Address | None:
    """What this says, whatever it is written like: in brackets, with a port, with a zone, quoted.

    An IPv4 address in the form of an IPv6 one is the IPv4 address. None: it is no address.
    """
    if len(text) > _MOST:
        return None
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def network_of(address: Address) -> str:
    """Who lives there: one client has a whole /64 of IPv6 addresses, as networks hand them out.

    But all who share a link have its one network, ``fe80::/64``: there the address counts. The
    loopback address of IPv6 is that of IPv4: one machine, whichever of the two a name stands for.
    """
    if isinstance(address, ipaddress.IPv4Address) or address.is_link_local:
        return str(address)
    if address.is_loopback:
        return "127.0.0.1"
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def is_localhost(name: str) -> bool:
    """Whether this is the name of the machine itself: ``localhost``, or one below it."""
    return f".{name.lower().removesuffix('.')}".endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by a name or an address."""
    address = parse_address(host)
    return is_localhost(host) if address is None else address.is_loopback
