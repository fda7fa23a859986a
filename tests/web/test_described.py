"""``/openapi.json`` and ``/docs``: every path is there, and what is said of it is so."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import trio
from conforming import Document
from quart_trio import QuartTrio
from served import open_house

from chatstream_trio import ChatStream, Settings, create_app, install
from chatstream_trio.web.app import APIS
from chatstream_trio.web.openapi import routes
from chatstream_trio.web.openapi.document import openapi

DOCUMENT = openapi(APIS, keys=False)
UNDESCRIBED = {"GET /docs/{name}"}
"""The parts of the page."""
ENDPOINTS = [(api.name, endpoint) for api in APIS for endpoint in api.endpoints]


def described() -> set[str]:
    """All methods and paths of the document."""
    paths = DOCUMENT["paths"]
    return {f"{method.upper()} {path}" for path, item in paths.items() for method in item}


def test_every_route_is_described() -> None:
    """And nothing that is no route; what is below /v1 stands for the same without it."""
    routes: set[str] = set()
    for rule in create_app(Settings()).url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        methods = set(rule.methods or ()) - {"HEAD", "OPTIONS"}
        routes |= {f"{method} {path}" for method in methods}
    bare = {route for route in routes if route.replace(" ", " /v1", 1) in routes}
    assert routes - bare - UNDESCRIBED == described()


def test_the_document_is_valid() -> None:
    """By the schema of OpenAPI 3.1; ids are unique, and every reference leads somewhere."""
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    text = json.dumps(DOCUMENT)
    for place in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        value: Any = DOCUMENT
        for step in place.split("/"):
            value = value[step]
    ids = re.findall(r'"operationId": "(\w+)"', text)
    assert len(ids) == len(set(ids)) == len(described())


def test_what_the_fields_say_is_there() -> None:
    """What is written below a field, and what is checked elsewhere."""
    body = DOCUMENT["components"]["schemas"]["ChatCompletionBody"]["properties"]
    number, null = body["temperature"]["anyOf"]
    assert (number["minimum"], number["maximum"], null["type"]) == (0, 2, "null")
    assert "with `logprobs` only" in body["top_logprobs"]["description"]
    reply = DOCUMENT["components"]["schemas"]["ChatCompletion"]
    assert reply["properties"]["created"]["description"] == "Unix time in seconds."
    assert reply["additionalProperties"] is False


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(endpoint.path, body, id=f"{endpoint.path} {name}")
        for _, endpoint in ENDPOINTS
        for name, body in endpoint.examples.items()
    ],
)
async def test_every_example_works(path: str, body: Any) -> None:
    """It is answered with 200, and no field of it is ignored."""
    async with open_house(pace=0, unknown_fields="refuse") as house:
        response = await house.client.post(path, json=body)
        assert response.status_code == 200, response.text
        await house.until(active=0, waiting=0, kv_rows=0)


def limits(schema: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Values at the limits of a field, each with one just beyond."""
    for kind in schema.get("anyOf", [schema]):
        step = 1 if kind.get("type") == "integer" else 0.001
        for keyword, sign in (("minimum", -1), ("maximum", 1)):
            if keyword in kind:
                yield kind[keyword], kind[keyword] + sign * step
        if "maxItems" in kind:
            item = {"string": "x", "integer": 1}.get(kind["items"].get("type"))
            if item is not None:
                yield [item] * kind["maxItems"], [item] * (kind["maxItems"] + 1)
        if "maxProperties" in kind:
            many = {str(number): 0 for number in range(kind["maxProperties"] + 1)}
            yield dict(list(many.items())[1:]), many


def fields_of(endpoint: Any) -> dict[str, Any]:
    """The schemas of what is in its body."""
    operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    place = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body: dict[str, Any] = DOCUMENT["components"]["schemas"][place.rpartition("/")[2]]
    return dict(body["properties"])


LIMITS = [
    pytest.param(endpoint, name, fine, wrong, id=f"{endpoint.path} {name} {number}")
    for _, endpoint in ENDPOINTS
    if endpoint.body is not None
    for name, schema in fields_of(endpoint).items()
    for number, (fine, wrong) in enumerate(limits(schema))
]


@pytest.mark.parametrize(("endpoint", "name", "fine", "wrong"), LIMITS)
async def test_limits_are_where_they_are_said_to_be(
    endpoint: Any, name: str, fine: Any, wrong: Any
) -> None:
    """What is at a limit is not refused for that field; what is beyond it is, and by its name."""
    body = next(iter(endpoint.examples.values()))
    extra = {"logprobs": True} if name == "top_logprobs" else {}
    async with open_house(pace=0, max_model_len=40, max_active=4) as house:
        response = await house.client.post(endpoint.path, json={**body, **extra, name: fine})
        if response.status_code == 400 and name == "n":  # more than there are seats
            assert "at most 4 can be" in response.text
        elif response.status_code != 200:
            refused = ("unsupported_parameter", "is served without")  # Ollama's have no code
            assert any(word in response.text for word in refused)
        response = await house.client.post(endpoint.path, json={**body, **extra, name: wrong})
        assert response.status_code == 400
        error = response.json()["error"]
        place = error if isinstance(error, str) else error.get("param", error["message"])
        assert str(place).startswith(name)
        await house.until(active=0, waiting=0, kv_rows=0)


def test_names_of_schemas_are_short() -> None:
    """Where classes of two APIs have one name, they are told apart by their API's, in references
    as well; the others have their own."""
    schemas = DOCUMENT["components"]["schemas"]
    assert {"ChatCompletionBody", "openai.ToolBody", "anthropic.ToolBody"} <= set(schemas)
    assert all(re.fullmatch(r"(\w+\.)?\w+", name) for name in schemas)
    tools = fields_of(next(one for _, one in ENDPOINTS if one.path == "/v1/messages"))["tools"]
    assert "anthropic.ToolBody" in json.dumps(tools)


async def test_it_wants_no_key_and_the_right_name() -> None:
    """Open, also where keys are configured; by a name that is not ours it is not to be had."""
    async with open_house(api_key=["secret"]) as house:
        assert (await house.client.get("/v1/models")).status_code == 401
        document = (await house.client.get("/openapi.json")).json()
        operations = document["paths"]["/v1/models"]["get"], document["paths"]["/health"]["get"]
        assert operations[0]["security"] == [{"key": []}, {"x-api-key": []}]
        assert "security" not in operations[1]
        assert (await house.client.get("/docs")).status_code == 200
        for path in ("/openapi.json", "/docs", "/docs/start.js"):
            for header in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert (await house.client.get(path, headers=header)).status_code == 403


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    """Whatever it loads comes from this server, and the browser is told to see to that."""
    async with open_house() as house:
        page = await house.client.get("/docs")
        assert page.headers["content-security-policy"] == routes.POLICY
        assert "unsafe" not in routes.POLICY
        assert "default-src 'none'" in routes.POLICY
        assert "//" not in page.text
        parts = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
        assert len(parts) == 3
        for part in parts:
            response = await house.client.get(f"/{part}")
            assert response.status_code == 200
            assert response.headers["x-content-type-options"] == "nosniff"
        for odd in ("docs.html/", "LICENSE", "..", "%2e%2e%2froutes.py"):
            assert (await house.client.get(f"/docs/{odd}")).status_code == 404


async def test_it_is_packed_and_sent_once() -> None:
    """As gzip for who can unpack it; with its tag it is a 304."""
    async with open_house() as house:
        plain = await house.client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with house.client.stream("GET", "/openapi.json") as packed:
            assert packed.headers["content-encoding"] == "gzip"
            raw = b"".join([chunk async for chunk in packed.aiter_raw()])
        assert gzip.decompress(raw) == plain.content
        assert len(raw) < len(plain.content) / 4
        assert packed.headers["etag"] != plain.headers["etag"]
        for kind in (plain, packed):
            headers = {"If-None-Match": kind.headers["etag"]}
            headers["Accept-Encoding"] = kind.headers.get("content-encoding", "identity")
            again = await house.client.get("/openapi.json", headers=headers)
            assert (again.status_code, again.content) == (304, b"")


async def test_it_is_made_once_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once; nobody's token waits for it."""
    makers: list[threading.Thread] = []

    def make(apis: Any, *, keys: bool) -> dict[str, Any]:
        makers.append(threading.current_thread())
        return {"keys": keys}

    monkeypatch.setattr(routes, "openapi", make)
    async with open_house() as house, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(house.client.get, "/docs/start.js")
    assert len(makers) == 1
    assert makers[0] is not threading.main_thread()


async def test_an_app_of_your_own_keeps_its_docs() -> None:
    """Installed in another app, we do not take ``/docs`` and ``/openapi.json`` from it."""
    settings = Settings(model="scripted")
    async with ChatStream.open(settings) as chat:
        app = QuartTrio("mine")
        install(app, chat)
        assert not {"/docs", "/openapi.json"} & {rule.rule for rule in app.url_map.iter_rules()}


def test_the_watch_over_replies_sees_what_is_wrong() -> None:
    """What all tests of the web rely on: a field too many or too few is a complaint."""
    document = Document(DOCUMENT)
    version = {"$ref": "#/components/schemas/Version"}
    assert not document.complain(version, {"version": "1"})
    assert document.complain(version, {"version": "1", "odd": 1})
    assert document.complain(version, {})
    assert document.operation("GET", "/models/a/b") == document.operation("GET", "/v1/models/a/b")


def test_the_page_is_what_was_published() -> None:
    """The vendored files are those of the version that the tool names, with their licences."""
    root = Path(__file__).parents[2]
    tool = runpy.run_path(str(root / "tools/vendor_swagger_ui.py"))
    found = {path.name: path.read_bytes() for path in tool["FOLDER"].iterdir()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert hashes == tool["FILES"]
    packed = sum(len(gzip.compress(data)) for data in found.values())
    assert packed < 500_000
