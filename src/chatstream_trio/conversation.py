"""A conversation: messages, their parts, and whatever else a chat template is given.

Frozen values, the same for every API. It goes to a model's codec whole, which refuses what it
cannot render. This module checks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from attrs import Factory, field, frozen

Role: TypeAlias = Literal["system", "developer", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant")


@frozen
class TextPart:
    """A part of a message that is text."""

    text: str


Part: TypeAlias = TextPart
"""What a message may hold."""


def _to_parts(content: str | Sequence[Part]) -> tuple[Part, ...]:
    return (TextPart(content),) if isinstance(content, str) else tuple(content)


@frozen
class Message:
    """One message of a conversation."""

    role: Role
    content: tuple[Part, ...] = field(converter=_to_parts)
    """The parts of the message, in order. A string is one part."""
    name: str | None = None
    """The name of who speaks; models whose template knows names are told."""

    @property
    def text(self) -> str:
        """The text parts as one string."""
        return "".join([part.text for part in self.content])

    def to_dict(self) -> dict[str, str]:
        """The message as a chat template is given it."""
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": self.text, **named}


@frozen
class Conversation:
    """All that a chat template makes a prompt of."""

    messages: Sequence[Message]
    tools: tuple[Mapping[str, Any], ...] = ()
    """The functions that a model may call, each described by a JSON schema."""
    options: Mapping[str, Any] = Factory(dict)
    """Variables of the model's own template, such as ``enable_thinking``."""
