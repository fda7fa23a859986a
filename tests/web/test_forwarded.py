"""A client behind proxies: what the trusted ones wrote is who it is, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from quart import request
from quart_trio import QuartTrio
from served import House, open_house
from werkzeug.datastructures import Headers

from chatstream_trio import Settings, SettingsError
from chatstream_trio.web.clients import Client, Clients
from conftest import RawClient, RawResponse

pytestmark = pytest.mark.trio

PROXY = "9.9.9.9"
XFF = "X-Forwarded-For"


async def identify(
    *lines: str, header: str = XFF, peer: str = PROXY, extra: Any = (), **settings: Any
) -> Client:
    """Who a request with these lines of the header is, behind one proxy unless told."""
    chosen = Settings(**{"host": "0.0.0.0", "trust_proxy": 1, **settings})
    sent = [("Remote-Addr", peer), *((header, line) for line in lines), *extra]
    app = QuartTrio("forwarded")
    async with app.test_request_context("/", headers=Headers(sent)):
        return Clients(chosen).identify(request)


@pytest.mark.parametrize(
    ("hops", "lines", "address"),
    [
        (0, ["1.1.1.1"], PROXY),
        (1, ["1.1.1.1"], "1.1.1.1"),
        (1, ["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
        (1, ["6.6.6.6, 7.7.7.7", "1.1.1.1"], "1.1.1.1"),
        (1, ["6.6.6.6", "7.7.7.7,1.1.1.1"], "1.1.1.1"),
        (1, ["6.6.6.6 ,\t 1.1.1.1 "], "1.1.1.1"),
        (1, ["", "1.1.1.1"], "1.1.1.1"),
        (1, [",,, ,1.1.1.1"], "1.1.1.1"),
        (1, ["127.0.0.1", "1.1.1.1"], "1.1.1.1"),
        (1, ["junk", "1.1.1.1"], "1.1.1.1"),
        (2, ["6.6.6.6", "2.2.2.2", "1.1.1.1"], "2.2.2.2"),
        (2, ["6.6.6.6, 2.2.2.2", "1.1.1.1"], "2.2.2.2"),
        (2, ["6.6.6.6, 2.2.2.2, unknown"], "2.2.2.2"),
        (3, ["1.1.1.1"], "1.1.1.1"),
        (1, [], PROXY),
    ],
)
async def test_only_the_trusted_hops_count(hops: int, lines: list[str], address: str) -> None:
    """However many lines there are, the last entries are those of the proxies."""
    client = await identify(*lines, trust_proxy=hops)
    assert client == Client(f"address {address}")


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:5678", "1.2.3.4"),
        ("1.2.3.4:_hidden", "1.2.3.4"),
        ('"1.2.3.4:5678"', "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::FFFF:1.2.3.4]:80", "1.2.3.4"),
        ("2001:db8::1:2", "2001:db8::/64"),
        ("2001:DB8:0::3", "2001:db8::/64"),
        ("[2001:db8::1:2]", "2001:db8::/64"),
        ("[2001:db8::1:2]:443", "2001:db8::/64"),
        ('"[2001:db8::1:2]:443"', "2001:db8::/64"),
        ("2001:db8::1%eth0", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]:80", "fe80::1%eth0"),
        ("fe80::2%eth0", "fe80::2%eth0"),
    ],
)
async def test_addresses_in_every_form(written: str, address: str) -> None:
    """A port is nobody's name; a link has one network, and many who live on it."""
    assert (await identify(written)).key == f"address {address}"
    node = written if written.isascii() and written[0] == '"' else f'"{written}"'
    spoken = await identify(f"for={node}", header="Forwarded", proxy_header="forwarded")
    assert spoken.key == f"address {address}"


@pytest.mark.parametrize(
    "junk",
    [
        "unknown", "_hidden", "", "junk", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4:", "[::1",
        "::1]", "[1.2.3.4]x", "1.2.3.4:99999999", "16909060", "0x7f000001", "localhost", "unix:",
        "127.0.0.1.", "<local>", "1.2.3.4 5.6.7.8", "1.1.1.1;2.2.2.2", "１.２.３.４", "x" * 10_000,
        "::1%", '"1.2.3.4',
    ],
)  # fmt: skip
async def test_what_is_no_address_is_nobody(junk: str) -> None:
    """It is neither anybody's identity nor loopback: it shares a line, and owns nothing."""
    client = await identify(f"6.6.6.6, {junk}", peer="127.0.0.1")
    assert client == Client("unknown via 127.0.0.1", known=False)
    assert not client.may_see(client.key)
    assert client.reach not in (None, client.key)
    two = await identify(f"{junk}, 4.4.4.4", trust_proxy=2)
    assert two == Client("unknown via 4.4.4.4", known=False)


@pytest.mark.parametrize("peer", ["", "<local>", "unix:"])
async def test_a_peer_without_an_address_is_nobody(peer: str) -> None:
    """Such as one that comes in by a socket in the file system."""
    assert await identify(peer=peer, trust_proxy=0) == Client("unknown via None", known=False)
    assert (await identify("1.1.1.1", peer=peer)).key == "address 1.1.1.1"


async def test_loopback_sees_all_only_if_nothing_is_missing() -> None:
    """Called directly, or by a chain in which every proxy said its part."""
    assert (await identify(peer="127.0.0.1")).sees_all
    assert (await identify("1.1.1.1, 127.0.0.1", peer="127.0.0.1")).sees_all
    assert (await identify("::1", peer="127.0.0.1")).key == "address 127.0.0.1"
    assert not (await identify("127.0.0.1, 1.1.1.1", peer="127.0.0.1")).sees_all
    short = await identify("127.0.0.1", peer="127.0.0.1", trust_proxy=2)
    assert short == Client("address 127.0.0.1")


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["for=1.1.1.1"], "1.1.1.1"),
        (["For=1.1.1.1;proto=https;by=203.0.113.43"], "1.1.1.1"),
        (["by=3.3.3.3 ; FOR = 1.1.1.1"], None),  # no space around "=": it is none of the grammar
        (["by=3.3.3.3 ; FOR=1.1.1.1"], "1.1.1.1"),
        (["for=6.6.6.6, for=1.1.1.1"], "1.1.1.1"),
        (["for=6.6.6.6", "for=1.1.1.1"], "1.1.1.1"),
        (["for=6.6.6.6", 'for="[::ffff:1.1.1.1]:9";host="a, for=6.6.6.6"'], "1.1.1.1"),
        (['for=1.1.1.1;host="a\\", for=6.6.6.6;x=\\""'], "1.1.1.1"),
        (['for="6.6.6.6', "for=1.1.1.1"], "1.1.1.1"),
        (['for=6.6.6.6;x=", for=1.1.1.1'], "1.1.1.1"),
        (['for=6.6.6.6;x="', 'for=1.1.1.1;y="z"'], "1.1.1.1"),
        (["for=unknown"], None),
        (['for="_hidden"'], None),
        (["for=6.6.6.6, by=1.1.1.1"], None),
        (["for=6.6.6.6, for=1.1.1.1;for=6.6.6.6"], None),
        (["for=6.6.6.6,"], None),
        (["for=6.6.6.6, for="], None),
        (["for=6.6.6.6, for=\"1.1.1.1"], None),
    ],
)  # fmt: skip
async def test_forwarded_is_read_from_its_end(lines: list[str], address: str | None) -> None:
    """What a client wrote before, quotes and all, changes nothing in what the proxy appended."""
    client = await identify(*lines, header="Forwarded", proxy_header="forwarded")
    expected = Client(f"address {address}") if address else None
    assert client == (expected or Client(f"unknown via {PROXY}", known=False))


async def test_two_hops_of_forwarded() -> None:
    """Each element is a hop's; behind one that cannot be read, nothing can."""
    said = {"header": "Forwarded", "proxy_header": "forwarded", "trust_proxy": 2}
    lines = ['for=6.6.6.6, for="[2001:db8::7]:9";by=_x', "for=1.1.1.1"]
    assert (await identify(*lines, **said)).key == "address 2001:db8::/64"
    broken = await identify("for=6.6.6.6, for=1.1.1.1;;;=", "for=1.1.1.1", **said)
    assert broken == Client("unknown via 1.1.1.1", known=False)


async def test_which_header_counts_is_not_the_clients_choice() -> None:
    """A proxy that writes one of the two passes the other through as the client sent it."""
    other = [("Forwarded", "for=6.6.6.6")]
    assert (await identify("1.1.1.1", extra=other)).key == "address 1.1.1.1"
    assert (await identify(extra=other)).key == f"address {PROXY}"
    said = {"header": "Forwarded", "proxy_header": "forwarded"}
    other = [(XFF, "6.6.6.6")]
    assert (await identify("for=1.1.1.1", extra=other, **said)).key == "address 1.1.1.1"
    assert (await identify(extra=other, **said)).key == f"address {PROXY}"
    with pytest.raises(SettingsError):
        Settings(proxy_header="x-real-ip")


async def test_a_bearer_token_is_a_name_behind_a_proxy_too() -> None:
    """Where tokens tell clients apart, an unknown address does not matter."""
    client = await identify("unknown", extra=[("Authorization", "Bearer me")], client_key="bearer")
    assert client == Client("bearer me")


async def test_long_tokens_are_told_apart() -> None:
    """Such as signed ones, which begin alike; and one of them may be a configured key."""
    tokens = ["x" * 300 + end for end in ("a", "b")]
    keys = set()
    for token in tokens:
        shown = [("Authorization", f"Bearer {token}")]
        keys.add((await identify(extra=shown, client_key="bearer")).key)
        assert (await identify(extra=shown, api_key=tokens)).key == f"key {token}"
    assert len(keys) == 2
    assert max(map(len, keys)) < 300


async def ask(house: House, request_line: str, *headers: str) -> RawResponse:
    client: RawClient = await house.served.connect()
    method, path = request_line.split()
    await client.get(path, *headers, "Connection: close", method=method)
    return await client.response()


@pytest.mark.parametrize("forged", [f"{XFF}: 1.1.1.1", "Remote-Addr: 1.1.1.1"])
async def test_nobody_takes_anothers_identity(forged: str) -> None:
    """Over the wire, with the client's own line before the proxy's."""
    settings = {"trust_proxy": 1, "client_key": "address"}
    async with open_house(**settings) as house:
        owner = {XFF: "1.1.1.1", "X-Stream-Id": "mine"}
        body = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        call = house.client.stream("POST", "/v1/chat/completions", json=body, headers=owner)
        async with call as stream:
            assert stream.status_code == 200
            stranger = (forged, f"{XFF}: 2.2.2.2")
            assert b'"streams":[]' in (await ask(house, "GET /status", *stranger)).body
            assert (await ask(house, "DELETE /v1/streams/mine", *stranger)).status == 404
            for nobody in (f"{XFF}: unknown", f"{XFF}:"):
                assert b'"streams":[]' in (await ask(house, "GET /status", nobody)).body
                assert (await ask(house, "DELETE /v1/streams/mine", nobody)).status == 404
            mine = (f"{XFF}: 2.2.2.2", f"{XFF}: 1.1.1.1:5678")
            assert b'"id":"mine"' in (await ask(house, "GET /status", *mine)).body
            assert (await ask(house, "DELETE /v1/streams/mine", *mine)).status == 200


async def test_the_unknown_share_a_line_and_nothing_else() -> None:
    """Two of them behind one proxy: neither sees or cancels what the other asked."""
    async with open_house(trust_proxy=1, client_key="address") as house:
        unknown = {XFF: "unknown", "X-Stream-Id": "mine"}
        body = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        call = house.client.stream("POST", "/v1/chat/completions", json=body, headers=unknown)
        async with call as stream:
            assert stream.status_code == 200
            assert b'"streams":[]' in (await ask(house, "GET /status", f"{XFF}: unknown")).body
            gone = await ask(house, "DELETE /v1/streams/mine", f"{XFF}: unknown")
            assert gone.status == 404
