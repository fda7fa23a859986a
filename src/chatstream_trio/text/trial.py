"""Conversations to try a chat template with: made of words that can be found again.

A trial has the shape of what somebody said, and nothing of its content, so that what was found out
with it can be remembered. This module renders nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from chatstream_trio.aside.pauses import PausingList, with_pauses
from chatstream_trio.text.forms import Spoken

NOWHERE = -1
"""The place of tools, which are in no message."""
_TOOL = {
    "type": "function",
    "function": {
        "name": "toolhere",
        "description": "toldhere",
        "parameters": {
            "type": "object",
            "properties": {"parameterhere": {"type": "string", "description": "describedhere"}},
            "required": ["parameterhere"],
        },
    },
}


@frozen
class _Turn:
    """One message."""

    role: str
    says: bool = True
    """Whether there is a word in it besides calls."""
    calls: tuple[int, ...] = ()
    """Its calls, by number."""
    result_of: int | None = None
    """The number of the call to which it is the result."""


@frozen
class Shape:
    """What a template may look at in a conversation besides its words."""

    turns: tuple[_Turn, ...]
    tools: bool = False
    options: str = "{}"
    """As JSON: they may change all."""
    opens: bool = True
    continued: bool = False

    @classmethod
    def of(cls, spoken: Spoken) -> Shape:
        """That of a conversation."""
        numbers: dict[str, int] = {}
        turns = []
        for message in with_pauses(spoken.messages):
            ids = [call["id"] for call in message.get("tool_calls", ())]
            calls = tuple(numbers.setdefault(id, len(numbers)) for id in ids)
            result = message.get("tool_call_id")
            of = None if result is None else numbers.setdefault(result, len(numbers))
            turns.append(_Turn(message["role"], bool(message["content"]) or not calls, calls, of))
        options = json.dumps(spoken.options, sort_keys=True)
        return cls(tuple(turns), bool(spoken.tools), options, spoken.opens, spoken.continued)

    @classmethod
    def of_roles(cls, *roles: str) -> Shape:
        """That of people who only talk."""
        return cls(tuple(map(_Turn, roles)))

    def to_spoken(self, *, long_ids: bool = False) -> Spoken:
        """A conversation of this shape."""
        turns = with_pauses(enumerate(self.turns))
        messages = PausingList(_message(place, turn, long_ids) for place, turn in turns)
        tools = [_TOOL] if self.tools else []
        return Spoken(messages, tools, json.loads(self.options), self.opens, self.continued)

    def first_left_out(self, text: str) -> int | None:
        """The place of the first message, or :data:`NOWHERE`, that is not whole in a text."""
        if self.tools and not ("toolhere" in text and "parameterhere" in text):
            return NOWHERE
        at = 0
        for place, turn in with_pauses(enumerate(self.turns)):
            for word in _words(place, turn):
                found = text.find(word, at)  # they come in order, in most templates
                at = found if found >= 0 else text.find(word)
                if at < 0:
                    return place
        return None


WITH_A_CALL = Shape((_Turn("user"), _Turn("assistant", False, (0,)), _Turn("tool", True, (), 0)))
"""What a model does between a question and its answer."""


def is_garbled(text: str) -> bool:
    """Whether the arguments of :data:`WITH_A_CALL` came out as no JSON that a model may learn."""
    return "'key1x0here'" in text or r"\"key1x0here\"" in text


def _words(place: int, turn: _Turn) -> Sequence[str]:
    said = [f"message{place}here"] if turn.says else []
    for number in range(len(turn.calls)):
        said += [f"call{place}x{number}here", f"value{place}x{number}here"]
    return said


def _message(place: int, turn: _Turn, long_ids: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": ""}
    if turn.says:
        message["content"] = f"message{place}here"
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": _id(call, long_ids),
                "type": "function",
                "function": {
                    "name": f"call{place}x{number}here",
                    "arguments": {f"key{place}x{number}here": f"value{place}x{number}here"},
                },
            }
            for number, call in enumerate(turn.calls)
        ]
    if turn.result_of is not None:
        message["tool_call_id"] = _id(turn.result_of, long_ids)
        message["name"] = "toolhere"
    return message


def _id(number: int, long: bool) -> str:
    """One of nine letters and digits, or one as OpenAI's are."""
    return f"call_{number:024d}" if long else f"c{number:08d}"
