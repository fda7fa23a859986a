"""A language that an answer has to belong to, as it is written down. A value: it can go to a child.

It does not know what its source means.
"""

from __future__ import annotations

from enum import Enum

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
