"""Messages of Ollama's chats, as templates are given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Message, ToolCall
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.web.bodies.reading import Foreign, Harmless, Wire
from chatstream_trio.web.sse import to_json

_IMAGES: Mapping[str, Harmless] = {"images": lambda value: value == []}


class CalledFunction(Wire, frozen=True):
    """Which function was called, and how."""

    foreign = Foreign(labels={"index": lambda value: isinstance(value, int)}, empty=True)
    name: str
    arguments: dict[str, Any] | None = None


class CallBody(Wire, frozen=True):
    """A call in an assistant's message."""

    foreign = Foreign(labels={"type": lambda value: value == "function"}, empty=True)
    function: CalledFunction
    id: str | None = None


class _Message(Wire, frozen=True):
    foreign = Foreign(_IMAGES, empty=True)


class SystemMessage(_Message, frozen=True, tag_field="role", tag="system"):
    """What the model is told to be."""

    content: str


class UserMessage(_Message, frozen=True, tag_field="role", tag="user"):
    """What a person says."""

    content: str


class AssistantMessage(_Message, frozen=True, tag_field="role", tag="assistant"):
    """What a model said before."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[CallBody] | None = None


class ToolMessage(_Message, frozen=True, tag_field="role", tag="tool"):
    """What came of a call."""

    content: str
    tool_name: str | None = None
    name: str | None = None
    """The older name of ``tool_name``."""
    tool_call_id: str | None = None


AnyMessage: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage
"""A message as it comes over the wire."""


def to_messages(messages: Sequence[AnyMessage], walk: Walk) -> list[Message]:
    """The conversation, for any codec.

    Most clients number no calls: a result is that of the first call of its tool that has none yet,
    or of the first of all where it does not say which tool it was.

    Raises:
        InvalidRequest: There is a result of a call that nobody made.
    """
    history: list[Message] = []
    open_calls: list[ToolCall] = []
    number = 0
    for index, message in walk(enumerate(messages)):
        match message:
            case SystemMessage(content):
                history.append(Message("system", content))
            case UserMessage(content):
                history.append(Message("user", content))
            case AssistantMessage(said, thinking, given):
                calls = []
                for call in given or ():
                    name, arguments = call.function.name, call.function.arguments or {}
                    id = call.id or f"call_{number}"
                    calls.append(ToolCall(id, name, to_json(arguments).decode()))
                    number += 1
                open_calls += calls
                history.append(
                    Message(
                        "assistant", said or "", tool_calls=tuple(calls), reasoning=thinking or None
                    )
                )
            case ToolMessage(content):
                made = _made(message, open_calls, f"messages[{index}]")
                open_calls.remove(made)
                history.append(Message("tool", content, made.name, tool_call_id=made.id))
    return history


def _made(message: ToolMessage, calls: Sequence[ToolCall], at: str) -> ToolCall:
    name = message.tool_name or message.name
    for call in calls:
        if message.tool_call_id is not None:
            if call.id == message.tool_call_id:
                return call
        elif not name or call.name == name:
            return call
    raise InvalidRequest("no call before it has this result", param=f"{at}.role")
