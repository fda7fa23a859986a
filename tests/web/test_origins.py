"""A page on the web does not reach a server on loopback, and an allowed one does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.events
import pytest
from quart import websocket
from quart_trio import QuartTrio
from served import chat_body, open_house, sse_events
from transport_app import WS, WS_KEY

from chatstream_trio import ChatStream, Settings, SettingsError, create_app, install
from chatstream_trio.web.gates.origins import Origins, Visit
from conftest import H2Client, RawResponse, Served, run_server

pytestmark = pytest.mark.trio

EVIL = "http://evil.example"
PAGE = "http://localhost:3000"
PATHS = [
    "POST /v1/chat/completions",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "GET /v1/models",
    "GET /v1/models/scripted",
    "DELETE /v1/streams/x",
    "GET /status",
    "GET /status/stream",
    "GET /health",
    "GET /",
    "GET /nowhere",
    "GET /v1/nowhere",
    "GET /v1/chat/completions",
    "OPTIONS /v1/chat/completions",
    "HEAD /health",
    "BREW /health",
]


async def ask(
    served: Served, line: str, *headers: str, version: str = "1.1", body: bytes = b""
) -> RawResponse:
    """One request on a connection of its own, with these headers and no others."""
    client = await served.connect()
    method, target = line.split()
    if body:
        headers = (*headers, f"Content-Length: {len(body)}")
    lines = [f"{method} {target} HTTP/{version}", *headers, "Connection: close", "", ""]
    await client.send("\r\n".join(lines).encode("latin1") + body)
    return await client.response(head=method == "HEAD")


def code_of(response: RawResponse) -> str:
    error = json.loads(response.body)["error"]
    return str(error["details"]["error_code"] if "details" in error else error["code"])


# The name


@pytest.mark.parametrize("line", PATHS)
async def test_another_name_is_refused_everywhere(line: str) -> None:
    """Whatever the path and method, before any work is done and before a ticket is taken."""
    async with open_house(max_active=1, max_waiting=0) as house:
        body = json.dumps(chat_body()).encode() if line.startswith("POST") else b""
        response = await ask(house.served, line, "Host: evil.example", body=body)
        assert response.status == 403
        assert response.headers["vary"] == "Origin"
        if not line.startswith("HEAD"):
            error = json.loads(response.body)["error"]
            assert (code_of(response), error["type"]) == ("host_not_allowed", "permission_error")
            assert "--allowed-host evil.example" in error["message"]
        assert (await house.status())["active"] == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:1234", 200),
        ("localhost.", 200),
        ("localhost.:80", 200),
        ("localhost:", 200),
        ("my.app.localhost:5", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:8000", 200),
        ("127.9.8.7", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("[0:0::1]", 200),
        ("[::ffff:127.0.0.1]", 200),
        ("", 200),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("localhost.evil.example", 403),
        ("evillocalhost", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.1", 403),
        ("0.0.0.0", 403),
        ("192.168.1.5", 403),
        ("[::2]", 403),
        ("[::ffff:1.2.3.4]", 403),
        ("a..b", 400),
        ("a" * 70, 400),
        ("localhost:x", 400),
        ("localhost/x", 400),
        ("user@localhost", 400),
        ("localhost, evil.example", 400),
        ("[::1", 400),
        ("[localhost]", 400),
        ("\xfc", 400),
    ],
)
async def test_the_names_of_loopback(
    host: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """In every form; what is no host at all is a 400 and no line in the log."""
    async with open_house() as house:
        response = await ask(house.served, "GET /health", f"Host: {host}")
        assert response.status == status
        if status != 200:
            assert code_of(response) == {400: "invalid_value", 403: "host_not_allowed"}[status]
    assert not caplog.records


async def test_a_program_without_a_name_passes() -> None:
    """HTTP/1.0 knows no Host; HTTP/1.1 with none, or with two, is refused by the protocol."""
    async with open_house() as house:
        assert (await ask(house.served, "GET /health", version="1.0")).status == 200
        refused = await ask(house.served, "GET /health", "Host: evil.example", version="1.0")
        assert refused.status == 403
        assert (await ask(house.served, "GET /health")).status == 400
        two = ("Host: localhost", "Host: evil.example")
        assert (await ask(house.served, "GET /health", *two)).status == 400


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.example/health", "localhost", 403),
        ("http://evil.example?x", "localhost", 403),
        ("http://localhost:1/health", "localhost", 200),
        ("http://localhost/health", "evil.example", 403),
        ("http://a@localhost/health", "localhost", 400),
        ("http://[/health", "localhost", 400),
    ],
)
async def test_the_name_in_a_whole_url(target: str, host: str, status: int) -> None:
    """As for a proxy: the host in the target counts as well."""
    async with open_house() as house:
        assert (await ask(house.served, f"GET {target}", f"Host: {host}")).status == status


async def test_the_name_in_http2() -> None:
    """``:authority``, and ``host`` where it is missing."""
    async with open_house() as house:
        client = await H2Client(await house.served.connect()).open()
        for name, status in [("localhost", b"200"), ("evil.example", b"403")]:
            for field in (b":authority", b"host"):
                stream = client.h2.get_next_available_stream_id()
                fields = [(b":method", b"GET"), (b":path", b"/health"), (b":scheme", b"http")]
                fields.append((field, name.encode()))
                client.h2.send_headers(stream, sorted(fields), end_stream=True)
                await client.flush()
                response = await client.wait_for(h2.events.ResponseReceived, stream)
                assert dict(response.headers)[b":status"] == status


async def test_a_websocket_by_another_name() -> None:
    """It is refused as any other request is."""
    async with open_house() as house:
        for host, status in [("evil.example", 403), ("localhost", 404)]:
            client = await house.served.connect()
            lines = ["GET /nowhere HTTP/1.1", f"Host: {host}", *WS, WS_KEY, "", ""]
            await client.send("\r\n".join(lines).encode())
            assert (await client.response()).status == status


def check(
    name: str = "",
    *,
    came_to: str | None = "127.0.0.1",
    origin: str | None = None,
    scheme: str = "http",
    **settings: object,
) -> str | None:
    visit = Visit([name] if name else [], [origin] if origin else [], scheme, came_to)
    return Origins(Settings(**settings)).check(visit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "came_to", "host"),
    [
        ({"allowed_host": ["Chat.Example."]}, "127.0.0.1", "chat.example:443"),
        ({"allowed_host": ["a.example", "chat.example"]}, "127.0.0.1", "chat.example"),
        ({"allowed_host": ["*"]}, "127.0.0.1", "any.example"),
        ({"allowed_host": ["fd00::1"]}, "127.0.0.1", "[fd00::1]:80"),
        ({"host": "my-box"}, "127.0.0.1", "my-box:8000"),
        ({"host": "0.0.0.0"}, "127.0.0.1", "any.example"),
        ({"host": "::"}, "::1", "any.example"),
        ({"host": "10.0.0.5"}, "10.0.0.5", "any.example"),
        ({}, "10.0.0.5", "any.example"),
        ({}, None, "any.example"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "10.0.0.5", "a.example"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "10.0.0.5", "10.0.0.5:8000"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "fd00::1", "[fd00::1]"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "10.0.0.5", "localhost"),
    ],
)
async def test_names_that_are_allowed(settings: dict[str, object], came_to: str, host: str) -> None:
    """Those that were named; and elsewhere than on loopback any, as long as none was."""
    assert check(host, came_to=came_to, **settings) is None


@pytest.mark.parametrize(
    ("settings", "came_to", "host"),
    [
        ({"allowed_host": ["chat.example"]}, "127.0.0.1", "sub.chat.example"),
        ({"host": "my-box"}, "127.0.0.1", "any.example"),
        ({"host": "localhost"}, "::1", "any.example"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "10.0.0.5", "any.example"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "10.0.0.5", "10.0.0.6"),
        ({"host": "0.0.0.0", "allowed_host": ["a.example"]}, "127.0.0.1", "any.example"),
    ],
)
async def test_names_that_are_not(settings: dict[str, object], came_to: str, host: str) -> None:
    """The error says which name it was."""
    with pytest.raises(Exception, match=host.partition(":")[0]) as refusal:
        check(host, came_to=came_to, **settings)
    assert getattr(refusal.value, "code", "") == "host_not_allowed"


@pytest.mark.parametrize(
    "settings",
    [
        *({"allowed_host": [no]} for no in ("", "http://a", "a/b", "a:80", "a b", "..", "bücher")),
        *({"cors_origin": [no]} for no in ("", "a.example", "http://a/b", "http://", "http://a b")),
    ],
)  # fmt: skip
async def test_malformed_settings(settings: dict[str, list[str]]) -> None:
    """They are wrong from the start, and the message names the setting."""
    for make in (Origins, create_app):
        with pytest.raises(SettingsError) as error:
            make(Settings(**settings))  # type: ignore[arg-type]
        assert error.value.param == next(iter(settings))


# The page


@pytest.mark.parametrize("line", PATHS)
async def test_another_page_is_refused_everywhere(line: str) -> None:
    """A body that claims to be text is sent without a preflight: it is refused all the same."""
    async with open_house() as house:
        body = json.dumps(chat_body(max_tokens=1)).encode() if line.startswith("POST") else b""
        headers = ("Host: localhost", "Content-Type: text/plain")
        for origin in (EVIL, "null"):
            response = await ask(house.served, line, *headers, f"Origin: {origin}", body=body)
            assert response.status == 403
            assert "access-control-allow-origin" not in response.headers
            if not line.startswith("HEAD"):
                assert code_of(response) == "origin_not_allowed"
        assert (await house.status())["turns"] == 0


async def test_text_is_a_body_too() -> None:
    """Without an Origin, or from the server's own page."""
    async with open_house() as house:
        body = json.dumps(chat_body(max_tokens=1)).encode()
        port = house.served.port
        for origin in ((), (f"Origin: http://localhost:{port}",)):
            headers = (f"Host: localhost:{port}", "Content-Type: text/plain", *origin)
            answer = await ask(house.served, "POST /v1/chat/completions", *headers, body=body)
            assert answer.status == 200


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://localhost:8000", "localhost:8000", "http"),
        ("http://LOCALHOST:8000", "localhost:8000", "http"),
        ("http://localhost", "localhost:80", "http"),
        ("http://localhost:80", "localhost", "http"),
        ("http://[::1]:8000", "[0::1]:8000", "http"),
        ("https://localhost", "localhost:443", "https"),
        ("https://localhost", "localhost", "http"),  # a proxy took the TLS off
        ("https://localhost:8443", "localhost:8443", "https"),
        ("http://localhost:8000", "localhost:8000", "ws"),
        ("https://localhost:8443", "localhost:8443", "wss"),
    ],
)
async def test_the_servers_own_page(origin: str, host: str, scheme: str) -> None:
    """It passes, and needs no permission to read."""
    assert check(host, origin=origin, scheme=scheme) is None


@pytest.mark.parametrize("where", [{}, {"host": "0.0.0.0", "came_to": "10.0.0.5"}])
@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://localhost:3000", "localhost:8000", "http"),
        ("http://127.0.0.1:8000", "localhost:8000", "http"),
        ("http://localhost:8443", "localhost:8443", "https"),
        ("https://localhost", "localhost:80", "http"),
        ("ftp://localhost:8000", "localhost:8000", "http"),
        ("http://localhost:8000/", "localhost:8000", "http"),
        ("http://a@localhost:8000", "localhost:8000", "http"),
        ("localhost:8000", "localhost:8000", "http"),
        ("file://", "localhost:8000", "http"),
        ("chrome-extension://abc", "localhost:8000", "http"),
        ("null", "localhost:8000", "http"),
        ("http://localhost:8000", "", "http"),
    ],
)
async def test_other_pages(where: dict[str, str], origin: str, host: str, scheme: str) -> None:
    """They are refused on loopback and elsewhere: text would be sent without asking."""
    with pytest.raises(Exception, match="cors-origin") as refusal:
        check(host, origin=origin, scheme=scheme, **where)  # type: ignore[arg-type]
    assert getattr(refusal.value, "code", "") == "origin_not_allowed"


@pytest.mark.parametrize(
    ("named", "origin"),
    [
        (PAGE, PAGE),
        ("HTTP://LocalHost:3000/", PAGE),
        ("https://chat.example:443", "https://chat.example"),
        ("null", "null"),
        ("file://", "file://"),
        ("chrome-extension://abc", "chrome-extension://abc"),
    ],
)
async def test_a_page_that_is_named(named: str, origin: str) -> None:
    """It passes and may read; a star lets all pass, but without cookies."""
    assert check("localhost", origin=origin, cors_origin=[EVIL, named]) == origin
    assert check("localhost", origin=origin, cors_origin=["*", named]) == origin
    assert check("localhost", origin=origin, cors_origin=["*"]) == "*"


async def test_two_origins_are_nobodys() -> None:
    """No browser sends them."""
    for settings in ({}, {"cors_origin": [PAGE]}):
        visit = Visit(["localhost"], [PAGE, PAGE], "http", "127.0.0.1")
        with pytest.raises(Exception, match="may not use"):
            Origins(Settings(**settings)).check(visit)  # type: ignore[arg-type]


# What a page is told


def permission(response: RawResponse) -> dict[str, str]:
    names = ("origin", "credentials", "methods", "headers", "private-network")
    allowed = {name: response.headers.get(f"access-control-allow-{name}") for name in names}
    return {name: value for name, value in allowed.items() if value is not None}


async def test_a_preflight() -> None:
    """Answered without a key and without a ticket, with what the page asked for."""
    async with open_house(cors_origin=[PAGE], api_key=["sk"]) as house:
        asked = ("Access-Control-Request-Method: POST", f"Origin: {PAGE}", "Host: localhost")
        for line in ("OPTIONS /v1/chat/completions", "OPTIONS /v1/streams/x", "OPTIONS /nowhere"):
            plain = await ask(house.served, line, *asked)
            assert plain.status == 204
            assert plain.body == b""
            allowed = permission(plain)
            assert allowed["origin"] == PAGE
            assert allowed["credentials"] == "true"
            assert {"POST", "DELETE", "GET"} <= set(allowed["methods"].split(", "))
            for name in ("authorization", "content-type", "x-stream-id", "x-timeout-total"):
                assert name in allowed["headers"]
            assert "private-network" not in allowed
            assert int(plain.headers["access-control-max-age"]) > 0
        more = ("Access-Control-Request-Headers: x-odd, authorization",)
        more += ("Access-Control-Request-Private-Network: true",)
        allowed = permission(await ask(house.served, line, *asked, *more))
        assert allowed["headers"] == "x-odd, authorization"
        assert allowed["private-network"] == "true"
        other = (asked[0], f"Origin: {EVIL}", "Host: localhost")
        refused = await ask(house.served, line, *other, *more)
        assert (refused.status, permission(refused)) == (403, {})


async def test_options_without_a_preflight() -> None:
    """It is a request like any other, which tells the methods."""
    async with open_house(cors_origin=[PAGE]) as house:
        response = await ask(
            house.served, "OPTIONS /v1/models", f"Origin: {PAGE}", "Host: localhost"
        )
        assert response.status == 200
        assert permission(response)["origin"] == PAGE
        assert "GET" in response.headers["allow"]


@pytest.mark.parametrize("named", [PAGE, "*"])
async def test_answers_may_be_read(named: str) -> None:
    """Whole ones, streams, and refusals of every kind; with the headers that clients look at."""
    async with open_house(cors_origin=[named], max_active=1, max_waiting=0) as house:
        house.client.headers["Origin"] = PAGE
        stream = await house.ask(max_tokens=1, stream=True)
        assert sse_events(stream.text)[-1] == "[DONE]"
        answers = {
            200: await house.ask(max_tokens=1),
            400: await house.ask(max_tokens=0),
            404: await house.client.get("/nowhere"),
            405: await house.client.get("/v1/chat/completions"),
        }
        async with house.client.stream(
            "POST", "/v1/chat/completions", json=chat_body(stream=True)
        ) as held:
            answers[429] = await house.ask()
            answers[0] = held
        answers[0].status_code = 0
        for status, answer in {**answers, -1: stream}.items():
            assert status == -1 or answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == named
            assert answer.headers["vary"] == "Origin"
            credentials = answer.headers.get("access-control-allow-credentials")
            assert credentials == (None if named == "*" else "true")
            exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
            for name in ("x-request-id", "x-stream-id", "retry-after", "x-should-retry"):
                assert name in exposed


# Somebody else's app


@asynccontextmanager
async def their_app(**settings: object) -> AsyncIterator[Served]:
    """An app with routes of its own, below our prefix too, into which ours were put."""
    app = QuartTrio("theirs")

    @app.get("/")
    async def home() -> str:
        return "mine"

    @app.post("/v1/theirs")
    async def theirs() -> str:
        return "mine"

    @app.get("/slash/")
    async def slash() -> str:
        return "mine"

    @app.websocket("/socket")
    async def socket() -> None:
        await websocket.send("mine")

    @app.errorhandler(404)
    async def missing(_: Exception) -> tuple[str, int]:
        return "their own 404", 404

    async with ChatStream.open(Settings(model="scripted", **settings)) as chat:  # type: ignore[arg-type]
        install(app, chat)
        async with run_server(app) as served:
            yield served


async def test_their_own_routes_are_theirs() -> None:
    """Any name and any page, their errors too; ours and what is below them are guarded."""
    async with their_app() as served:
        foreign = ("Host: evil.example", f"Origin: {EVIL}")
        for line, status, body in [
            ("GET /", 200, b"mine"),
            ("POST /v1/theirs", 200, b"mine"),
            ("GET /nowhere", 404, b"their own 404"),
            ("GET /v1x", 404, b"their own 404"),
            ("GET /slash", 308, None),
        ]:
            response = await ask(served, line, *foreign)
            assert response.status == status
            assert body in (None, response.body)
            assert "vary" not in response.headers
        client = await served.connect()
        lines = ["GET /socket HTTP/1.1", *foreign, *WS, WS_KEY, "", ""]
        await client.send("\r\n".join(lines).encode())
        assert (await client.response()).status == 101
        for line in (*PATHS[:7], "GET /v1", "GET /v1/nowhere", "DELETE /health"):
            assert (await ask(served, line, *foreign)).status == 403
            assert (await ask(served, line, "Host: localhost", foreign[1])).status == 403
        assert (await ask(served, "GET /health", "Host: localhost")).status == 200


async def test_a_host_that_is_none_in_their_app(caplog: pytest.LogCaptureFixture) -> None:
    """It makes Quart stumble before any handler: a 400, and no traceback."""
    async with their_app() as served:
        for host in ("a..b", "a" * 70):
            assert (await ask(served, "GET /", f"Host: {host}")).status == 400
    assert not caplog.records
