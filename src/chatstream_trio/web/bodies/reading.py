"""From the bytes of a body to structs, field by field. It knows no API.

A struct declares what an object of a body may hold; msgspec checks it. What msgspec passes over is
found here, for every API in the same walk over the whole body: fields that a struct does not have.
What becomes of those that nobody knows is up to whoever reads the body.
And an object is cut into its fields before any of them is built, so that a client cannot have
millions of objects made for a field that is refused anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

import msgspec
from attrs import field, frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.errors import InvalidRequest, UnsupportedField

Harmless = Callable[[Any], bool]
"""Whether a value of a field that we do not have changes nothing."""
Unknown = Callable[[str], None]
"""Told the path of a field that nobody knows, and passes over it or raises."""

MOST_OBJECTS = 2**14
"""In one list."""
_LARGEST_FOREIGN = 2**16
"""Bytes of a field that means nothing here."""
_LONGEST_COMPLAINT = 300
_LONGEST_TAG = 100
_SAYS_NOTHING = (b"null", b"false", b'""', b"[]", b"{}")


@frozen
class Foreign:
    """Which fields may be in an object that its struct does not have."""

    harmless: Mapping[str, Harmless] = field(factory=dict)
    """Fields that change the answer, and which of their values do not, besides null. With any other
    they are refused."""
    labels: Mapping[str, Harmless] = field(factory=dict)
    """Fields that change no answer, and with which values nobody need hear of it, null besides.
    With any other they are like fields that nobody knows."""
    empty: bool = False
    """Whether any field may be there that says nothing: null, false, or nothing in it."""


class Wire(msgspec.Struct, frozen=True):
    """An object of a body, or the whole of it. Subclasses declare its fields.

    A field may have such a class, or a list of one, as its type; or several that a tag tells apart,
    which is a field of each (``tag_field`` and ``tag``).
    """

    foreign: ClassVar[Foreign] = Foreign()
    """What else may be in it."""


T = TypeVar("T")
W = TypeVar("W", bound=Wire)


def refuse_unknown(at: str) -> None:
    """An :data:`Unknown` that passes over nothing.

    Raises:
        InvalidRequest: Always.
    """
    raise InvalidRequest(f"unknown or unsupported field {at!r}", param=at)


def read(cls: type[W], body: bytes, walk: Walk = iter, unknown: Unknown = refuse_unknown) -> W:
    """The body of a request as an instance of ``cls``.

    Args:
        cls: What is to be in it.
        body: JSON.
        walk: Goes through what a client may have made long.
        unknown: Told of every field that nobody knows, in whatever depth.

    Raises:
        InvalidRequest: Broken JSON; or a field that is missing or ill-typed, or a list that is too
            long: ``param`` is its path, such as ``messages[0].content``. And what ``unknown`` does.
        UnsupportedField: A field that we do not have, with a value that matters.
    """
    return _Reader(walk, unknown).object(cls, body, "")


def _value_of(raw: msgspec.Raw, at: str) -> Any:
    """What a foreign field holds, if it is not large; else ``...``.

    Raises:
        InvalidRequest: It is no JSON.
    """
    return _decode(_anything(), raw, at) if len(memoryview(raw)) <= _LARGEST_FOREIGN else ...


@frozen
class _Reader:
    walk: Walk
    unknown: Unknown

    def object(self, cls: type[W], raw: bytes | msgspec.Raw, at: str) -> W:
        fields = _decode(_objects(), raw, at)
        return self._made(cls, fields, at)

    def _made(self, cls: type[W], given: Mapping[str, msgspec.Raw], at: str) -> W:
        known: Mapping[str, _Field] = _fields_of(cls)
        values = {}
        for name in self.walk([name for name in known if name in given]):
            values[known[name].name] = self._value(known[name], given[name], _join(at, name))
        for name, kind in known.items():
            if kind.required and name not in given:
                path = _join(at, name)
                raise InvalidRequest(f"{path}: missing required field `{name}`", param=path)
        tag = cls.__struct_config__.tag_field
        for name in self.walk(name for name in given if name not in known and name != tag):
            self._pass_over(cls.foreign, name, given[name], _join(at, name[:100]))
        return cls(**values)

    def _pass_over(self, foreign: Foreign, name: str, raw: msgspec.Raw, at: str) -> None:
        """Judge a field that a struct does not have: the one place where that is done."""
        if foreign.empty and bytes(memoryview(raw)[:8]) in _SAYS_NOTHING:
            return
        if (harmless := foreign.harmless.get(name)) is not None:
            value = _value_of(raw, at)
            if value is None or harmless(value):
                return
            raise UnsupportedField(f"this value of {name} is not supported here", param=at)
        if (fine := foreign.labels.get(name)) is not None:
            value = _value_of(raw, at)
            if value is None or fine(value):
                return
        self.unknown(at)

    def _value(self, kind: _Field, raw: msgspec.Raw, at: str) -> Any:
        opening = bytes(memoryview(raw)[:1])
        if kind.one is not None and opening == b"{":
            given = _decode(_objects(), raw, at)
            return self._made(kind.one.of(given, at), given, at)
        if kind.many is not None and opening == b"[":
            items = _decode(_lists(), raw, at)
            if len(items) > MOST_OBJECTS:
                raise InvalidRequest(f"{at} holds more than {MOST_OBJECTS}", param=at)
            numbered = ((given, f"{at}[{i}]") for i, given in self.walk(enumerate(items)))
            return [self._made(kind.many.of(given, at), given, at) for given, at in numbered]
        return _decode(kind.decoder, raw, at)


@frozen
class _Kinds:
    """The objects that may be in one place: of one class, or of several that a tag tells apart."""

    classes: Sequence[type[Wire]]

    def of(self, given: Mapping[str, msgspec.Raw], at: str) -> type[Wire]:
        """Which of them an object is.

        Raises:
            InvalidRequest: It has no tag.
            UnsupportedField: It is none of them.
        """
        field = self.classes[0].__struct_config__.tag_field
        if field is None:
            return self.classes[0]
        path = _join(at, field)
        if field not in given:
            raise InvalidRequest(f"{path}: missing required field `{field}`", param=path)
        tag = _decode(_strings(), given[field], path)
        for cls in self.classes:
            if cls.__struct_config__.tag == tag:
                return cls
        there = ", ".join(repr(cls.__struct_config__.tag) for cls in self.classes)
        raise UnsupportedField(
            f"{tag[:_LONGEST_TAG]!r} cannot be here; it can be {there}", param=path
        )


@frozen
class _Field:
    """What may be in a field."""

    name: str
    """In the struct; on the wire it may have another."""
    decoder: msgspec.json.Decoder[Any]
    one: _Kinds | None
    """The classes of an object in it."""
    many: _Kinds | None
    """The classes of the objects of a list in it."""
    required: bool

    @classmethod
    def of(cls, info: msgspec.structs.FieldInfo) -> _Field:
        kinds = _either(info.type)
        lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
        one = [kind for kind in kinds if _is_wire(kind)]
        many = [kind for each in lists for kind in _either(each) if _is_wire(kind)]
        return cls(
            info.name,
            msgspec.json.Decoder(info.type),
            _Kinds(one) if one else None,
            _Kinds(many) if many else None,
            info.required,
        )


def _either(kind: Any) -> Sequence[Any]:
    """The types of a union; of another type, that."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_wire(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Wire)


@cache
def _fields_of(cls: type[Wire]) -> Mapping[str, _Field]:
    """By their names on the wire."""
    return {info.encode_name: _Field.of(info) for info in msgspec.structs.fields(cls)}


@cache
def _anything() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder()


@cache
def _strings() -> msgspec.json.Decoder[str]:
    return msgspec.json.Decoder(str)


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
