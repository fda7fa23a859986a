"""Messages of OpenAI's chat completions as structs, one for each role.

Parts of other kinds (images, sounds, files) are refused by their ``type``. What a client may send
back from an earlier answer of ours, or of a peer's, is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from chatstream_trio import conversation
from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Message, ToolCall
from chatstream_trio.web.bodies.reading import Foreign, Harmless, Wire
from chatstream_trio.web.openai.foreign import LABELS, PARTS_OF_SPEECH

_NUMBERED: Mapping[str, Harmless] = {**LABELS, "index": lambda value: isinstance(value, int)}
"""Calls that a client put together from a stream have their numbers."""


class TextPart(Wire, frozen=True, tag_field="type", tag="text"):
    """A part of a message."""

    foreign = Foreign(labels=LABELS, empty=True)
    text: str


class RefusalPart(Wire, frozen=True, tag_field="type", tag="refusal"):
    """What an assistant said instead of an answer."""

    foreign = Foreign(labels=LABELS, empty=True)
    refusal: str


class CalledFunction(Wire, frozen=True):
    """Which function was called, and how."""

    foreign = Foreign(labels=LABELS, empty=True)
    name: str
    arguments: str
    """A JSON object; nothing at all is an empty one."""


class CallBody(Wire, frozen=True):
    """A call in an assistant's message."""

    foreign = Foreign(labels=_NUMBERED, empty=True)
    id: str
    function: CalledFunction
    type: Literal["function"] | None = None

    def to_call(self) -> ToolCall:
        """The same, for any codec."""
        return ToolCall(self.id, self.function.name, self.function.arguments)


class _Message(Wire, frozen=True):
    foreign = Foreign(PARTS_OF_SPEECH, LABELS, empty=True)


class SystemMessage(_Message, frozen=True, tag_field="role", tag="system"):
    """What the model is told to be."""

    content: str | list[TextPart]
    name: str | None = None

    def to_message(self, walk: Walk) -> Message:
        """The same, for any codec."""
        return Message("system", _parts(self.content, walk), self.name)


class DeveloperMessage(_Message, frozen=True, tag_field="role", tag="developer"):
    """The same, as newer models call it."""

    content: str | list[TextPart]
    name: str | None = None

    def to_message(self, walk: Walk) -> Message:
        """The same, for any codec."""
        return Message("developer", _parts(self.content, walk), self.name)


class UserMessage(_Message, frozen=True, tag_field="role", tag="user"):
    """What a person says."""

    content: str | list[TextPart]
    name: str | None = None

    def to_message(self, walk: Walk) -> Message:
        """The same, for any codec."""
        return Message("user", _parts(self.content, walk), self.name)


class AssistantMessage(_Message, frozen=True, tag_field="role", tag="assistant"):
    """What a model said before; with ``continue_final_message`` what its answer begins with."""

    content: str | list[TextPart | RefusalPart] | None = None
    name: str | None = None
    tool_calls: list[CallBody] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The other name of ``reasoning_content``."""

    def to_message(self, walk: Walk) -> Message:
        """The same, for any codec."""
        content = self.refusal or "" if self.content in (None, "") else self.content
        return Message(
            "assistant",
            _parts(content or "", walk),
            self.name,
            tool_calls=tuple(call.to_call() for call in walk(self.tool_calls or ())),
            reasoning=self.reasoning_content or self.reasoning or None,
        )


class ToolMessage(_Message, frozen=True, tag_field="role", tag="tool"):
    """What came of a call."""

    content: str | list[TextPart] | None
    tool_call_id: str
    name: str | None = None

    def to_message(self, walk: Walk) -> Message:
        """The same, for any codec."""
        parts = _parts(self.content or "", walk)
        return Message("tool", parts, self.name, tool_call_id=self.tool_call_id)


ChatMessage: TypeAlias = (
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage
)
"""A message as it comes over the wire."""


def _parts(
    content: str | list[TextPart] | list[TextPart | RefusalPart], walk: Walk
) -> str | list[conversation.TextPart]:
    if isinstance(content, str):
        return content
    return [
        conversation.TextPart(part.refusal if isinstance(part, RefusalPart) else part.text)
        for part in walk(content)
    ]
