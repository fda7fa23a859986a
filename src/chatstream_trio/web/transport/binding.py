"""The sockets that a server listens on. This module knows no server."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from chatstream_trio.web.transport.addresses import is_localhost

__all__ = ["bind"]

_BACKLOG = 1024
_TRIES = 8
"""At a port that is free in all families, when any will do."""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""This machine does not have that address, or no address of the family."""

_Place = tuple[int, str]
"""A family, and an address in it."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on ``host``, which may be a name or an IPv6 address.

    Call it before anything else is started: a port in use should cost nothing. A name is all its
    addresses that this machine has, on the one port; ``localhost`` is that of both families. Port 0
    picks a free one, and ``::`` means every interface in both families.

    Raises:
        OSError: It cannot be had.
    """
    try:
        places = _places(host.removeprefix("[").removesuffix("]"))
        for _ in range(_TRIES - 1):
            try:
                return _listen(places, port)
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE:
                    raise
        return _listen(places, port)
    except (ValueError, TypeError) as error:  # of names that no resolver would take
        raise OSError(errno.EINVAL, f"it is no host ({error})") from None


def _places(host: str) -> list[_Place]:
    if is_localhost(host):
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    if not host or ":" in host:
        return [(socket.AF_INET6 if host else socket.AF_INET, host)]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), str(address[0])) for family, *_, address in found))


def _listen(places: list[_Place], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, "there is no such address")
    with ExitStack() as stack:
        for family, address in places:
            both = address == "::" and socket.has_dualstack_ipv6()
            try:
                sock = socket.create_server(
                    (address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
                )
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
                continue
            sockets.append(stack.enter_context(sock))
            port = sock.getsockname()[1]
        if not sockets:
            raise missing
        stack.pop_all()
    return sockets
