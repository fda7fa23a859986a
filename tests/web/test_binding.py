"""Where the server listens: one address or all that a name stands for, on one port."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from chatstream_trio.web.transport import binding
from chatstream_trio.web.transport.server import bind


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@contextlib.contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[tuple[str, int]]]:
    """Addresses and ports that are listened on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in bind(host, port)]
        yield [sock.getsockname()[:2] for sock in sockets]


@IPV6
@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost.", "my.localhost"])
def test_localhost_is_both_families(host: str) -> None:
    """Whichever of the two a client tries first, it finds the server, on the one port."""
    with bound(host) as addresses:
        (_, port), _ = addresses
        assert addresses == [("127.0.0.1", port), ("::1", port)]
        for address in addresses:
            socket.create_connection(address).close()
    with bound(host, port) as again:
        assert again == addresses


def refuse(monkeypatch: pytest.MonkeyPatch, code: int, *addresses: str, times: int = 99) -> None:
    """Let these addresses not be had, the first few times."""
    create, left = socket.create_server, [times]

    def create_server(address: tuple[str, int], **options: Any) -> socket.socket:
        if address[0] in addresses and left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return create(address, **options)

    monkeypatch.setattr(binding.socket, "create_server", create_server)


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_machine_without_a_family(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """It listens on the other; on none there is an error."""
    refuse(monkeypatch, code, "::1")
    with bound("localhost") as addresses:
        assert [address for address, _ in addresses] == ["127.0.0.1"]
    with pytest.raises(OSError, match=os.strerror(code)):
        bind("::1", 0)
    refuse(monkeypatch, code, "127.0.0.1")
    with pytest.raises(OSError, match=os.strerror(code)):
        bind("localhost", 0)


@IPV6
def test_a_port_that_only_one_family_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another is picked if any will do; one that was asked for is in use."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            bind("localhost", port)
        socket.create_server(("127.0.0.1", port)).close()  # nothing of it is left
    refuse(monkeypatch, errno.EADDRINUSE, "::1", times=3)
    with bound("localhost") as addresses:
        assert len({port for _, port in addresses}) == 1
        assert len(addresses) == 2
    refuse(monkeypatch, errno.EADDRINUSE, "::1")
    with pytest.raises(OSError, match="in use"):
        bind("localhost", 0)


def test_a_name_is_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this machine has."""
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.3", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
    ]
    monkeypatch.setattr(binding.socket, "getaddrinfo", lambda *_, **__: found)
    refuse(monkeypatch, errno.EADDRNOTAVAIL, "192.0.2.1")
    with bound("my-box") as addresses:
        assert [address for address, _ in addresses] == ["127.0.0.2", "127.0.0.3"]


def test_one_address_is_one() -> None:
    """Also in brackets; and all of them, in one family or both."""
    with bound("127.0.0.1") as addresses:
        assert [address for address, _ in addresses] == ["127.0.0.1"]
    for everywhere in ("0.0.0.0", ""):
        with bound(everywhere) as addresses:
            assert [address for address, _ in addresses] == ["0.0.0.0"]


@IPV6
@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]"])
def test_an_address_of_ipv6(host: str) -> None:
    """Every interface means both families."""
    with bound(host) as addresses:
        ((address, port),) = addresses
        assert address == host.strip("[]")
        if address == "::":
            socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    "host", ["no.such.name.invalid", "a" * 70, "a..b", "ü" * 70, "a\0b", "::\0"]
)
def test_a_name_that_is_none(host: str) -> None:
    """One kind of error, whatever is wrong with it."""
    with pytest.raises(OSError, match=r"."):
        bind(host, 0)
