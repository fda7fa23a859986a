"""From the bytes of a body to attrs classes, field by field. It knows no API.

msgspec checks types. What it passes over is found here, in one walk over the whole body: fields
that a class does not have. And an object is cut into its fields before any of them is built, so
that a client cannot have millions of objects made for a field that is refused anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import attrs
import msgspec
from attrs import frozen

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.pauses import Walk

T = TypeVar("T")

Foreign = Callable[[type[Any], str, msgspec.Raw, str], None]
"""Told of a field that a class does not have: the class, its name, its value, and its path. Raises
:class:`InvalidRequest` unless it changes nothing."""

MOST_OBJECTS = 2**14
"""In one list."""
_LARGEST_FOREIGN = 2**16
"""Bytes of a field that means nothing here."""
_LONGEST_COMPLAINT = 300


def read(cls: type[T], body: bytes, foreign: Foreign, walk: Walk = iter) -> T:
    """The body of a request as an instance of ``cls``.

    Args:
        cls: An attrs class. Its fields may have such a class, or a list of one, as their type.
        body: JSON.
        foreign: See :data:`Foreign`.
        walk: Goes through what a client may have made long.

    Raises:
        InvalidRequest: Broken JSON; or a field that is missing, ill-typed or foreign, or a list
            that is too long: ``param`` is its path, such as ``messages[0].content``.
    """
    return _Reader(foreign, walk).object(cls, body, "")


def value_of(raw: msgspec.Raw, at: str) -> Any:
    """What a foreign field holds, if it is not large; else ``...``.

    Raises:
        InvalidRequest: It is no JSON.
    """
    return _decode(_anything(), raw, at) if len(memoryview(raw)) <= _LARGEST_FOREIGN else ...


@frozen
class _Reader:
    foreign: Foreign
    walk: Walk

    def object(self, cls: type[T], raw: bytes | msgspec.Raw, at: str) -> T:
        fields = _decode(_objects(), raw, at)
        return self._made(cls, fields, at)

    def _made(self, cls: type[T], given: Mapping[str, msgspec.Raw], at: str) -> T:
        known: Mapping[str, _Field] = _fields_of(cls)  # type: ignore[arg-type]
        values = {}
        for name in self.walk([name for name in known if name in given]):
            values[name] = self._value(known[name], given[name], _join(at, name))
        for name, kind in known.items():
            if kind.required and name not in values:
                path = _join(at, name)
                raise InvalidRequest(f"{path}: missing required field `{name}`", param=path)
        for name in self.walk(given.keys() - known.keys()):
            self.foreign(cls, name, given[name], _join(at, name[:100]))
        return cls(**values)

    def _value(self, kind: _Field, raw: msgspec.Raw, at: str) -> Any:
        opening = bytes(memoryview(raw)[:1])
        if kind.one is not None and opening == b"{":
            return self.object(kind.one, raw, at)
        if kind.many is not None and opening == b"[":
            items = _decode(_lists(), raw, at)
            if len(items) > MOST_OBJECTS:
                raise InvalidRequest(f"{at} holds more than {MOST_OBJECTS}", param=at)
            many = kind.many
            return [self._made(many, x, f"{at}[{i}]") for i, x in self.walk(enumerate(items))]
        return _decode(kind.decoder, raw, at)


@frozen
class _Field:
    """What may be in a field."""

    decoder: msgspec.json.Decoder[Any]
    one: type[Any] | None
    """The class of an object in it."""
    many: type[Any] | None
    """The class of the objects of a list in it."""
    required: bool

    @classmethod
    def of(cls, attribute: attrs.Attribute[Any]) -> _Field:
        kind: Any = attribute.type
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        one = [k for k in kinds if attrs.has(k)]
        lists = [get_args(k)[0] for k in kinds if get_origin(k) is list]
        many = [k for k in lists if attrs.has(k)]
        required = attribute.default is attrs.NOTHING
        decoder = msgspec.json.Decoder(kind)
        return cls(decoder, one[0] if one else None, many[0] if many else None, required)


@cache
def _fields_of(cls: Any) -> Mapping[str, _Field]:
    attrs.resolve_types(cls)
    return {attribute.name: _Field.of(attribute) for attribute in attrs.fields(cls)}


@cache
def _anything() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder()


@cache
def _objects() -> msgspec.json.Decoder[dict[str, msgspec.Raw]]:
    return msgspec.json.Decoder(dict[str, msgspec.Raw])


@cache
def _lists() -> msgspec.json.Decoder[list[dict[str, msgspec.Raw]]]:
    return msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw, at: str) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        where = at + path.rstrip("`")
        what = where or "the body"
        complaint = re.sub(r"\s+", " ", message[:_LONGEST_COMPLAINT])
        raise InvalidRequest(f"{what}: {complaint}", param=where or None) from None
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        complaint = str(error)[:_LONGEST_COMPLAINT]
        raise InvalidRequest(f"the body is not valid JSON: {complaint}", param=at or None) from None


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
