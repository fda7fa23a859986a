"""Messages of Anthropic's API, and the blocks that they are made of, as structs.

A block is told by its ``type`` and a message by its ``role``: each has fields of its own, and
blocks of other kinds (images, documents, what a server of theirs did) are refused by that name.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from chatstream_trio.web.anthropic.foreign import LABELS
from chatstream_trio.web.bodies.reading import Foreign, Wire


class _Labelled(Wire, frozen=True):
    foreign = Foreign(labels=LABELS, empty=True)


class TextBlock(_Labelled, frozen=True, tag_field="type", tag="text"):
    """What somebody says."""

    text: str


class ThinkingBlock(_Labelled, frozen=True, tag_field="type", tag="thinking"):
    """What a model said to itself before."""

    thinking: str


class RedactedThinkingBlock(_Labelled, frozen=True, tag_field="type", tag="redacted_thinking"):
    """The same, where only another server can read it."""

    data: str | None = None


class ToolUseBlock(_Labelled, frozen=True, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(_Labelled, frozen=True, tag_field="type", tag="tool_result"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


class UserMessage(_Labelled, frozen=True, tag_field="role", tag="user"):
    """What a person says, and what came of the calls before."""

    content: str | list[TextBlock | ToolResultBlock]


class AssistantMessage(_Labelled, frozen=True, tag_field="role", tag="assistant"):
    """What the model has said; the last one is what its answer begins with."""

    content: str | list[TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock]


class SystemMessage(_Labelled, frozen=True, tag_field="role", tag="system"):
    """What the operator says in the middle of a conversation."""

    content: str | list[TextBlock]


AnyMessage: TypeAlias = UserMessage | AssistantMessage | SystemMessage
