"""Who a client is: the key of a request, and what it may do.

With configured keys, the key. Without any: the address, as the trusted proxies tell it; or the
token presented, unverified, where the settings say so (on a loopback server by default,
where it tells apart the programs of one machine).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

from attrs import evolve, field, frozen
from quart import Request
from werkzeug.datastructures import Headers

from chatstream_trio.errors import NotAuthenticated
from chatstream_trio.settings import Settings
from chatstream_trio.web.forwarded import hearsay
from chatstream_trio.web.transport.addresses import is_loopback, network_of, parse_address

_NOBODY = "nobody"
"""The key of no request."""
_LONG = 256
"""Characters of a token that is a key as it is; a longer one is known by its digest."""


@frozen
class Client:
    """Whoever sent a request."""

    key: str = field(repr=False)
    """Whose its requests are; a secret may be part of it."""
    admin: bool = False
    """May cancel the requests of others."""
    sees_all: bool = False
    """May see the requests of others: an admin, or loopback while no keys are configured."""
    known: bool = True
    """Whether it can be told from others. Those who cannot share a key, and so a line and its caps;
    none of them may see or cancel what another asked, so none may at all."""

    def may_see(self, key: str) -> bool:
        """Whether it may see the requests of this key."""
        return self.sees_all or (self.known and key == self.key)

    @property
    def reach(self) -> str | None:
        """The key whose requests it may cancel; None: everybody's."""
        if self.admin:
            return None
        return self.key if self.known else _NOBODY


@frozen
class Clients:
    """Tells clients apart, by the settings."""

    settings: Settings

    def identify(self, request: Request) -> Client:
        """Whose request this is.

        Raises:
            NotAuthenticated: Keys are configured, and it presents none of them.
        """
        tokens = _tokens(request.headers)
        if self.settings.keys:
            return self._authenticate(tokens)
        stranger = self._stranger(request)
        if tokens and self._by_bearer():
            return evolve(stranger, key=_bearer_key(tokens[0]), known=True)
        return stranger

    def _authenticate(self, tokens: Sequence[str]) -> Client:
        for key, token in product(self.settings.keys, tokens):
            if hmac.compare_digest(key.secret.encode(), token.encode()):
                return Client(key.client, admin=key.admin, sees_all=key.admin)
        wanted = "a key that it knows" if tokens else "a key"
        raise NotAuthenticated(
            f"this server wants {wanted}: Authorization: Bearer KEY, or x-api-key: KEY"
        )

    def _by_bearer(self) -> bool:
        match self.settings.client_key:
            case "bearer":
                return True
            case "address":
                return False
            case _:
                return is_loopback(self.settings.host)

    def _stranger(self, request: Request) -> Client:
        """Whoever is at the address of the peer, or at that which the trusted proxies tell."""
        hops, header = self.settings.trust_proxy, self.settings.proxy_header
        told = hearsay(request.headers, header, hops)
        return _who_is_at((*told, request.remote_addr or ""), direct=not told, hops=hops)


@lru_cache(maxsize=1024)
def _who_is_at(chain: tuple[str, ...], *, direct: bool, hops: int) -> Client:
    """Who comes from the first of these, as the rest of them say, each of the one before.

    It is the same object for all requests from the same place. What is no address (``unknown``, a
    hidden one, garbage) is nobody's identity: not that of the proxy, which may be a client as well,
    and not the text, of which nobody knows who chose it. Loopback sees all if it came directly, or
    if every proxy said its part: where one kept silent, the address is that of a proxy.
    """
    first, *relays = map(parse_address, chain)
    if first is None:
        nearest = next((network_of(relay) for relay in relays if relay), None)
        return Client(f"unknown via {nearest}", known=False)
    whole = direct or len(chain) == hops + 1
    return Client(f"address {network_of(first)}", sees_all=whole and first.is_loopback)


def _tokens(headers: Headers) -> list[str]:
    """What it presents: a bearer token, and what Anthropic's clients send instead, or as well."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    bearer = token if scheme.lower() == "bearer" else ""
    presented = (bearer.strip(), headers.get("x-api-key", "").strip())
    return [token for token in presented if token]


def _bearer_key(token: str) -> str:
    """Long tokens are often signed ones, which begin alike: no part of one would do."""
    if len(token) > _LONG:
        token = "sha256 " + hashlib.sha256(token.encode()).hexdigest()
    return f"bearer {token}"
