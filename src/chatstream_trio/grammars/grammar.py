"""A language that an answer has to belong to, as it is written down. A value: it can go to a child.

It does not know what its source means.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from attrs import field, frozen


class GrammarKind(Enum):
    """In which notation a grammar is written."""

    JSON_SCHEMA = "json_schema"
    """JSON text: a schema of draft 2020-12 (llguidance says which keywords it has)."""
    REGEX = "regex"
    """Of Rust's ``regex``: no look-around, no back references. The whole answer matches it."""
    CHOICE = "choice"
    """JSON text: a list of strings, one of which is the whole answer."""
    LARK = "lark"
    """llguidance's variant of Lark's notation, with a rule ``start``. ``%json {...}`` stands for a
    JSON Schema in it. ``<|im_start|>`` stands for the special token of that name, and ``<[7]>`` for
    the token of that id, whether it is special or not."""
    GBNF = "gbnf"
    """llama.cpp's notation, with a rule ``root``."""


@frozen
class Grammar:
    """A language that an answer has to belong to. What its source means, its kind says."""

    kind: GrammarKind
    source: str
    param: str = field(default="grammar", eq=False)
    """What it is called where it was asked for: errors name it."""


ANY_OBJECT = '{"type": "object"}'
"""The schema of every JSON object."""
JSON_OPTIONS: Mapping[str, Any] = {
    # A model that likes blanks would else say them for ever: one, or a new line and its indent.
    "whitespace_pattern": r"[ \t]|\r?\n[ \t]{0,40}",
    "whitespace_flexible": True,
    # A schema may ask for these two by itself, and would then hold for less than it says.
    "lenient": False,
    "coerce_one_of": False,
}
"""How a schema is read. In a Lark grammar it stands in the schema, as ``x-guidance``."""
