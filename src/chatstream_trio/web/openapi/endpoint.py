"""How an endpoint is described: what it takes, what it gives, how it may fail.

Each API fills in one :class:`Api` next to its routes; what is made of all of them is in
:mod:`.document`. This module knows no API and no server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import field, frozen

from chatstream_trio import errors
from chatstream_trio.errors import ChatStreamError

Schema = Mapping[str, Any]
"""A JSON Schema, or a few of its keywords."""
Facts = Mapping[type[msgspec.Struct], Mapping[str, Schema]]
"""What classes do not say of their fields, by class and field: ranges that are checked elsewhere,
and descriptions."""


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An object of a reply. It describes what is sent, and is not what sends it: tests hold every
    reply against it, and there may be nothing else in one."""


class ErrorInside(Reply, frozen=True):
    """What went wrong."""

    message: str
    """For a person."""
    type: str
    param: str | None
    """The field that is wrong, such as `messages[0].content`."""
    code: str | None
    """For a program."""


class Error(Reply, frozen=True):
    """A refusal, or the end of a stream that fails."""

    error: ErrorInside


ANYWHERE: tuple[type[ChatStreamError] | int, ...] = (
    errors.InvalidRequest,  # a Host that is none
    errors.HostNotAllowed,
    errors.OriginNotAllowed,
    500,
)
"""What any request may be told."""
KEYED = (errors.NotAuthenticated, errors.Loading)
"""What a request may be told that wants a key where there are keys."""
READING = (errors.UnsupportedField, errors.UnsupportedEncoding, 408, 413)
"""What a request may be told that has a body."""
ANSWERING = (
    errors.ContextTooLong,
    errors.ModelNotServed,
    errors.IdInUse,
    errors.QueueFull,
    errors.TooManyForKey,
    errors.StreamCancelled,
    errors.QueueTimeout,
    errors.FirstTokenTimeout,
    errors.TotalTimeout,
    errors.Draining,
    errors.EngineFailed,
    errors.StreamFault,
)
"""What a request may be told that takes a seat."""


@frozen(kw_only=True)
class Stream:
    """A stream of events, or of lines that are JSON (``application/x-ndjson``)."""

    events: Sequence[type[Reply]]
    """What the data of an event may be."""
    example: str
    """Some of it, as it is on the wire."""
    last: str = ""
    """Data of the last event that is no JSON, such as ``[DONE]``."""
    content_type: str = "text/event-stream"


@frozen(kw_only=True)
class Endpoint:
    """One path with one method."""

    method: str
    path: str
    """As it is documented, with ``{name}`` where something is put in."""
    summary: str
    description: str = ""
    body: type[msgspec.Struct] | None = None
    """The class that reads it."""
    examples: Mapping[str, Any] = field(factory=dict)
    """Bodies, by what they show. They are sent in the tests, and must be answered with 200."""
    reply: Any = None
    """What a 200 holds: a type, for msgspec. Another content type than JSON has no schema."""
    reply_example: Any = None
    content_type: str | None = "application/json"
    """None: it is always a stream."""
    stream: Stream | None = None
    """What it sends if it is asked to stream."""
    also: Mapping[int, Any] = field(factory=dict)
    """Types of replies with another status that are no errors; None: nothing is in it."""
    places: Mapping[str, Schema] = field(factory=dict)
    """What may be put into the path."""
    exists: bool = True
    """Whether there is a 200 at all. Some paths only say why there is nothing."""
    answers: bool = False
    """Whether it takes a seat: it has an id, deadlines, and many ways to fail."""
    keyed: bool = True
    """Whether it wants a key where there are keys."""
    errors: Sequence[type[ChatStreamError] | int] = ()
    """How it may fail besides what goes for all that are like it."""
    error: type[Reply] = Error
    """The shape of its errors."""

    @property
    def failures(self) -> tuple[type[ChatStreamError] | int, ...]:
        """All ways in which it may fail: an error, or a status of HTTP's own."""
        return (
            *ANYWHERE,
            *(KEYED if self.keyed else ()),
            *(READING if self.body else ()),
            *(ANSWERING if self.answers else ()),
            *self.errors,
        )


@frozen(kw_only=True)
class Api:
    """The endpoints of one API, and what its classes do not say of their fields."""

    name: str
    description: str
    endpoints: Sequence[Endpoint]
    facts: Facts = field(factory=dict)


def between(low: float, high: float, description: str = "") -> Schema:
    """The keywords of a number in a range."""
    return {"minimum": low, "maximum": high, **said(description)}


def at_least(low: float, description: str = "") -> Schema:
    """The keywords of a number that has no upper end."""
    return {"minimum": low, **said(description)}


def at_most(count: int, description: str = "") -> Schema:
    """The keywords of a list that may be so long."""
    return {"maxItems": count, **said(description)}


def said(description: str) -> Schema:
    """A description, if there is one."""
    return {"description": description} if description else {}
