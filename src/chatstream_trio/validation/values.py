"""Text, and values that are to become JSON: what no client may smuggle in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define

from chatstream_trio.errors import InvalidRequest

MOST_DEPTH = 64
"""Objects and lists within one another."""


def check_text(text: str, param: str) -> None:
    """Refuse text that no UTF-8 can hold (lone surrogates, which JSON can smuggle in).

    Raises:
        InvalidRequest: naming ``param``.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text is not valid Unicode", param=param) from None


@define
class Budget:
    """How many values may still come: a few large ones cost nothing, a million small ones would."""

    left: int
    of: str
    """What they are all in, for the error."""

    def check(self, value: Any, param: str) -> None:
        """Refuse what is no JSON, or too much of it, or too deep.

        Raises:
            InvalidRequest: naming the place in it, which begins with ``param``.
        """
        within = [(value, param, 0)]
        while within:
            value, at, depth = within.pop()
            self.left -= 1
            if self.left < 0:
                raise InvalidRequest(f"{self.of} hold too many values", param=param)
            if depth > MOST_DEPTH:
                raise InvalidRequest(f"{param} is nested more than {MOST_DEPTH} deep", param=param)
            inner = ((value, place, depth + 1) for value, place in _within(value, at))
            within.extend(inner)


def _within(value: Any, at: str) -> Iterator[tuple[Any, str]]:
    """What a value holds; and the value itself is checked."""
    if isinstance(value, str):
        check_text(value, at)
    elif isinstance(value, Mapping):
        for key, held in value.items():
            if not isinstance(key, str):
                raise InvalidRequest("the keys of an object must be strings", param=at)
            check_text(key, at)
            yield held, f"{at}.{key[:64]}"
    elif isinstance(value, list | tuple):
        for index, held in enumerate(value):
            yield held, f"{at}[{index}]"
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest("a number must be finite", param=at)
    elif value is not None and not isinstance(value, bool | int | float):
        raise InvalidRequest("the value must be one that JSON has", param=at)


def read_object(text: str, param: str) -> dict[str, Any]:
    """A JSON object that was written as a string. None at all is an empty one.

    Raises:
        InvalidRequest: It is something else; ``param`` names it.
    """
    try:
        found = json.loads(text, parse_constant=_no_number) if text.strip() else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("this must be a JSON object, as a string", param=param)
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
