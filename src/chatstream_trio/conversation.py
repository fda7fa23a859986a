"""A conversation: messages, their parts, and whatever else a chat template is given.

Frozen values, the same for every API. It goes to a model's codec whole, which refuses what it
cannot render. This module checks nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

from attrs import Factory, field, frozen

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")


@frozen
class TextPart:
    """A part of a message that is text."""

    text: str


Part: TypeAlias = TextPart
"""What a message may hold."""


def _to_parts(content: str | Sequence[Part]) -> tuple[Part, ...]:
    return (TextPart(content),) if isinstance(content, str) else tuple(content)


@frozen
class ToolCall:
    """A call of a tool that an assistant's message made."""

    id: str
    name: str
    arguments: str
    """A JSON object, as text."""

    def to_dict(self) -> dict[str, Any]:
        """The call as OpenAI writes it, with the arguments as an object."""
        arguments = json.loads(self.arguments) if self.arguments.strip() else {}
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


@frozen
class Message:
    """One message of a conversation."""

    role: Role
    content: tuple[Part, ...] = field(converter=_to_parts)
    """The parts of the message, in order. A string is one part; a message that only calls tools
    has none."""
    name: str | None = None
    """The name of who speaks; models whose template knows names are told."""
    tool_calls: tuple[ToolCall, ...] = ()
    """An assistant's."""
    tool_call_id: str | None = None
    """Of the call to which a tool's message is the result."""
    reasoning: str | None = None
    """What an assistant said to itself before; models whose template knows it are told."""

    @property
    def text(self) -> str:
        """The text parts as one string."""
        return "".join([part.text for part in self.content])

    @property
    def size(self) -> int:
        """How much there is to read, about, in characters."""
        calls = sum(16 + len(call.name) + len(call.arguments) for call in self.tool_calls)
        texts = sum([len(part.text) for part in self.content])
        return 16 + texts + calls + len(self.reasoning or "")

    def to_dict(self) -> dict[str, Any]:
        """The message as OpenAI writes it, with the arguments of calls as objects."""
        said: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.tool_calls:
            said["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        others = {
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.reasoning,
        }
        return said | {key: value for key, value in others.items() if value is not None}


@frozen
class Tool:
    """A function that a model may call."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """The JSON schema of its arguments; None: it has none."""
    strict: bool = False
    """Whether arguments have to follow the schema however the model comes to call it."""

    @cached_property
    def size(self) -> int:
        """How much there is to read, about, in characters."""
        schema = 0 if self.parameters is None else len(json.dumps(self.parameters))
        return 64 + len(self.name) + len(self.description or "") + schema

    def to_dict(self) -> dict[str, Any]:
        """The tool as OpenAI writes it. Whether it is strict is nothing that a model is told."""
        function = {
            "name": self.name,
            "description": self.description or "",
            "parameters": {"type": "object", "properties": {}, **(self.parameters or {})},
        }
        return {"type": "function", "function": function}


@frozen
class ToolChoice:
    """Which tools a model may call, or must."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    """The one that it must call, where ``required`` names one."""


@frozen
class Conversation:
    """All that a chat template makes a prompt of."""

    messages: Sequence[Message]
    tools: tuple[Tool, ...] = ()
    """The functions that a model may call."""
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    """Whether an answer may call several."""
    options: Mapping[str, Any] = Factory(dict)
    """Variables of the model's own template, such as ``enable_thinking``."""
    continue_final: bool = False
    """Whether the answer goes on where the last message, an assistant's, ends."""
    add_generation_prompt: bool = True
    """Whether the prompt ends with what opens an assistant's message."""
