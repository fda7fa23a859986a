"""Whatever a server sends in a test is held against the document that it gives of itself."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
from attrs import define, field

METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}


@define
class Document:
    """An OpenAPI document, to be asked."""

    said: dict[str, Any]
    _validators: dict[str, Any] = field(factory=dict, init=False)

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """What it says of a path, which may be without ``/v1``."""
        for template, item in self.said["paths"].items():
            pattern = re.escape(template).replace(r"\{name\}", ".+")  # a model's may have a slash
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", pattern)
            short = pattern.removeprefix("/v1")
            if method.lower() in item and (
                re.fullmatch(pattern, path) or re.fullmatch(short, path)
            ):
                return dict(item[method.lower()])
        return None

    def shapes_of_errors(self) -> dict[str, Any]:
        """Those of all APIs."""
        operations = [one for item in self.said["paths"].values() for one in item.values()]
        contents = [one["responses"]["403"]["content"] for one in operations]
        shapes = [content["application/json"]["schema"] for content in contents]
        return {"anyOf": [shape for at, shape in enumerate(shapes) if shape not in shapes[:at]]}

    def complain(self, schema: dict[str, Any], value: Any) -> str:
        """What is wrong with a value; nothing if it is as it should be."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {**schema, "components": self.said["components"]}
            self._validators[key] = jsonschema_rs.validator_for(whole)
        return "; ".join(str(error)[:300] for error in self._validators[key].iter_errors(value))


def data_of(schema: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The schema of the data of an event, and what the last event is, if it is no JSON."""
    *last, event = schema.get("anyOf", [schema])
    data = event["properties"]["data"]
    return data["contentSchema"], last[0]["properties"]["data"]["const"] if last else None


def check(
    document: Document, method: str, path: str, status: int, headers: dict[str, str], body: bytes
) -> str:
    """What a response says that the document does not; nothing if it is as it should be."""
    path = "/" + path.lstrip("/")
    operation = document.operation(method, path)
    if operation is None:  # a gate's answer, in the words of an API
        shapes = document.shapes_of_errors()
        return document.complain(shapes, json.loads(body)) if status >= 400 else "undescribed"
    described = operation["responses"].get(str(status))
    if described is None:
        return f"{status} is not described"
    kind = headers.get("content-type", "").partition(";")[0]
    if "content" not in described:
        return "a body is not described" if body else ""
    if kind not in described["content"]:
        return f"{kind} is not described"
    for name in ("x-should-retry", "retry-after", "x-ignored-fields", "www-authenticate"):
        if name in headers and name not in map(str.lower, described.get("headers", ())):
            return f"the header {name} is not described"
    schema = described["content"][kind].get("schema")
    if schema is None:
        return ""
    if kind == "application/x-ndjson":
        lines = [json.loads(line) for line in body.split(b"\n")[:-1] if line]
        return "; ".join(filter(None, (document.complain(schema, value) for value in lines)))
    if kind != "text/event-stream":
        return document.complain(schema, json.loads(body))
    wanted, last = data_of(schema)
    for event in body.decode().split("\n\n")[:-1]:  # the last may not be whole
        lines = [line[6:] for line in event.split("\n") if line.startswith("data: ")]
        said = [] if lines == [last] else [json.loads(line) for line in lines]
        if wrong := "; ".join(filter(None, (document.complain(wanted, it) for it in said))):
            return wrong
    return ""


@define
class Conforming:
    """An app that remembers what it sent that it should not have."""

    app: Any
    document: Document
    wrong: list[str] = field(factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on, and look at it."""
        if scope["type"] != "http" or scope["method"] not in METHODS:
            await self.app(scope, receive, send)
            return
        started: dict[str, Any] = {}
        sent: list[bytes] = []

        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            elif message["type"] == "http.response.body":
                sent.append(bytes(message.get("body", b"")))
                if not message.get("more_body"):
                    started["ended"] = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            self._look(scope, started, b"".join(sent))

    def _look(self, scope: Any, started: dict[str, Any], body: bytes) -> None:
        if not started or scope["path"].startswith("/docs/"):
            return
        headers = {k.decode().lower(): v.decode("latin1") for k, v in started["headers"]}
        kinds = ("text/event-stream", "application/x-ndjson")
        events = headers.get("content-type", "").startswith(kinds)
        if not (events or "ended" in started) or "content-encoding" in headers:
            return
        method, path = scope["method"], scope["path"]
        wrong = check(self.document, method, path, started["status"], headers, body)
        if wrong:
            self.wrong.append(f"{method} {path} {started['status']}: {wrong}")
