"""The OpenAPI document, made of what each API says of its endpoints.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib import metadata
from itertools import chain
from typing import Any

from attrs import frozen

from chatstream_trio.errors import ChatStreamError, QueueFull
from chatstream_trio.web.answering import STREAM_ID, TIMEOUT_HEADERS
from chatstream_trio.web.errors import reply_to
from chatstream_trio.web.ignored import HEADER as IGNORED
from chatstream_trio.web.openapi.endpoint import Api, Endpoint, Error, Stream
from chatstream_trio.web.openapi.schemas import Schemas

_ABOUT = """\
A chat model, served to many people from one machine.

What is below `/v1` is there without it as well. `null` is the same as leaving a field out. Fields
that are not described here are ignored and named in the header `X-Ignored-Fields`, or refused, as
the server was told (`--unknown-fields`); those that would change the answer are refused by name.
A stream that waits for its seat gets comments with its place in the line."""

_ID = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"}
_SECONDS = {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400}
_TEXT = {"type": "string"}


def openapi(apis: Sequence[Api], *, keys: bool) -> dict[str, Any]:
    """The document.

    Args:
        apis: Those that are served.
        keys: Whether keys are configured: without one of them nothing is answered then.
    """
    facts = dict(chain.from_iterable(api.facts.items() for api in apis))
    types = list(chain.from_iterable(_types(one) for api in apis for one in api.endpoints))
    schemas = Schemas([*types, Error], facts)
    paths: dict[str, dict[str, Any]] = {}
    for api in apis:
        for endpoint in api.endpoints:
            operation = _Operation(endpoint, schemas, keys).told(api.name)
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ChatStream Trio",
            "description": _ABOUT,
            "version": metadata.version("chatstream-trio"),
        },
        "servers": [{"url": "./"}],
        "tags": [{"name": api.name, "description": api.description} for api in apis],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the server's keys, where it has any.",
                },
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _types(endpoint: Endpoint) -> list[Any]:
    """What an endpoint needs the schemas of."""
    bodies = (endpoint.body, endpoint.reply, endpoint.error)
    events = endpoint.stream.events if endpoint.stream else ()
    return [kind for kind in (*bodies, *events, *endpoint.also.values()) if kind is not None]


def _header_name(name: str) -> str:
    return name.replace("-", "")


_ASKED: Mapping[str, tuple[dict[str, Any], str]] = {
    STREAM_ID: (_ID, "The id that the request shall have, by which it can be cancelled."),
    **{
        header: (_SECONDS, f"Seconds for `{phase}`; the same as in `timeouts`, the shorter counts.")
        for phase, header in TIMEOUT_HEADERS.items()
    },
}
_PARAMETERS = {
    _header_name(name): {"name": name, "in": "header", "description": text, "schema": schema}
    for name, (schema, text) in _ASKED.items()
}
_HEADERS = {
    _header_name(name): {"description": text, "schema": schema}
    for name, (schema, text) in {
        STREAM_ID: (_TEXT, "The id of the request."),
        "X-Request-Id": (_TEXT, "The same."),
        IGNORED: (_TEXT, "Fields of the request that were ignored."),
        "Retry-After": ({"type": "integer", "minimum": 1}, "Seconds after which it may go."),
        "x-should-retry": ({"type": "string", "enum": ["false"]}, "The outcome is final."),
        "WWW-Authenticate": (_TEXT, "How to say the key."),
        "Accept-Encoding": (_TEXT, "What can be unpacked."),
    }.items()
}


@frozen
class _Operation:
    """One endpoint, told."""

    endpoint: Endpoint
    schemas: Schemas
    keys: bool

    def told(self, tag: str) -> dict[str, Any]:
        one = self.endpoint
        said: dict[str, Any] = {"tags": [tag], "summary": one.summary, "operationId": _name(one)}
        if one.description:
            said["description"] = one.description
        if parameters := self._parameters():
            said["parameters"] = parameters
        if one.body is not None:
            content: dict[str, Any] = {"schema": self.schemas.of(one.body)}
            if one.examples:
                content["examples"] = {k: {"value": v} for k, v in one.examples.items()}
            said["requestBody"] = {"required": True, "content": {"application/json": content}}
        said["responses"] = {str(status): it for status, it in sorted(self._responses().items())}
        if one.keyed:
            said["security"] = [*([] if self.keys else [{}]), {"key": []}, {"x-api-key": []}]
        return said

    def _parameters(self) -> list[dict[str, Any]]:
        named = [
            {"name": name, "in": "path", "required": True, "schema": dict(schema)}
            for name, schema in self.endpoint.places.items()
        ]
        asked = _PARAMETERS if self.endpoint.answers else ()
        return [*named, *({"$ref": f"#/components/parameters/{name}"} for name in asked)]

    def _responses(self) -> dict[int, dict[str, Any]]:
        one = self.endpoint
        found: dict[int, dict[str, Any]] = {}
        if one.exists:
            found[200] = {"description": "It is done.", "content": self._content()}
            self._say_always(found[200])
        for status, kind in one.also.items():
            found[status] = {"description": f"{HTTPStatus(status).phrase}."}
            if kind is not None:
                found[status]["content"] = {"application/json": {"schema": self.schemas.of(kind)}}
        for failure in one.failures:
            self._fail(found, failure)
        return found

    def _content(self) -> dict[str, Any]:
        one = self.endpoint
        content: dict[str, Any] = {}
        if one.content_type is not None:
            content[one.content_type] = {}
            if one.reply is not None:
                content[one.content_type]["schema"] = self.schemas.of(one.reply)
            if one.reply_example is not None:
                content[one.content_type]["example"] = one.reply_example
        if one.stream is not None:
            told = {"schema": self._event(one.stream), "example": one.stream.example}
            content[one.stream.content_type] = told
        return content

    def _event(self, stream: Stream) -> dict[str, Any]:
        """One event of a stream, as an object of its fields: what OpenAPI 3.2 says of them."""
        kinds = [self.schemas.of(kind) for kind in stream.events]
        schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if stream.content_type != "text/event-stream":
            return {"description": "One line.", "anyOf": kinds}
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
        event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
        if not stream.last:
            return {"description": "An event.", **event}
        last = {"type": "object", "properties": {"data": {"const": stream.last}}}
        return {
            "description": "An event; the last one is that without JSON, unless the stream failed.",
            "anyOf": [{**last, "required": ["data"]}, event],
        }

    def _fail(self, found: dict[int, dict[str, Any]], failure: type[ChatStreamError] | int) -> None:
        one = self.endpoint
        status, text, headers = _failure(failure)
        if status not in found:
            content = {"application/json": {"schema": self.schemas.of(one.error)}}
            found[status] = {"description": text, "content": content}
            self._say_always(found[status])
        elif text not in found[status]["description"]:
            found[status]["description"] += f"\n\n{text}"
        _add(found[status], headers)

    def _say_always(self, response: dict[str, Any]) -> None:
        """The headers that a refusal has as well."""
        _add(response, (STREAM_ID, "X-Request-Id") if self.endpoint.answers else ())
        _add(response, (IGNORED,) if self.endpoint.body else ())


def _add(response: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        place = {"$ref": f"#/components/headers/{_header_name(name)}"}
        response.setdefault("headers", {})[name] = place


def _failure(failure: type[ChatStreamError] | int) -> tuple[int, str, tuple[str, ...]]:
    """Its status, what it means, and which headers come with it."""
    if isinstance(failure, int):
        return failure, f"{HTTPStatus(failure).phrase}.", ()
    error = failure("", retry_after=1.0) if issubclass(failure, QueueFull) else failure("")
    reply = reply_to(error)
    doc = " ".join((inspect.getdoc(failure) or "").partition("\n\n")[0].split())
    return reply.status, f"`{reply.code}`: {doc.replace('``', '`')}", tuple(reply.headers)


def _name(one: Endpoint) -> str:
    words = one.path.replace("{", "").replace("}", "").replace(".", "_").split("/")
    return "_".join([one.method.lower(), *(word for word in words if word)])
