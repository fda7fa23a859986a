"""Who a client is: the key of a request, and what it may do.

With configured keys, the key. Without any: the address, as the trusted proxies tell it; or the
bearer token presented, unverified, where the settings say so (on a loopback server by default,
where it tells apart the programs of one machine).
"""

from __future__ import annotations

import hmac
import ipaddress
from functools import lru_cache

from attrs import define, evolve, field, frozen
from quart import Request
from werkzeug.datastructures import Headers

from chatstream_trio.errors import NotAuthenticated, SettingsError
from chatstream_trio.settings import Settings


@frozen
class Client:
    """Whoever sent a request."""

    key: str
    admin: bool = False
    """May cancel the requests of others."""
    sees_all: bool = False
    """May see the requests of others: an admin, or loopback while no keys are configured."""


@define
class Clients:
    """Tells clients apart, by the settings.

    Raises:
        SettingsError: A configured key is malformed.
    """

    settings: Settings
    weights: dict[str, float] = field(init=False)
    """Client key -> share of the seats, where it is not 1."""
    _keys: dict[str, bool] = field(factory=dict, init=False)
    """Configured key -> whether it is an admin's."""

    def __attrs_post_init__(self) -> None:
        self.weights = {}
        for text in self.settings.api_key:
            name, weight = _parse_key(text)
            self._keys[name] = False
            if weight != 1:
                self.weights[_api(name)] = weight
        for text in self.settings.admin_key:
            self._keys[_parse_key(text)[0]] = True

    def identify(self, request: Request) -> Client:
        """Whose request this is.

        Raises:
            NotAuthenticated: Keys are configured, and it presents none of them.
        """
        bearer = _bearer(request.headers)
        if self._keys:
            return self._authenticate(bearer)
        stranger = _stranger(self._address(request))
        if bearer and self._by_bearer():
            return evolve(stranger, key=f"bearer {bearer}")
        return stranger

    def _authenticate(self, bearer: str) -> Client:
        for key, admin in self._keys.items():
            if hmac.compare_digest(key.encode(), bearer.encode()):
                return Client(_api(key), admin=admin, sees_all=admin)
        raise NotAuthenticated(
            "this server wants a key that it knows: Authorization: Bearer KEY"
            if bearer
            else "this server wants a key: Authorization: Bearer KEY"
        )

    def _by_bearer(self) -> bool:
        match self.settings.client_key:
            case "bearer":
                return True
            case "address":
                return False
            case _:
                return self.settings.host == "localhost" or _is_loopback(self.settings.host)

    def _address(self, request: Request) -> str:
        """The peer, or whom the last ``trust_proxy`` proxies say they serve."""
        chain = [request.remote_addr or ""]
        if hops := self.settings.trust_proxy:
            forwarded = request.headers.get("X-Forwarded-For", "")
            chain = [*(part.strip() for part in forwarded.split(",") if part.strip()), *chain]
            chain = chain[-(hops + 1) :]
        return chain[0]


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parse_address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _is_loopback(host: str) -> bool:
    address = _parse_address(host)
    return address is not None and address.is_loopback


@lru_cache(maxsize=1024)
def _stranger(address: str) -> Client:
    """Who comes from there: the same object for all requests from the same place."""
    parsed = _parse_address(address)
    return Client(f"address {_network(parsed)}", sees_all=parsed is not None and parsed.is_loopback)


def _network(address: _Address | None) -> str:
    """One client has a whole /64 of IPv6 addresses, as networks hand them out."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip()[:256] if scheme.lower() == "bearer" else ""


def _api(key: str) -> str:
    return f"key {key}"


def _parse_key(text: str) -> tuple[str, float]:
    """``KEY`` or ``KEY=WEIGHT``; what follows the last "=" is a weight if it is a number."""
    name, _, last = text.rpartition("=")
    try:
        weight = float(last) if name else 1.0
    except ValueError:
        weight = 1.0
    else:
        text = name or text
    if not text or not text.isascii() or not 0.001 <= weight <= 1000:
        raise SettingsError(
            "a key is KEY or KEY=WEIGHT, in ASCII, with a weight from 0.001 to 1000",
            param="api_key",
        )
    return text, weight
