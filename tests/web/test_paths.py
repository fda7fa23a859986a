"""Where there is nothing: a 404 that says what there is, and a 405 that says how to ask."""

from __future__ import annotations

import json

import pytest
from quart_trio import QuartTrio
from served import open_house
from transport_app import WS, WS_KEY

from chatstream_trio import ChatStream, Settings, install
from conftest import RawResponse, Served, run_server

pytestmark = pytest.mark.trio


async def ask(served: Served, method: str, target: str, *headers: str) -> RawResponse:
    client = await served.connect()
    await client.get(target, *headers, "Connection: close", method=method)
    return await client.response(head=method == "HEAD")


@pytest.mark.parametrize(
    "target",
    [
        "/", "/v1", "/v1/", "/v1/nowhere", "/v2/models", "/v1/models/", "/models/", "/v1//models",
        "/v1/../x", "/v1/%2e%2e/x", "/v1/chat%2Fcompletion", "/v1/chat/completions/", "/V1/MODELS",
        "/health/", "/status/x", "/%00%ff%0d%0a", "/v1/%E2%80%AE", "*", "?", "x", "/..//../x",
        "/static/x", "/favicon.ico", "/robots.txt", "http://localhost/v1/x",
    ],
)  # fmt: skip
async def test_a_404_says_what_there_is(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """In the one shape of errors, for any path, odd ones too."""
    async with open_house() as house:
        for method in ("GET", "POST", "DELETE", "BREW"):
            response = await ask(house.served, method, target)
            assert response.status == 404
            assert response.headers["content-type"] == "application/json"
            error = json.loads(response.body)["error"]
            assert (error["code"], error["type"]) == ("not_found", "invalid_request_error")
            for there in (
                "POST /v1/chat/completions",
                "GET /v1/models,",
                "GET /v1/models/{name}",
                "DELETE /v1/streams/{id}",
                "POST /v1/tokenize",
                "POST /v1/messages,",
                "POST /v1/messages/count_tokens",
                "GET /v1/version",
                "GET /health",
                "GET /status/stream",
            ):
                assert there in error["message"]
            assert error["message"].endswith("; what is below /v1 also without it")
            assert " /models" not in error["message"]
    assert not caplog.records


async def test_a_long_path_is_cut() -> None:
    """The answer is not as long as the question."""
    async with open_house() as house:
        response = await ask(house.served, "GET", "/" + "x" * 8000)
        assert response.status == 404
        assert len(response.body) < 1500
        assert "x" * 150 in json.loads(response.body)["error"]["message"]


async def test_leading_slashes_are_one() -> None:
    """As of a client whose base URL ends with a slash."""
    async with open_house() as house:
        for target in ("//v1/models", "//models", "/models"):
            assert (await ask(house.served, "GET", target)).status == 200


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST", "OPTIONS"}),
        ("HEAD", "/v1/chat/completions", {"POST", "OPTIONS"}),
        ("DELETE", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/v1/models/scripted", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/v1/streams/x", {"DELETE", "OPTIONS"}),
        ("GET", "/chat/completions", {"POST", "OPTIONS"}),
        ("GET", "/tokenize", {"POST", "OPTIONS"}),
        ("POST", "/version", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/status", {"GET", "HEAD", "OPTIONS"}),
        ("CONNECT", "/status", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/status/stream", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_a_405_says_how_to_ask(method: str, target: str, allowed: set[str]) -> None:
    """In ``Allow``, and in words."""
    async with open_house() as house:
        response = await ask(house.served, method, target)
        assert response.status == 405
        assert set(response.headers["allow"].split(", ")) == allowed
        if method != "HEAD":
            error = json.loads(response.body)["error"]
            assert error["code"] == "method_not_allowed"
            assert method in error["message"]
            assert (allowed & {"GET", "POST", "DELETE"}).pop() in error["message"]


async def test_a_websocket_where_there_is_none() -> None:
    """The refusal has the shape of all errors."""
    async with open_house() as house:
        for target, code in [("/health", "bad_request"), ("/nowhere", "not_found")]:
            client = await house.served.connect()
            await client.get(target, *WS, WS_KEY)
            response = await client.response()
            assert 400 <= response.status < 500
            assert json.loads(response.body)["error"]["code"] == code


async def test_below_our_prefixes_in_their_app() -> None:
    """There the answers are ours, and elsewhere theirs, redirects too."""
    app = QuartTrio("theirs")

    @app.get("/v1/theirs")
    async def theirs() -> str:
        return "mine"

    @app.get("/slash/")
    async def slash() -> str:
        return "mine"

    async with ChatStream.open(Settings(model="scripted")) as chat:
        install(app, chat)
        async with run_server(app) as served:
            for target in ("/v1/nowhere", "/v1", "/v1//models"):
                response = await ask(served, "GET", target)
                assert response.status == 404
                message = json.loads(response.body)["error"]["message"]
                assert "POST /v1/chat/completions" in message
                assert "theirs" not in message
                assert "without" not in message
            response = await ask(served, "DELETE", "/health")
            assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
            for target in ("/nowhere", "/models", "/version"):
                assert b"<title>404" in (await ask(served, "GET", target)).body
            assert (await ask(served, "GET", "/slash")).status == 308
            assert (await ask(served, "GET", "/v1/theirs")).body == b"mine"
