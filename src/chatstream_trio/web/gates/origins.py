"""By which names the server may be reached, and from which web pages.

A page on the web can send requests to whatever its reader's browser can reach, a server on the
reader's own loopback address included. By a name of its own that it lets point there (DNS
rebinding) it could even read the answers; a body that claims to be text is sent without asking
first. A browser says both in headers that no page can forge: ``Host`` is the name that the page
used, ``Origin`` is the page. This module knows no server and sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import define, field, frozen

from chatstream_trio.errors import HostNotAllowed, InvalidRequest, OriginNotAllowed, SettingsError
from chatstream_trio.settings import Settings
from chatstream_trio.web.transport.addresses import is_loopback, parse_address

ANY = "*"

_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_HOST = re.compile(r"(\[[^\[\]]+\]|[A-Za-z0-9._-]+?)\.?(?::([0-9]{0,5}))?", re.ASCII)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)", re.ASCII | re.IGNORECASE)


@frozen
class Host:
    """A name or an address, and a port if one was written."""

    name: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Host | None:
        """What a ``Host`` header says, in lower case; None if that is no host."""
        match = _HOST.fullmatch(text)
        if match is None:
            return None
        name = match[1].lower()
        address = parse_address(name)
        if address is not None:
            name = str(address)
        elif name[0] == "[" or not all(0 < len(label) < 64 for label in name.split(".")):
            return None
        return cls(name, int(match[2]) if match[2] else None)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine is reached by it."""
        return is_loopback(self.name)


@frozen
class Visit:
    """What a request says of how it came here."""

    hosts: Sequence[str]
    """``Host``, and the host in the target where that is a whole URL; without them it came by a
    program that names none, which no browser does."""
    origins: Sequence[str]
    """``Origin``: at most one from a browser."""
    scheme: str
    """That of the connection."""
    server: str | None
    """The address of ours that it came to."""


@define
class Origins:
    """The names and the pages that the settings allow.

    Raises:
        SettingsError: One of them is malformed.
    """

    settings: Settings
    _names: set[str] = field(factory=set, init=False)
    _pages: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        for text in self.settings.allowed_host:
            self._names.add(text if text == ANY else _own_name(text))
        for text in self.settings.cors_origin:
            self._pages.add(text if text == ANY else _page(text))

    def check(self, visit: Visit) -> str | None:
        """Let the request pass, and say which origin to allow to read the answer, if any.

        Raises:
            InvalidRequest: ``Host`` is no host.
            HostNotAllowed: It came by a name that is none of ours.
            OriginNotAllowed: It came from a page that is none of ours and not allowed.
        """
        hosts = [_host(text) for text in visit.hosts if text]
        if self._asks_for_the_name(visit.server):
            for host in hosts:
                if not self._is_ours(host, visit.server):
                    raise HostNotAllowed(
                        f"this server does not answer to the name {host.name[:100]!r}; if it is one"
                        " of its names, such as that of a proxy in front, it needs --allowed-host"
                        f" {host.name[:100]}",
                        param="Host",
                    )
        if not visit.origins:
            return None
        origin = visit.origins[0]
        if len(visit.origins) == 1 and _is_own_page(origin, hosts, visit.scheme):
            return None
        if len(visit.origins) == 1 and _normal(origin) in self._pages:
            return origin
        if ANY in self._pages:
            return ANY
        raise OriginNotAllowed(
            f"the page at {origin[:100]!r} may not use this server; to allow it, start the server"
            f" with --cors-origin {origin[:100]}; if it is the server's own page, have the proxy in"
            " front pass the Host header on",
            param="Origin",
        )

    def _asks_for_the_name(self, server: str | None) -> bool:
        """Names matter on loopback, or once some are given.

        An app of somebody else's may be served elsewhere than its settings say.
        """
        if self._names:
            return True
        return self.settings.host not in _EVERYWHERE and is_loopback(server or "")

    def _is_ours(self, host: Host, server: str | None) -> bool:
        if host.is_loopback or ANY in self._names or host.name in self._names:
            return True
        ours = (Host.parse(_bracket(name)) for name in (self.settings.host, server or ""))
        return host.name in [one.name for one in ours if one]


def _host(text: str) -> Host:
    host = Host.parse(text)
    if host is None:
        raise InvalidRequest(f"{text[:100]!r} is no host", param="Host")
    return host


def _own_name(text: str) -> str:
    host = Host.parse(_bracket(text))
    if host is None or host.port is not None:
        raise SettingsError(
            f"allowed_host must be a host name, without scheme, port and path; it is {text!r}",
            param="allowed_host",
        )
    return host.name


def _bracket(name: str) -> str:
    """An address of IPv6 is in brackets in a URL, and in settings mostly not."""
    return f"[{name}]" if ":" in name and name[0] != "[" else name


def _page(text: str) -> str:
    origin = _normal(text) or _normal(text.removesuffix("/"))
    if origin is None:
        raise SettingsError(
            f"cors_origin must be an origin such as https://chat.example, or *; it is {text!r}",
            param="cors_origin",
        )
    return origin


def _normal(origin: str) -> str | None:
    """An origin in the one form in which two of them can be compared; None if it is none."""
    if origin.lower() == "null":
        return "null"
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme, authority = match[1].lower(), match[2]
    host = Host.parse(authority)
    if host is None:
        return None if authority or scheme in _PORTS else f"{scheme}://"
    port = host.port or _PORTS.get(scheme)
    return f"{scheme}://{host.name} {port}"


def _is_own_page(origin: str, hosts: Sequence[Host], scheme: str) -> bool:
    """Whether the page came from where its request goes to.

    The page may have come by HTTPS where this connection did not: a proxy took the TLS off.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False
    page, its_scheme = Host.parse(match[2]), match[1].lower()
    if page is None or its_scheme not in (
        "https",
        {"ws": "http", "wss": "https"}.get(scheme, scheme),
    ):
        return False
    default = _PORTS.get(its_scheme)
    there = (page.name, page.port or default)
    return bool(hosts) and all((host.name, host.port or default) == there for host in hosts)
