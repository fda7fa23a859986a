"""Thirty JSON Schemas as people write them, and what a model may be held to besides."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def obj(**properties: Any) -> Schema:
    """An object with just these, all of them."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def arr(items: Any, least: int = 0, most: int = 4) -> Schema:
    """A list of so many."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def text(most: int = 12, **more: Any) -> Schema:
    """A short text."""
    return {"type": "string", "maxLength": most, **more}


INTEGER = {"type": "integer", "minimum": -1000, "maximum": 1000}
TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer", "minimum": 0, "maximum": 9},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
    },
    "required": ["value"],
    "additionalProperties": False,
}

SCHEMAS: dict[str, Schema] = {
    # objects in objects
    "person": obj(name=text(), age={"type": "integer", "minimum": 0, "maximum": 150}),
    "nested": obj(a=obj(b=obj(c=obj(d=INTEGER)))),
    "optional": {
        "type": "object",
        "properties": {"a": INTEGER, "b": text(), "c": {"type": "boolean"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "nullable": obj(note={"anyOf": [text(), {"type": "null"}]}, type={"type": ["integer", "null"]}),
    "map": {"type": "object", "additionalProperties": INTEGER, "maxProperties": 3},
    "names": {
        "type": "object",
        "patternProperties": {"^k[0-9]{1,3}$": {"type": "boolean"}},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    # references
    "refs": {
        **obj(start={"$ref": "#/$defs/point"}, end={"$ref": "#/$defs/point"}),
        "$defs": {"point": obj(x=INTEGER, y=INTEGER)},
    },
    "definitions": {**obj(c={"$ref": "#/definitions/c"}), "definitions": {"c": {"const": "ä"}}},
    "tree": {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
    "sibling": {
        **obj(a={"$ref": "#/$defs/small", "description": "a small one", "minimum": 3}),
        "$defs": {"small": {"type": "integer", "maximum": 7}},
    },
    # enums and constants
    "enum": {"enum": ["red", "green", "blue"]},
    "mixed": obj(v={"enum": [1, "one", None, True, [1], {"a": 2.5}]}),
    "const": obj(kind={"const": "circle"}, radius={"type": "number", "minimum": 0, "maximum": 9}),
    "union": {
        "anyOf": [
            obj(kind={"const": "circle"}, r=INTEGER),
            obj(kind={"const": "box"}, w=INTEGER, h=INTEGER),
        ]
    },
    "one": {"oneOf": [obj(a=INTEGER), obj(b=text())]},
    # arrays
    "list": arr(INTEGER, 1, 5),
    "matrix": arr(arr({"type": "integer", "minimum": 0, "maximum": 9}, 2, 2), 2, 3),
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, INTEGER, text()],
        "items": False,
        "minItems": 3,
    },
    "rows": obj(rows=arr(obj(id=INTEGER, tags=arr({"enum": ["a", "b"]}, 0, 2)), 0, 3)),
    # bounds
    "range": obj(p={"type": "number", "minimum": 0, "maximum": 1}),
    "exclusive": obj(n={"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}),
    "negative": obj(t={"type": "number", "minimum": -40.5, "maximum": -0.25}),
    "multiple": obj(n={"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500}),
    "lengths": obj(code={"type": "string", "minLength": 2, "maxLength": 5}),
    # patterns and formats
    "pattern": obj(plate={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,4}$"}),
    "loose": obj(word={"type": "string", "pattern": "[aeiou]{2}", "maxLength": 20}),
    "dates": obj(on={"type": "string", "format": "date"}, at={"type": "string", "format": "time"}),
    "all": {"allOf": [obj(a=INTEGER), {"properties": {"a": {"minimum": 100}}}]},
    # other scripts
    "unicode": obj(名前={"enum": ["花子", "太郎", "🎉 party"]}, straße={"type": "boolean"}),
    "quotes": obj(**{'a "b"\n\\c': {"const": 'x "y"\t\\z'}, "é": text(6, pattern="^[à-ÿ]+$")}),
}
assert len(SCHEMAS) == 30
